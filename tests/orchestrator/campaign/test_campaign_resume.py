"""A campaign survives being killed and being interrupted: nothing that was done is lost or done twice."""

import signal
from pathlib import Path

import pytest

from coppice.orchestrator.campaign import run, status
from coppice.orchestrator.campaign.sampler import Sampler
from coppice.orchestrator.folder.events import read_events
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.trials import TrialRecords
from tests.support.campaigns import campaign, driver, ray, wait_for
from tests.support.waiting import LIMIT_S

__all__ = ["ray"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray")]
ASHA = {"asha": {"max_epochs": 40, "grace_epochs": 2, "reduction_factor": 2}}


def sampled(folder: Path) -> list[object]:
    return [next(v for k, v in e.params.items() if k.endswith("x")) for e in TrialRecords(CampaignFolder(folder)).entries()]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_killed_or_interrupted_and_resumed(tmp_path: Path, how: signal.Signals) -> None:
    spec = campaign(tmp_path, {"x": {"uniform": [0, 1]}, "hold": 3}, training={"epochs": 8}, search={"trials": 6})
    process = driver(spec)
    wait_for(tmp_path / "c", 3)
    with pytest.raises(BlockingIOError):
        run(spec, resume=True)
    process.send_signal(how)
    said, _ = process.communicate(timeout=LIMIT_S)
    if how is not signal.SIGKILL:
        assert said.decode().split() == ["interrupted", how.name]
    left = {t.id: t for t in status(tmp_path / "c")}
    assert {t.state for t in left.values()} <= {"finished", "interrupted", "waiting"}
    done = [t.id for t in left.values() if t.state == "finished"]
    assert len(done) >= 2 and any(t.state == "interrupted" and t.epoch for t in left.values())
    before = {i: (tmp_path / "c/trials" / i / "events.jsonl").read_bytes() for i in done}
    values = sampled(tmp_path / "c")

    (tmp_path / "c" / "trials" / "go").touch()
    outcome = run(spec, resume=True)
    assert outcome.state == "finished"
    assert [(t.id, t.state, t.epoch) for t in outcome.trials] == [(f"t000{i}", "finished", 8) for i in range(6)]
    assert {i: (tmp_path / "c/trials" / i / "events.jsonl").read_bytes() for i in done} == before
    assert sampled(tmp_path / "c")[: len(values)] == values
    interrupted = next(t.id for t in left.values() if t.state == "interrupted" and t.epoch)
    events = read_events(tmp_path / "c/trials" / interrupted / "events.jsonl")
    assert [e["epoch"] for e in events if e["type"] == "metrics"] == list(range(1, 9))
    assert "resumed" in [e.get("status") for e in events]


def test_interruption_does_not_change_what_is_sampled(tmp_path: Path) -> None:
    search = {"trials": 6, "sampler": "tpe", "max_concurrent": 1}
    straight = campaign(tmp_path, name="straight", training={"epochs": 1}, search=search)
    run(straight)
    pieces = straight.model_copy(update={"name": "pieces", "search": straight.search.model_copy(update={"trials": 2})})
    run(pieces)
    for trials in (4, 6):
        run(pieces.model_copy(update={"search": straight.search.model_copy(update={"trials": trials})}), resume=True)
    assert sampled(tmp_path / "pieces") == sampled(tmp_path / "straight")


def test_rungs_are_the_same_after_an_interruption(tmp_path: Path) -> None:
    from coppice.scheduler.trials import build_trial_scheduler, replay

    search = {"trials": 5, "sampler": "random", "max_concurrent": 1, "scheduler": ASHA}
    straight = campaign(tmp_path, name="straight", training={"epochs": 6}, search=search)
    run(straight)
    pieces = straight.model_copy(update={"name": "pieces", "search": straight.search.model_copy(update={"trials": 2})})
    run(pieces)
    run(pieces.model_copy(update={"search": straight.search}), resume=True)
    rungs, states = [], []
    for name in ("straight", "pieces"):
        entries = TrialRecords(CampaignFolder(tmp_path / name)).entries()
        scheduler = build_trial_scheduler("asha", ASHA["asha"], "val_accuracy", "max")
        replay(scheduler, {e.id: e.reports for e in entries})
        rungs.append(scheduler.scheduler.rungs())
        states.append([(e.id, e.state, len(e.reports)) for e in entries])
    assert rungs[0] == rungs[1]
    assert states[0] == states[1]
    assert any(state == "stopped" for _, state, _ in states[0])


def test_the_study_comes_back_from_the_folders(tmp_path: Path) -> None:
    import optuna

    spec = campaign(tmp_path, training={"epochs": 1}, search={"trials": 3})
    run(spec)
    sampler = Sampler(spec)
    sampler.restore(TrialRecords(CampaignFolder(tmp_path / "c")).entries())
    trials = sampler._study.trials
    assert [t.state for t in trials] == [optuna.trial.TrialState.COMPLETE] * 3
    assert [t.value for t in trials] == [s.metrics["val_accuracy"] for s in status(tmp_path / "c")]
    sample = sampler.ask(3)
    assert sample is not None and list(sample.params) == ["task/network_args/x"]
