"""The jobs of a campaign from any login node: shown, held, cancelled for good, tried again."""

from pathlib import Path

import pytest

from coppice.orchestrator.campaign import run
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.operations.queue import cancel, hold, jobs_of, retry
from coppice.slurm.client import Client
from tests.cluster.test_job_placement import entries, in_jobs, same_but_for_jobs, wait_for_epochs
from tests.orchestrator.cli.test_elements import output
from tests.support.campaigns import campaign, driving
from tests.support.slurm.cluster import Cluster
from tests.support.slurm.processes import wait_for
from tests.support.waiting import LIMIT_S

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_a_trial_is_cancelled_for_good_and_tried_again(slurm: Cluster, tmp_path: Path) -> None:
    arguments = {"x": {"uniform": [0, 1]}, "sleep_s": 1.0}
    spec = in_jobs(campaign(tmp_path / "jobs", arguments, training={"epochs": 8}, search={"trials": 3, "sampler": "random"}))
    folder, client = CampaignFolder(tmp_path / "jobs" / "c"), Client()
    with driving(spec) as process:
        wait_for_epochs(spec, 3, 1)
        found = jobs_of(folder, client)
        assert [(j.trial, j.state, j.attempts) for j in found] == [(f"t000{i}", "RUNNING", 1) for i in range(3)]
        assert "t0001" in output("status", str(folder.path)) and all(j.nodes.startswith("node") for j in found)
        with pytest.raises(ValueError, match="t9 is none"):
            cancel(folder, client, ["t9"])
        assert cancel(folder, client, ["t0001"]) == ["t0001"]
        assert process.wait(LIMIT_S) == 0
    assert [e.state for e in entries(spec)] == ["finished", "failed", "finished"]
    assert retry(folder, []) == ["t0001"]
    assert run(spec, resume=True).state == "finished"
    same_but_for_jobs(spec, tmp_path / "local")


def test_waiting_jobs_are_held_and_released(slurm: Cluster, tmp_path: Path) -> None:
    for node in slurm.names:
        slurm.command("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    spec = in_jobs(campaign(tmp_path / "jobs", training={"epochs": 2}, search={"trials": 2, "sampler": "random"}))
    folder, client = CampaignFolder(tmp_path / "jobs" / "c"), Client()
    with driving(spec) as process:
        there = wait_for("the jobs", lambda: folder.jobs.is_dir() and (f := jobs_of(folder, client)) and len(f) == 2 and f)
        wait_for("them to wait", lambda: {j.state for j in jobs_of(folder, client)} == {"PENDING"})
        assert hold(folder, client, ["t0000"], release=False) == ["t0000"] and len(there) == 2
        for node in slurm.names:
            slurm.command("scontrol", "update", f"nodename={node}", "state=resume")
        wait_for("the other trial to finish", lambda: entries(spec)[1].state == "finished")
        assert jobs_of(folder, client)[0].reason.startswith("JobHeld") and not entries(spec)[0].reports
        assert hold(folder, client, [], release=True) == ["t0000"]
        assert process.wait(LIMIT_S) == 0
    same_but_for_jobs(spec, tmp_path / "local")
