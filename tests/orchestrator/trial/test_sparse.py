"""Sparse training in trials: weights go and come back, with sums over steps that are resumed bit by bit."""

from pathlib import Path
from typing import Any

import pytest

from coppice.orchestrator.config.models import TrialSpec
from coppice.orchestrator.folder import checkpoint as checkpoints
from coppice.orchestrator.folder.events import read_events
from coppice.orchestrator.trial.trial import Trial

ADAPTATIONS: list[dict[str, Any]] = [
    {"prune": {"when": {"periodic": {"every": 1, "until": 0.2}}, "where": "erk", "how": "rigl_drop", "amount": 0.5}},
    {"grow": {"when": {"periodic": {"every": 1, "from": 2}}, "where": "all", "how": {"snfs": {"scaled": True}}, "amount": 0.3}},
    {"grow": {"when": {"periodic": {"every": 2}}, "where": "all", "how": "rigl", "amount": 0.2}},
    {"prune": {"when": {"periodic": {"every": 3}}, "where": "global", "how": "movement", "amount": 0.1}},
]


def spec() -> TrialSpec:
    return TrialSpec.model_validate({
        "task": {"dataset": "digits", "dataset_args": {"limit_train": 200}, "network": "mlp",
                 "network_args": {"hidden": [10, 8]}},
        "training": {"epochs": 6, "batch_size": 25, "optimizer": {"adam": {"lr": 0.01}}, "ema": 0.9},
        "adaptations": ADAPTATIONS,
        "seed": 3,
    })  # fmt: skip


def test_stopped_and_resumed_it_is_bit_identical_and_the_number_of_weights_is_kept(tmp_path: Path) -> None:
    """Stopped after every second epoch."""
    Trial.open(spec(), tmp_path / "whole").run()
    done = False
    while not done:
        trial = Trial.open(spec(), tmp_path / "pieces")
        trial.step()
        trial.step()
        done = trial.done
        trial.close()
    tensors = []
    for folder in ("whole", "pieces"):
        newest = checkpoints.available(tmp_path / folder / "checkpoints")[-1]
        tensors.append((newest / "model.safetensors").read_bytes())
    assert tensors[0] == tensors[1]
    changes = [e for e in read_events(tmp_path / "whole" / "events.jsonl") if e["type"] == "structural"]
    assert {e["adaptation"] for e in changes} == {0, 1, 2, 3}
    weights = 64 * 10 + 10 * 8 + 8 * 10
    for event in changes:
        assert event["kind"] == "mask"
        if event["adaptation"] in (1, 2):
            assert event["parameters_after"] == event["parameters_before"]
    first = [e for e in changes if e["adaptation"] == 0]
    assert first[-1]["parameters_after"] - 10 - 8 - 10 == pytest.approx(weights / 2, abs=3)


def test_the_average_that_is_evaluated_is_as_sparse(tmp_path: Path) -> None:
    trial = Trial.open(spec(), tmp_path / "t")
    while not trial.done:
        trial.step()
    network, average = trial.trainer.network, trial.trainer.evaluated
    assert average is not network.module and network.masks
    assert all(not average.get_parameter(n)[~m].any() for n, m in network.masks.items())
    assert all(average.get_parameter(n)[m].any() for n, m in network.masks.items())
    trial.close()
