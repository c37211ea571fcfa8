"""Sizes that are trained, in trials: both sides of a campaign share one, and it is resumed bit by bit."""

from pathlib import Path
from typing import Any

import pytest

from coppice.orchestrator.config.models import TrialSpec
from coppice.orchestrator.folder import checkpoint as checkpoints
from coppice.orchestrator.folder.events import read_events
from coppice.orchestrator.trial.trial import Trial


def spec(how: str, arguments: dict[str, Any], pruning: dict[str, Any] | None = None) -> TrialSpec:
    sides = {"grow": {how: arguments}, "prune": {how: arguments if pruning is None else pruning}}
    return TrialSpec.model_validate({
        "task": {"dataset": "digits", "dataset_args": {"limit_train": 200}, "network": "mlp",
                 "network_args": {"hidden": [10, 8]}},
        "training": {"epochs": 6, "batch_size": 25, "optimizer": {"sgd": {"lr": 0.05, "momentum": 0.9}}, "lr_schedule": "cosine"},
        "adaptations": [
            {kind: {"when": "learned", "where": "all", "how": method, "amount": "advised"}} for kind, method in sides.items()],
        "seed": 3,
    })  # fmt: skip


CASES = {
    "size_weight": {"target": 1.4, "start": 0.85, "strength": 0.05},
    "controller": {"most": 1.6, "start": 0.85, "lr": 0.01},
}


@pytest.mark.parametrize("how", CASES)
def test_stopped_and_resumed_it_is_bit_identical_to_run_through(tmp_path: Path, how: str) -> None:
    """Stopped after every second epoch."""
    Trial.open(spec(how, CASES[how]), tmp_path / "whole").run()
    done = False
    while not done:
        trial = Trial.open(spec(how, CASES[how]), tmp_path / "pieces")
        trial.step()
        trial.step()
        done = trial.done
        trial.close()
    tensors = []
    for folder in ("whole", "pieces"):
        newest = checkpoints.available(tmp_path / folder / "checkpoints")[-1]
        tensors.append((newest / "model.safetensors").read_bytes())
    assert tensors[0] == tensors[1]
    events = read_events(tmp_path / "whole" / "events.jsonl")
    changes = [e for e in events if e["type"] == "structural"]
    assert any(e["kind"] == "grow" for e in changes)
    assert all(e["function_change"] <= 1e-5 * e["function_scale"] for e in changes)
    sizes = [e["widths"] for e in events if e["type"] == "metrics"]
    assert sizes[-1] != {"layers.0.weight:0": 10, "layers.1.weight:0": 8} and len(set(map(str, sizes))) > 1


def test_sides_that_share_a_size_must_have_the_same_parameters(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="adaptations 0 and 1 share one trained state"):
        Trial.open(spec("size_weight", {"target": 1.4}, {"target": 1.2}), tmp_path / "t")
