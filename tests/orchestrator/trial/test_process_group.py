"""Trials on several ranks: real processes, the same results as on one, and nothing lost when one of them goes."""

from pathlib import Path
from typing import Any

import pytest

from coppice.orchestrator.config.models import TrialSpec
from coppice.orchestrator.folder.events import read_events
from coppice.orchestrator.trial.trial import Trial
from tests.orchestrator.trial.test_trial import files
from tests.support.rank_processes import prepare, results, start
from tests.support.slurm.processes import wait_for

ADAPTATIONS = [
    {"grow": {"when": {"periodic": {"every": 2}}, "where": "all", "how": "gradmax", "amount": 0.5}},
    {"prune": {"when": {"periodic": {"every": 3}}, "where": "global", "how": "taylor", "amount": 0.25, "minimum": 2}},
]
WITHIN_EPOCHS = [
    {"grow": {"when": {"periodic": {"every": 2}}, "where": "all", "how": "net2wider", "amount": 0.25}},
    {"prune": {"when": {"periodic": {"every": 2}}, "where": "global", "how": "magnitude", "amount": 0.2, "minimum": 2,
               "removal": {"shrink": {"steps": 6}}}},
]  # fmt: skip
"""Units go in the middle of an epoch."""


def spec(**changes: Any) -> TrialSpec:
    base: dict[str, Any] = {
        "task": {"dataset": "digits", "dataset_args": {"limit_train": 200}, "network": "mlp", "network_args": {"hidden": [8, 8]}},
        "training": {"epochs": 5, "batch_size": 50, "optimizer": {"sgd": {"lr": 0.05, "momentum": 0.9}}, "ema": 0.9},
        "adaptations": ADAPTATIONS,
        "seed": 3,
    }
    return TrialSpec.model_validate({**base, **changes})


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [e for e in read_events(folder / "events.jsonl") if e["type"] == kind]


def shape(folder: Path) -> list[tuple[Any, ...]]:
    keys = ("epoch", "kind", "element", "size_before", "size_after", "units")
    return [tuple(e[k] for k in keys) for e in events(folder, "structural")]


@pytest.mark.parametrize("adaptations", [ADAPTATIONS, WITHIN_EPOCHS], ids=["between epochs", "within epochs"])
def test_several_ranks_train_grow_and_prune_like_one(tmp_path: Path, adaptations: list[dict[str, Any]]) -> None:
    """The batches are shared out, and so are the statistics; only rounding differs."""
    ended = results(start(prepare(spec(adaptations=adaptations), tmp_path / "three"), 3))
    assert [(code, said) for code, said, _ in ended] == [(0, "finished"), (0, "accompanied"), (0, "accompanied")], ended
    Trial.open(spec(adaptations=adaptations), tmp_path / "one").run()
    assert shape(tmp_path / "three") == shape(tmp_path / "one") and len(shape(tmp_path / "one")) >= 4
    for three, one in zip(events(tmp_path / "three", "metrics"), events(tmp_path / "one", "metrics"), strict=True):
        assert three["epoch"] == one["epoch"] and three["parameters"] == one["parameters"]
        assert three["train_loss"] == pytest.approx(one["train_loss"], rel=1e-3)
        assert three["val_loss"] == pytest.approx(one["val_loss"], rel=1e-3)


def test_each_run_of_several_ranks_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    batch_norm = spec(task={**spec().task.model_dump(), "network": "resnet", "network_args": {"depth": 8, "width": 0.25}})
    for name in "ab":
        ended = results(start(prepare(batch_norm, tmp_path / name), 2))
        assert [code for code, _, _ in ended] == [0, 0], ended
    assert files(tmp_path / "a") == files(tmp_path / "b")
    metrics = [[{**e, "seconds": 0, "time": 0, "trial": ""} for e in events(tmp_path / n, "metrics")] for n in "ab"]
    assert metrics[0] == metrics[1]


def test_no_wrapper_is_left_on_the_network_between_epochs(tmp_path: Path) -> None:
    """A live one would average the gradients of whatever runs backward, and be wrong in silence after a change."""
    task = {**prepare(spec(), tmp_path / "trial"), "body": "tests.support.bodies:LooksForTheWrapper"}
    ended = results(start(task, 2))
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert not [e for e in events(tmp_path / "trial", "status") if e["status"] == "failed"]


def test_a_batch_too_small_for_the_ranks_is_refused(tmp_path: Path) -> None:
    small = spec(training={**spec().training.model_dump(), "batch_size": 3})
    results(start(prepare(small, tmp_path / "trial"), 2))
    (status,) = [e for e in events(tmp_path / "trial", "status") if e["status"] == "failed"]
    assert "two samples or more for each of the 2 ranks, but batch_size is 3" in status["error"]


def test_what_goes_wrong_on_another_rank_is_the_trials_reason(tmp_path: Path) -> None:
    task = {**prepare(spec(), tmp_path / "trial"), "body": "tests.support.bodies:FailsOnTheLastRank"}
    ended = results(start(task, 2))
    assert [code for code, _, _ in ended] == [0, 1] and ended[0][1] == "failed"
    (status,) = [e for e in events(tmp_path / "trial", "status") if e["status"] == "failed"]
    assert status["error"] == "rank 1 of 2: ZeroDivisionError: only here"
    assert "ZeroDivisionError" in status["traceback"]


def test_a_rank_that_is_killed_costs_the_work_since_the_checkpoint(tmp_path: Path) -> None:
    long = spec(training={**spec().training.model_dump(), "epochs": 24})
    task = prepare(long, tmp_path / "trial")
    processes = start(task, 2)
    wait_for("some epochs", lambda: len(events(tmp_path / "trial", "metrics")) > 3)
    processes[1].kill()
    ended = results(processes)
    assert ended[0][0] != 0 and "RanksLost" in ended[0][2], ended
    assert not [e for e in events(tmp_path / "trial", "status") if e["status"] == "failed"]
    assert [code for code, _, _ in results(start(task, 2, attempt=2))] == [0, 0]
    assert [e["epoch"] for e in events(tmp_path / "trial", "metrics")] == list(range(1, 25))
    whole = results(start(prepare(long, tmp_path / "whole"), 2))
    assert [code for code, _, _ in whole] == [0, 0]
    assert files(tmp_path / "trial") == files(tmp_path / "whole")
