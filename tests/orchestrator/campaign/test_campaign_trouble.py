"""Full disks, errors that all trials have, and trials that are cancelled while they run: nothing is spent that need not be."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coppice.orchestrator.campaign import run
from coppice.orchestrator.campaign.run import Outcome
from coppice.orchestrator.folder.events import read_events
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.operations.queue import cancel
from coppice.orchestrator.operations.status import TrialStatus
from coppice.orchestrator.placement.local import trainable
from coppice.slurm.client import Client
from tests.support.campaigns import campaign, ray
from tests.support.waiting import LIMIT_S

__all__ = ["ray"]
slow = pytest.mark.slow
with_ray = pytest.mark.usefixtures("ray")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with 12 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", disk], check=False, capture_output=True).returncode:
        pytest.skip("file systems can be mounted by root only")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte of it."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return ballast


@slow
@with_ray
def test_a_full_disk_is_waited_for_and_no_trial_is_lost(small_disk: Path) -> None:
    spec = campaign(small_disk, {"x": {"uniform": [0, 1]}, "sleep_s": 0.05}, training={"epochs": 20}, search={"trials": 3})
    said: list[str] = []

    def watch(statuses: list[TrialStatus]) -> None:
        if not (small_disk / "filled").exists() and any(s.epoch > 1 for s in statuses):
            (small_disk / "filled").touch()
            fill(small_disk)

    def say(sentence: str) -> None:
        said.append(sentence)
        (small_disk / "ballast").unlink(missing_ok=True)  # somebody makes room

    outcome = run(spec, on_progress=watch, say=say)
    assert [(t.state, t.epoch) for t in outcome.trials] == [("finished", 20)] * 3 and outcome.state == "finished"
    assert "pauses: the disk is full" in said[0] and str(small_disk) in said[0] and said[-1] == "The campaign goes on."
    events = read_events(CampaignFolder(outcome.folder).trial("t0000").events)
    assert [e["epoch"] for e in events if e["type"] == "metrics"] == list(range(1, 21))


@slow
@with_ray
def test_what_every_trial_fails_with_is_said_once_and_values_are_kept(tmp_path: Path) -> None:
    spec = campaign(tmp_path, {"x": {"uniform": [0, 1]}, "fail": 1}, search={"trials": 8})
    outcomes: list[Outcome] = [run(spec), run(spec, resume=True)]
    for outcome, spent in zip(outcomes, (3, 6), strict=True):
        assert outcome.alike and outcome.state == "interrupted" and "this trial was told to fail" in outcome.problem
        assert [t.id for t in outcome.failed] == [f"t000{n}" for n in range(spent)] and len(outcome.trials) <= spent + 1


@slow
@with_ray
def test_a_trial_of_this_machine_that_is_cancelled_ends_and_the_others_do_not(tmp_path: Path) -> None:
    spec = campaign(tmp_path, {"x": {"uniform": [0, 1]}, "sleep_s": 0.2}, training={"epochs": 12}, search={"trials": 2})
    folder, cancelled = CampaignFolder(tmp_path / "c"), list[str]()

    def watch(statuses: list[TrialStatus]) -> None:
        if not cancelled and any(s.id == "t0000" and s.epoch for s in statuses):
            cancelled.extend(cancel(folder, Client(), ["t0000"]))

    outcome = run(spec, on_progress=watch)
    assert cancelled == ["t0000"] and outcome.state == "finished"
    assert [(t.id, t.state, t.reason) for t in outcome.trials] == [
        ("t0000", "failed", "cancelled by its user"), ("t0001", "finished", "")]  # fmt: skip
    assert outcome.trials[0].epoch < 12


def test_an_epoch_that_lasts_long_does_not_keep_a_cancelled_trial(tmp_path: Path) -> None:
    (tmp_path / "cancelled").touch()
    program = (
        "import sys, time; from pathlib import Path; from coppice.orchestrator.placement.local import trainable as t\n"
        "t.LOOK_EVERY_S = t.GRACE_S = 0.01\n"
        "with t._watched(Path(sys.argv[1])): time.sleep(600)"
    )
    ended = subprocess.run([sys.executable, "-c", program, tmp_path / "cancelled"], check=False, timeout=LIMIT_S, env=os.environ)
    assert ended.returncode == trainable.CANCELLED
