"""A trial of this machine that is stopped or interrupted keeps what it has reached, and counts as stopped only then."""

import contextlib
from pathlib import Path
from typing import Any

import pytest

from coppice.orchestrator.campaign.sampler import Sampler
from coppice.orchestrator.campaign.tune_search import TuneSearch
from coppice.orchestrator.config.models import Campaign, TrialSpec
from coppice.orchestrator.folder.checkpoint import available
from coppice.orchestrator.folder.events import read_events, state_of
from coppice.orchestrator.folder.files import exclusive, write_json
from coppice.orchestrator.folder.layout import CampaignFolder, TrialFolder
from coppice.orchestrator.folder.trials import TrialRecords
from coppice.orchestrator.placement.local.trainable import LocalTrainable
from coppice.orchestrator.placement.runner import Runner
from coppice.orchestrator.trial.trial import Trial

SPEC: dict[str, Any] = {
    "task": {"dataset": "digits", "network": "mlp", "network_args": {"hidden": [4]}},
    "training": {"epochs": 9, "batch_size": 512, "checkpoint_every": 100, "device": "cpu"},
}


def task(root: Path) -> dict[str, Any]:
    folder = TrialFolder(root / "t0000")
    write_json(folder.params, {"spec": SPEC, "params": {}, "number": 0, "sampling": {}})
    body = "coppice.orchestrator.trial.trial:Trial"
    return {"folder": str(folder.path), "body": body, "metrics": ["val_accuracy"], "mode": "max"}


def kept(root: Path) -> list[str]:
    return [p.name for p in available(root / "t0000" / "checkpoints")]


@pytest.mark.parametrize("way", ["cleanup", "reset_config"])
def test_what_was_reached_between_checkpoints_is_kept(tmp_path: Path, way: str) -> None:
    (tmp_path / "other").mkdir()
    trainable = LocalTrainable({**task(tmp_path), "bundles": [{"CPU": 1.0}]})
    for _ in range(3):
        trainable.step()
    assert kept(tmp_path) == []
    trainable.cleanup() if way == "cleanup" else trainable.reset_config({**task(tmp_path / "other"), "bundles": [{"CPU": 1.0}]})
    assert kept(tmp_path) == ["000003"]
    with exclusive(tmp_path / "t0000" / ".in-use"):
        again = Trial.open(TrialSpec.model_validate(SPEC), tmp_path / "t0000")
    assert again.epoch == 3


def test_nothing_is_kept_of_an_epoch_that_was_broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = Runner(task(tmp_path))
    runner.step()

    def broken(self: Trial) -> dict[str, float]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trial, "step", broken)
    with pytest.raises(KeyboardInterrupt):
        runner.step()
    runner.save()
    assert kept(tmp_path) == []


def test_stopped_is_written_when_the_worker_has_let_go_of_the_trial(tmp_path: Path) -> None:
    campaign = Campaign.model_validate({**SPEC, "name": "c", "root": tmp_path, "search": {"trials": 1}})
    records = TrialRecords(CampaignFolder(tmp_path / "c"))
    records.add("t0000", SPEC, 0)
    search = TuneSearch(campaign, records, records.entries(), Sampler(campaign), lambda: [], {})
    search._waiting.clear()  # as it is once Ray Tune runs the trial
    search._live.add("t0000")
    trial = records.folder.trial("t0000")
    with contextlib.ExitStack() as worker:
        worker.enter_context(exclusive(trial.in_use))
        for epoch in (1.0, 2.0):
            trial.append_event({"type": "metrics", "trial": "t0000", "time": 1.0, "epoch": epoch, "step": 1})
        search._numbers["t0000"] = None
        search.on_trial_complete("t0000", {"epoch": 2.0})
        search.next_trial()
        assert state_of(read_events(trial.events)) == "running"
        trial.append_event({"type": "checkpoint", "trial": "t0000", "time": 1.0, "epoch": 2, "step": 1, "path": "000002"})
    search.next_trial()
    events = read_events(trial.events)
    assert [e["type"] for e in events] == ["metrics", "metrics", "checkpoint", "status"]
    assert (state_of(events), events[-1]["epoch"]) == ("stopped", 2)


def test_seconds_do_not_follow_the_clock_of_the_wall(tmp_path: Path) -> None:
    times = iter(range(10_000, 0, -10))
    trial = Trial.open(TrialSpec.model_validate(SPEC), tmp_path / "t0000", clock=lambda: float(next(times)))
    trial.step()
    trial.step()
    events = read_events(tmp_path / "t0000" / "events.jsonl")
    assert [e["time"] for e in events] == [10_000 - 10 * i for i in range(len(events))], "when it was is told by that clock"
    assert all(0 <= row["seconds"] < 100 for row in trial.history)
