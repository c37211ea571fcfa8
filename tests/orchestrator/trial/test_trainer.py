"""`training.compile` and `training.precision`: the same trial, faster where the hardware is."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from coppice.orchestrator.config.models import TrialSpec
from coppice.orchestrator.trial.trial import Trial
from tests.orchestrator.trial.test_trial import spec, structural

EPOCHS = 11


def grown(folder: Path, **training: Any) -> Trial:
    """An MLP that grows after each epoch but the last."""
    base: dict[str, Any] = {"epochs": EPOCHS, "batch_size": 50, "optimizer": {"sgd": {"lr": 0.05, "momentum": 0.9}}}
    growing = {"grow": {"when": {"periodic": {"every": 1}}, "where": "all", "how": "random", "amount": 0.1}}
    task = {"dataset": "digits", "dataset_args": {"limit_train": 200}, "network": "mlp", "network_args": {"hidden": [12]}}
    trial = Trial.open(spec(task=task, training={**base, **training}, adaptations=[growing]), folder)
    trial.run()
    return trial


def test_a_compiled_network_is_compiled_anew_after_every_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch gives up on code that was compiled for eight shapes and runs it slowly without a word."""
    compiled: list[int] = []
    count = torch.compile

    def counting(module: torch.nn.Module, **options: Any) -> Any:
        counters.clear()
        compiled.append(sum(p.numel() for p in module.parameters()))

        def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
            graphs.append(compiled[-1])
            return graph.forward

        return count(module, backend=backend)

    graphs: list[int] = []
    monkeypatch.setattr(torch, "compile", counting)
    trial = grown(tmp_path / "compiled", compile=True)
    assert len(structural(tmp_path / "compiled")) == EPOCHS - 1
    assert len(compiled) == EPOCHS and len(set(compiled)) == EPOCHS
    assert set(graphs) == set(compiled), "every shape was compiled, none ran without"
    assert trial.history[-1]["val_loss"] == pytest.approx(grown(tmp_path / "plain").history[-1]["val_loss"], rel=1e-4)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_the_compiler_itself_trains_the_same_network(tmp_path: Path) -> None:
    plain, compiled = grown(tmp_path / "plain", epochs=3), grown(tmp_path / "compiled", epochs=3, compile=True)
    assert [m["parameters"] for m in compiled.history] == [m["parameters"] for m in plain.history]
    assert compiled.history[-1]["val_loss"] == pytest.approx(plain.history[-1]["val_loss"], rel=1e-3)


def test_bfloat16_rounds_the_forward_and_keeps_the_weights(tmp_path: Path) -> None:
    plain, rounded = grown(tmp_path / "plain", epochs=3), grown(tmp_path / "rounded", epochs=3, precision="bfloat16")
    assert {p.dtype for p in rounded.network.module.parameters()} == {torch.float32}
    ours, theirs = plain.history[-1]["train_loss"], rounded.history[-1]["train_loss"]
    assert ours != theirs and theirs == pytest.approx(ours, rel=0.02)


def test_unknown_precision_is_named() -> None:
    with pytest.raises(ValueError, match="float32"):
        TrialSpec.model_validate({**spec().model_dump(), "training": {"epochs": 1, "precision": "float8"}})
