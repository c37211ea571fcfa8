"""Campaigns on a real Ray: searches, failures, duplicate names, comparisons' place, stopping by ASHA."""

from pathlib import Path
from typing import Any

import pytest

from coppice.orchestrator.campaign import run, status
from coppice.orchestrator.folder.events import read_events
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.trials import TrialRecords
from coppice.orchestrator.operations.status import TrialStatus
from coppice.orchestrator.report.results import best_trial
from tests.support.campaigns import campaign, ray

__all__ = ["ray"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray")]


def params(root: Path) -> list[dict[str, Any]]:
    return [e.params for e in TrialRecords(CampaignFolder(root / "c")).entries()]


def test_all_trials_run_under_our_names(tmp_path: Path) -> None:
    seen: list[list[TrialStatus]] = []
    outcome = run(campaign(tmp_path), on_progress=seen.append)
    assert outcome.state == "finished"
    assert [(t.id, t.state, t.epoch) for t in outcome.trials] == [(f"t000{i}", "finished", 3) for i in range(4)]
    assert seen and [t.id for t in seen[-1]] == [t.id for t in outcome.trials]
    assert status(tmp_path / "c") == list(outcome.trials)
    best = best_trial(tmp_path / "c", "val_accuracy", "max")
    assert best is not None and best.id == outcome.best
    assert best.metrics["val_accuracy"] == max(t.metrics["val_accuracy"] for t in outcome.trials)
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == [
        ".in-use", "campaign.lock.json", "campaign.yaml", "decisions.jsonl", "results", "trials", "tune"]


def test_a_name_that_exists_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    run(campaign(tmp_path, search={"trials": 1}))
    before = (tmp_path / "c/trials/t0000/events.jsonl").read_bytes()
    with pytest.raises(FileExistsError, match=r"'c'.*resume"):
        run(campaign(tmp_path))
    assert (tmp_path / "c/trials/t0000/events.jsonl").read_bytes() == before
    with pytest.raises(ValueError, match=r"training.*changed"):
        run(campaign(tmp_path, training={"epochs": 9}), resume=True)
    with pytest.raises(FileNotFoundError, match="without resume"):
        run(campaign(tmp_path, name="other"), resume=True)


def test_failing_trials_do_not_end_the_campaign(tmp_path: Path) -> None:
    arguments = {"fail": {"choice": [0, 2]}, "nan": {"choice": [False, True]}}
    outcome = run(campaign(tmp_path, arguments, search={"sampler": "grid", "trials": 10}))
    assert outcome.state == "finished"
    assert len(outcome.trials) == 4
    reasons = sorted(t.reason for t in outcome.failed)
    assert len(reasons) == 3
    assert reasons[-1] == "ValueError: this trial was told to fail"
    assert reasons[0].startswith("ArithmeticError: metric val_accuracy must be finite")
    told = next(t for t in outcome.failed if "told to fail" in t.reason)
    assert "_misbehave" in told.traceback and told.epoch == 1
    assert outcome.best == next(t.id for t in outcome.trials if t.state == "finished")


def test_a_worker_that_is_killed_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    outcome = run(campaign(tmp_path, {"die": 2}, search={"trials": 1}))
    assert [(t.state, t.epoch) for t in outcome.trials] == [("finished", 3)]
    events = read_events(tmp_path / "c/trials/t0000/events.jsonl")
    assert [e["status"] for e in events if e["type"] == "status"] == ["started", "resumed", "finished"]
    assert [e["epoch"] for e in events if e["type"] == "metrics"] == [1, 2, 3]


def test_a_worker_that_always_dies_interrupts_its_trial_only(tmp_path: Path) -> None:
    outcome = run(campaign(tmp_path, {"die_always": {"choice": [True, False]}}, search={"sampler": "grid", "trials": 2}))
    assert [t.state for t in outcome.trials] == ["interrupted", "finished"]
    assert "worker process died 3 times" in outcome.trials[0].reason
    assert outcome.state == "interrupted" and "t0000" in outcome.problem


def test_a_metric_that_no_trial_reports_is_named(tmp_path: Path) -> None:
    outcome = run(campaign(tmp_path, search={"trials": 1, "metric": "speed", "mode": "max"}))
    assert "speed is not in ['compute', 'epoch'" in outcome.failed[0].reason
    assert outcome.best is None


def test_grid_visits_every_point_once(tmp_path: Path) -> None:
    arguments = {"x": {"choice": [0.1, 0.3]}, "width": {"choice": [1, {"int": [4, 5]}]}}
    outcome = run(campaign(tmp_path, arguments, search={"sampler": "grid", "trials": 99}))
    points = [tuple(sorted((k, repr(v)) for k, v in p.items())) for p in params(tmp_path)]
    assert outcome.state == "finished"
    assert len(points) == len(set(points)) == 6


def test_tpe_learns_from_what_it_is_told(tmp_path: Path) -> None:
    search = {"sampler": "tpe", "trials": 30, "max_concurrent": 1, "seed": 1}
    outcome = run(campaign(tmp_path, training={"epochs": 1}, search=search))
    x = [next(iter(p.values())) for p in params(tmp_path)]
    early, late = (sum(abs(v - 0.3) for v in part) / 8 for part in (x[:8], x[-8:]))
    assert late < 0.6 * early
    assert outcome.best is not None


def test_nsga2_searches_two_objectives(tmp_path: Path) -> None:
    arguments = {"x": {"uniform": [0, 1]}, "width": {"int": [1, 100]}}
    search = {"sampler": "nsga2", "trials": 8, "and": {"parameters": "min"}}
    outcome = run(campaign(tmp_path, arguments, training={"epochs": 1}, search=search))
    assert [t.state for t in outcome.trials] == ["finished"] * 8
    attributes = [e.sampling["attributes"] for e in TrialRecords(CampaignFolder(tmp_path / "c")).entries()]
    assert all(any("generation" in key for key in a) for a in attributes)


def test_asha_stops_bad_trials_and_keeps_good_ones(tmp_path: Path) -> None:
    search = {"sampler": "grid", "trials": 6, "max_concurrent": 1,
              "scheduler": {"asha": {"max_epochs": 8, "grace_epochs": 2, "reduction_factor": 2}}}
    x = {"choice": [0.3, 0.9, 0.31, 0.95, 1.0, 0.29]}
    outcome = run(campaign(tmp_path, {"x": x}, training={"epochs": 20}, search=search))
    assert outcome.state == "finished"
    assert [t.state for t in outcome.trials] == ["stopped"] * 6
    assert outcome.trials[0].epoch == 8
    assert outcome.trials[0].reason == "epoch >= 8"
    assert outcome.trials[1].epoch == 2 and outcome.trials[1].reason == "stopped by asha"


def test_the_best_is_compared_after_the_search(tmp_path: Path) -> None:
    search = {"trials": 3, "scheduler": {"asha": {"max_epochs": 2, "grace_epochs": 1}}}
    spec = campaign(tmp_path, search=search, compare={"big": {"x": 0.9}})
    outcome = run(spec)
    big = outcome.trials[0]
    assert (big.id, big.label, big.epoch) == ("big", "big", 3), "ASHA leaves it alone"
    assert outcome.best is not None and outcome.best.startswith("t0")
    assert run(spec, resume=True).trials == outcome.trials


def test_a_trial_that_cannot_fit_is_refused_instead_of_waiting_for_ever(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ask for 64 CPU and there are 2"):
        run(campaign(tmp_path, resources={"cpus": 64}))


def test_unknown_placement_and_scheduler_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\['local', 'job', 'pool'\], but got 'moon'"):
        run(campaign(tmp_path, name="a", placement="moon"))
    with pytest.raises(ValueError, match=r"\['asha', 'none'\]"):
        run(campaign(tmp_path, name="b", search={"scheduler": "hyperband"}))
