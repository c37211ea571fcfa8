"""A trial is deterministic and resumes bit-identically; what goes wrong is said, not hidden."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from coppice.orchestrator.config.models import TrialSpec
from coppice.orchestrator.folder import checkpoint as checkpoints
from coppice.orchestrator.folder.events import read_events
from coppice.orchestrator.trial.errors import NonFiniteLoss
from coppice.orchestrator.trial.trial import Trial


def spec(**changes: Any) -> TrialSpec:
    base: dict[str, Any] = {
        "task": {"dataset": "digits", "dataset_args": {"limit_train": 200}, "network": "resnet",
                 "network_args": {"depth": 8, "width": 0.25}},
        "training": {"epochs": 6, "batch_size": 50, "optimizer": {"sgd": {"lr": 0.05, "momentum": 0.9}}, "lr_schedule": "cosine"},
        "adaptations": [
            {"grow": {"when": {"periodic": {"every": 2}}, "where": "all", "how": "random", "amount": 0.5}},
            {"prune": {"when": {"periodic": {"every": 3}}, "where": "global", "how": "magnitude", "amount": 0.2, "minimum": 2}},
        ],
        "seed": 3,
    }
    return TrialSpec.model_validate({**base, **changes})


def files(trial: Path) -> dict[str, bytes]:
    """The tensors of the newest checkpoint, as bytes."""
    newest = checkpoints.available(trial / "checkpoints")[-1]
    return {name: (newest / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")}


def structural(trial: Path) -> list[dict[str, Any]]:
    return [e for e in read_events(trial / "events.jsonl") if e["type"] == "structural"]


VARIANTS = {
    "sgd": {},
    "adam and an average": {"training": {"epochs": 6, "batch_size": 50, "optimizer": {"adamw": {"lr": 0.003}}, "ema": 0.9}},
    "masks": {"adaptations": [
        {"prune": {"when": {"periodic": {"every": 2}}, "where": "global", "how": "magnitude_weights", "amount": 0.3}},
        {"grow": {"when": {"periodic": {"every": 3}}, "where": "round_robin", "how": "net2wider", "amount": 0.5}}]},
    "shrink over steps": {"adaptations": [
        {"grow": {"when": {"periodic": {"every": 4}}, "where": "all", "how": "gradmax", "amount": 0.25}},
        {"prune": {"when": {"periodic": {"every": 2}}, "where": "global", "how": "slimming", "amount": 0.2, "minimum": 2,
                   "removal": {"shrink": {"steps": 6}}}}]},
    "gates": {"adaptations": [
        {"grow": {"when": {"periodic": {"every": 3}}, "where": "all", "how": "random", "amount": 0.25}},
        {"prune": {"when": {"periodic": {"every": 2}}, "where": "all", "amount": "advised",
                   "how": {"differentiable": {"strength": 0.05, "start": 0.3}}}}]},
    "depth": {"adaptations": [
        {"grow": {"when": {"periodic": {"every": 2}}, "where": "round_robin", "how": "deepen", "amount": 1}},
        {"prune": {"when": {"periodic": {"every": 3}}, "where": "global", "how": "remove_blocks", "amount": 1}}]},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_stopped_and_resumed_is_bit_identical_to_run_through(tmp_path: Path, name: str) -> None:
    """Stopped after every single epoch, each time resumed in a new Trial; growth and pruning before and after each stop."""
    whole = Trial.open(spec(**VARIANTS[name]), tmp_path / "whole")
    last = whole.run()
    while True:
        trial = Trial.open(spec(**VARIANTS[name]), tmp_path / "pieces")
        if trial.done:
            break
        pieces = trial.step()
        trial.close()
    assert files(tmp_path / "whole") == files(tmp_path / "pieces")
    timeless = {k: v for k, v in last.items() if k != "seconds"}
    assert timeless == {k: v for k, v in pieces.items() if k != "seconds"}
    kinds = {e["kind"] for e in structural(tmp_path / "pieces")}
    assert len(kinds) >= 2, kinds
    assert len(structural(tmp_path / "pieces")) == len(structural(tmp_path / "whole"))


def test_a_stop_between_epochs_repeats_nothing_in_the_events(tmp_path: Path) -> None:
    """Killed after the events of epoch 4 were written but with epoch 3 as last checkpoint: epoch 4 is there once."""
    trial = Trial.open(spec(), tmp_path / "t")
    for _ in range(4):
        trial.step()
    trial.close()
    shutil.rmtree(tmp_path / "t" / "checkpoints" / "000004")
    resumed = Trial.open(spec(), tmp_path / "t")
    assert resumed.epoch == 3
    resumed.step()
    epochs = [e["epoch"] for e in read_events(tmp_path / "t" / "events.jsonl") if e["type"] == "metrics"]
    assert epochs == [1, 2, 3, 4]


def test_a_damaged_checkpoint_falls_back_to_the_previous_one(tmp_path: Path) -> None:
    trial = Trial.open(spec(), tmp_path / "t")
    for _ in range(3):
        trial.step()
    trial.close()
    file = tmp_path / "t" / "checkpoints" / "000003" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    resumed = Trial.open(spec(), tmp_path / "t")
    assert resumed.epoch == 2
    said = [e for e in read_events(tmp_path / "t" / "events.jsonl") if e.get("status") == "resumed"]
    assert "model.safetensors" in said[-1]["damaged"][0]
    resumed.run()
    fresh = Trial.open(spec(), tmp_path / "fresh")
    fresh.run()
    assert files(tmp_path / "t") == files(tmp_path / "fresh")


def test_seed_and_nothing_else_decides(tmp_path: Path) -> None:
    torch.manual_seed(1)
    Trial.open(spec(), tmp_path / "a").run()
    torch.manual_seed(2)
    Trial.open(spec(), tmp_path / "b").run()
    Trial.open(spec(seed=4), tmp_path / "c").run()
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a") != files(tmp_path / "c")


def test_metrics_belong_to_the_network_that_is_saved(tmp_path: Path) -> None:
    """After a structural event the reported validation loss is that of the changed network."""
    prune = {"prune": {"when": {"periodic": {"every": 1}}, "where": "global", "how": "magnitude", "amount": 0.4, "minimum": 1}}
    trial = Trial.open(spec(adaptations=[prune]), tmp_path / "t")
    metrics = trial.step()
    assert structural(tmp_path / "t")
    assert metrics["parameters"] == trial.network.num_parameters()
    assert metrics["val_loss"] == trial._evaluate("val")["val_loss"]


def test_nan_loss_is_a_clear_error(tmp_path: Path) -> None:
    training = {"epochs": 2, "batch_size": 50, "optimizer": {"sgd": {"lr": 1e30}}}
    trial = Trial.open(spec(training=training), tmp_path / "t")
    with pytest.raises(NonFiniteLoss, match="must stay finite"):
        trial.step()
        trial.step()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"prune": {"when": {"periodic": {"every": 1}}, "where": "all", "how": "magnitude", "amount": 0.001}}, "rounds to 0"),
        ({"grow": {"when": {"periodic": {"every": 1}}, "where": "all", "how": "random", "amount": 0.5,
                   "limit": {"width": 1.0}}}, "limit"),
        ({"prune": {"when": {"periodic": {"every": 1}}, "where": "all", "how": "magnitude", "amount": 0.9,
                    "minimum": 1000}}, "minimum"),
        ({"grow": {"when": {"periodic": {"every": 1}}, "where": "all", "how": "random", "amount": 0.5,
                   "elements": ["no.such.*"]}}, "no.such"),
    ],
)
def test_what_cannot_be_done_is_skipped_with_its_reason(tmp_path: Path, how: dict[str, Any], said: str) -> None:
    trial = Trial.open(spec(adaptations=[how]), tmp_path / "t")
    before = trial.network.num_parameters()
    trial.step()
    skipped = [e["reason"] for e in read_events(tmp_path / "t" / "events.jsonl") if e["type"] == "skipped"]
    assert any(said in reason for reason in skipped), skipped
    assert trial.network.num_parameters() == before


def test_widths_and_parameters_are_in_the_events(tmp_path: Path) -> None:
    Trial.open(spec(), tmp_path / "t").run()
    events = read_events(tmp_path / "t" / "events.jsonl")
    reports = [e for e in events if e["type"] == "metrics"]
    assert len(reports) == 6
    assert json.dumps(reports[-1]["widths"])
    assert len({e["parameters"] for e in reports}) > 1
    assert {e["kind"] for e in structural(tmp_path / "t")} == {"grow", "prune"}


def test_a_removal_that_training_was_too_short_for_is_said(tmp_path: Path) -> None:
    prune = {"prune": {"when": {"periodic": {"every": 1}}, "where": "global", "how": "magnitude", "amount": 0.2, "minimum": 2,
                       "removal": {"shrink": {"steps": 10000}}}}
    trial = Trial.open(spec(adaptations=[prune]), tmp_path / "t")
    trial.run()
    assert not structural(tmp_path / "t")
    reasons = [e["reason"] for e in read_events(tmp_path / "t" / "events.jsonl") if e["type"] == "skipped"]
    assert any("of 10000 steps when training ended" in reason for reason in reasons)
