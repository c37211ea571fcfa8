"""Campaigns whose trials are Slurm jobs, on a real Slurm: the same results as on this machine, whatever happens to the jobs."""

import json
from pathlib import Path
from typing import Any

import pytest

from coppice.orchestrator.campaign import run
from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.config.placement import LocalPlacement
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.trials import TrialRecord, TrialRecords
from coppice.slurm.broker.journal import Journal
from tests.support.campaigns import campaign, driving
from tests.support.slurm.cluster import Cluster
from tests.support.slurm.processes import wait_for
from tests.support.waiting import LIMIT_S

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
JOB = {"job": {"site": "generic", "poll_s": 0.5}}


def entries(spec: Campaign) -> list[TrialRecord]:
    return TrialRecords(CampaignFolder(spec.root / spec.name)).entries()


def told(spec: Campaign) -> list[tuple[Any, ...]]:
    """What was tried and what came of it; times left aside."""
    found: list[tuple[Any, ...]] = []
    for entry in entries(spec):
        entry.spec["task"]["network_args"].pop("sleep_s", None)
        rows = [{k: v for k, v in r.items() if k not in ("seconds", "time")} for r in entry.reports]
        found.append((entry.id, json.dumps(entry.spec, sort_keys=True), entry.state, rows))
    return found


def test_a_campaign_of_jobs_has_the_results_of_a_local_one(slurm: Cluster, tmp_path: Path) -> None:
    spec = in_jobs(campaign(tmp_path / "jobs", search={"trials": 6, "sampler": "random"}))
    assert run(spec).state == "finished"
    same_but_for_jobs(spec, tmp_path / "local")
    assert not slurm.command("squeue", "-h", "-t", "PD,R").strip()


def in_jobs(spec: Campaign, **job: Any) -> Campaign:
    return Campaign.model_validate({**spec.model_dump(by_alias=True), "placement": {"job": {**JOB["job"], **job}}})


def wait_for_epochs(spec: Campaign, trials: int, epoch: int) -> None:
    """Until that many trials have come that far."""
    wait_for(
        f"{trials} trials in epoch {epoch}",
        lambda: sum(1 for e in entries(spec) if e.reports and e.reports[-1]["epoch"] >= epoch) >= trials, step=0.1,
    )  # fmt: skip


def job_of(spec: Campaign, trial: str) -> str:
    return Journal(spec.root / spec.name / "jobs" / "journal.jsonl").attempts()[trial][-1].job


def same_but_for_jobs(spec: Campaign, root: Path) -> None:
    """Every trial finished with what the local campaign has, each epoch once."""
    task = {**spec.task, "network_args": {**spec.task["network_args"], "sleep_s": 0}}
    local = spec.model_copy(update={"root": root, "placement": LocalPlacement(), "task": task})
    assert run(local).state == "finished"
    assert told(spec) == told(local)
    assert {e.state for e in entries(spec)} == {"finished"}


def test_nothing_is_lost_whatever_happens_to_the_jobs(machines: Cluster, tmp_path: Path) -> None:
    """A job is cancelled by hand, one is requeued, a node loses power, and the controller is killed; all in one campaign."""
    arguments = {"x": {"uniform": [0, 1]}, "sleep_s": 1.5}
    spec = in_jobs(campaign(tmp_path / "jobs", arguments, training={"epochs": 12}, search={"trials": 6, "sampler": "random"}))
    with driving(spec) as process:
        wait_for_epochs(spec, 6, 1)
        machines.daemon("kill", "slurmctld", ["ctl"])
        machines.daemon("run", "slurmctld", ["ctl"])
        wait_for("the controller", lambda: machines.command("squeue", "-h", check=False))
        machines.command("scancel", job_of(spec, "t0000"))
        machines.command("scontrol", "requeue", job_of(spec, "t0001"))
        node = machines.command("squeue", "-h", "-j", job_of(spec, "t0002"), "-o", "%N").strip()
        machines.lose_power(node)
        assert process.wait(LIMIT_S) == 0
    attempts = Journal(spec.root / spec.name / "jobs" / "journal.jsonl").attempts()
    assert len({a.job for a in attempts["t0000"] if a.job}) == 2
    same_but_for_jobs(spec, tmp_path / "local")
    assert not machines.command("squeue", "-h", "-t", "PD,R").strip()


def test_jobs_outlive_a_killed_driver_and_are_found_again(slurm: Cluster, tmp_path: Path) -> None:
    arguments = {"x": {"uniform": [0, 1]}, "sleep_s": 0.7}
    spec = in_jobs(campaign(tmp_path / "jobs", arguments, training={"epochs": 12}, search={"trials": 5, "sampler": "random"}))
    with driving(spec) as process:
        wait_for_epochs(spec, 5, 2)
        process.kill()
    before = {t: job_of(spec, t) for t in ("t0000", "t0004")}
    reached = entries(spec)[0].reports[-1]["epoch"]
    wait_for_epochs(spec, 5, int(reached) + 1)
    assert run(spec, resume=True).state == "finished"
    assert {t: job_of(spec, t) for t in before} == before
    same_but_for_jobs(spec, tmp_path / "local")
