"""What a trial's folder and its job say together, in a word and a reason."""

import os
import time
from pathlib import Path

import pytest

from coppice.orchestrator.cli.tables import grouped, hours_text
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.operations.overview import _under_way, overview
from coppice.orchestrator.operations.queue import TrialJobs
from coppice.slurm.client import Client
from tests.orchestrator.cli.test_live import status
from tests.support.campaigns import campaign
from tests.support.folders import create

JOBS = {
    "runs": TrialJobs("t", "7", "RUNNING", "", "n1", 1),
    "waits": TrialJobs("t", "7", "PENDING", "Priority", "", 1, "2026-11-23T14:05:00"),
    "held": TrialJobs("t", "7", "PENDING", "JobHeldUser", "", 1),
    "over": TrialJobs("t", "7", "TIMEOUT", "", "n1", 1),
    "stopped": TrialJobs("t", "7", "SUSPENDED", "", "n1", 1),
    "none": None,
}
PRIORITY = "Priority: jobs with a higher priority come first; expected to start Mon 23 Nov, 14:05"


@pytest.mark.parametrize(("events", "job", "driven", "silent", "state", "why"), [
    ("running", "runs", False, False, "running", ""),
    ("waiting", "runs", True, False, "starting", ""),
    ("interrupted", "waits", True, False, "queued", PRIORITY),
    ("waiting", "held", False, False, "held", "JobHeldUser: you hold it: coppice release"),
    ("running", "over", True, False, "between jobs", "job 7 is over (TIMEOUT); its driver looks after it"),
    ("running", "over", False, False, "interrupted", "job 7 is over (TIMEOUT); no driver runs"),
    ("running", "stopped", True, False, "suspended", "Slurm has stopped it"),
    ("running", "none", True, False, "running", ""),
    ("running", "none", False, False, "interrupted", "no driver runs"),
    ("running", "over", False, True, "running", ""),
])  # fmt: skip
def test_states(events: str, job: str, driven: bool, silent: bool, state: str, why: str) -> None:
    found = _under_way(status("t", events), JOBS[job], driven, silent)
    assert found[0] == state and found[1].startswith(why) and bool(found[1]) == bool(why)


def test_reasons_are_told_once() -> None:
    assert grouped([(f"t{i}", "why") for i in range(9)] + [("x", ""), ("y", "other")], most=2) == [
        "t0, t1 and 7 more: why", "y: other"]  # fmt: skip
    assert [hours_text(v) for v in (None, 0.001, 0.5, 12.34, 12345.6)] == ["\N{EN DASH}", "0.001", "0.50", "12.3", "12,346"]


def test_status_warns_before_scratch_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = CampaignFolder(tmp_path / "c")
    create(folder, campaign(tmp_path, placement={"job": {"site": "lichtenberg2", "account": "p"}}))
    folder.jobs.mkdir()
    assert not [n for n in overview(folder, Client()).notes if "expire" in n]
    then = time.time() - 50 * 86400
    os.utime(folder.lock, (then, then))
    told = [n for n in overview(folder, Client()).notes if "expire" in n]
    assert len(told) == 1 and "expire after 56 days" in told[0] and "50 days old" in told[0] and "coppice doctor" in told[0]
