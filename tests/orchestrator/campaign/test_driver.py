"""When a driver goes on, gives up, or leaves the campaign to another one."""

from pathlib import Path

import pytest

from coppice.orchestrator.campaign import driver
from coppice.orchestrator.campaign.driver import IDLE_DRIVERS, SOON_S, drive
from coppice.orchestrator.campaign.interrupts import Interrupt
from coppice.orchestrator.campaign.run import Outcome
from coppice.orchestrator.campaign.tune_stopper import InterruptStopper
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.placement.ended_jobs import JobsKeepDying
from coppice.slurm.client import Job
from coppice.slurm.job.successor import NOT_DONE
from tests.support.campaigns import campaign
from tests.support.folders import create
from tests.support.slurm.stand_ins import FakeClient


class Sbatch(FakeClient):
    """Takes every successor."""

    def run(self, *command: str, patience_s: float | None = None) -> str:
        self.calls[command[0]] = self.calls.get(command[0], 0) + 1
        return "77\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CampaignFolder:
    monkeypatch.setenv("SLURM_JOB_ID", "70")
    made = CampaignFolder(tmp_path / "c")
    create(made, campaign(tmp_path))
    made.jobs.mkdir()
    return made


def ends(monkeypatch: pytest.MonkeyPatch, folder: CampaignFolder, how: str) -> None:
    def run(*arguments: object, **named: object) -> Outcome:
        assert named["resume"] and named["wait_s"]
        if how == "dies":
            raise JobsKeepDying("no job gets anywhere")
        if how == "locked":
            folder.in_use.write_text("process 5 on node1, job 60")
            raise BlockingIOError("held")
        return Outcome(folder.path, how, (), None)

    monkeypatch.setattr(driver, "run", run)


@pytest.mark.parametrize(("how", "code", "cancelled"), [("interrupted", NOT_DONE, []), ("finished", 0, ["77"])])
def test_a_successor_goes_on_unless_all_is_done(
    folder: CampaignFolder, monkeypatch: pytest.MonkeyPatch, how: str, code: int, cancelled: list[str]
) -> None:
    ends(monkeypatch, folder, how)
    client = Sbatch(jobs={"77": Job("77", "", "PENDING", "Dependency")})
    assert drive(folder.path, client) == code
    assert client.calls == {"sbatch": 1} and client.cancelled == cancelled


def test_no_successor_repeats_what_cannot_work(folder: CampaignFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    ends(monkeypatch, folder, "dies")
    client = Sbatch()
    with pytest.raises(JobsKeepDying):
        drive(folder.path, client)
    assert client.cancelled == ["77"]


def test_a_cancelled_campaign_is_not_driven(folder: CampaignFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    ends(monkeypatch, folder, "dies")
    folder.cancelled.touch()
    client = Sbatch()
    assert drive(folder.path, client) == 0 and not client.calls


@pytest.mark.parametrize("state", ["RUNNING", "NODE_FAIL"])
def test_of_two_drivers_one_ends_and_a_dead_one_is_outlasted(
    folder: CampaignFolder, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    ends(monkeypatch, folder, "locked")
    client = Sbatch(jobs={"60": Job("60", "", state)})
    if state == "RUNNING":
        assert drive(folder.path, client) == 0 and client.cancelled == ["77"]
    else:
        with pytest.raises(BlockingIOError):
            drive(folder.path, client)
        assert not client.cancelled  # the successor tries again


def test_a_successor_that_somebody_cancelled_is_replaced(folder: CampaignFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    ends(monkeypatch, folder, "interrupted")
    client = Sbatch(jobs={"77": Job("77", "", "CANCELLED")})
    assert drive(folder.path, client) == NOT_DONE
    assert client.calls == {"sbatch": 2}


def test_drivers_that_bring_nothing_on_end_and_those_that_waited_long_do_not_count(
    folder: CampaignFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends(monkeypatch, folder, "interrupted")
    now = 1e9
    monkeypatch.setattr(driver.time, "time", lambda: now)
    for _ in range(IDLE_DRIVERS + 2):
        now += SOON_S + 1
        assert drive(folder.path, Sbatch()) == NOT_DONE
    for _ in range(IDLE_DRIVERS - 1):
        now += 5
        assert drive(folder.path, Sbatch()) == NOT_DONE
    now += 5
    with pytest.raises(RuntimeError, match=f"the last {IDLE_DRIVERS} did not"):
        drive(folder.path, Sbatch())


def test_a_signal_that_comes_while_looking_for_a_cancellation_is_not_lost() -> None:
    def looks() -> str:
        interrupt.reason = "SIGUSR1"
        return ""

    interrupt = Interrupt()
    assert InterruptStopper(interrupt, looks).stop_all() and interrupt.reason == "SIGUSR1"
