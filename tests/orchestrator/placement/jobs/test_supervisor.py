"""What becomes of trials whose jobs end: real folders, real broker, stand-ins for Slurm."""

import json
from pathlib import Path
from typing import Any

import pytest

from coppice.orchestrator.folder import attempts
from coppice.orchestrator.folder.events import append_event, read_events, state_of
from coppice.orchestrator.folder.files import write_json
from coppice.orchestrator.folder.layout import TrialFolder
from coppice.orchestrator.placement.ended_jobs import JobsKeepDying
from coppice.orchestrator.placement.jobs.supervisor import JobSupervisor
from coppice.orchestrator.placement.jobs.trial_job import TrialJob
from coppice.orchestrator.placement.supervisor import DriverReplaced
from coppice.slurm.broker.bad_nodes import AVOID_S
from coppice.slurm.request import Request
from tests.support.slurm.stand_ins import Stage


class Trials:
    """Supervised trials; their jobs do what the test says."""

    def __init__(self, stage: Stage, count: int = 1, **request: Any) -> None:
        self.stage, self.supervisor = stage, JobSupervisor(stage.broker, Request(5, **request))
        self.names = [f"t{i}" for i in range(count)]
        for name in self.names:
            write_json(self.folder(name).params, {"spec": {"training": {"epochs": 9, "checkpoint_every": 2}}})
            self.supervisor.start({"folder": str(self.folder(name).path)})
        self.poll()

    def folder(self, name: str) -> TrialFolder:
        return TrialFolder(self.stage.state / "trials" / name)

    def poll(self, times: int = 1) -> None:
        for _ in range(times):
            for name in self.names:
                attempt = self.stage.broker.tracked(name).attempt if name in self.stage.broker._works else None
                if attempt and attempt.job not in self.stage.client.jobs:
                    self.stage.runs(name, "PENDING", nodes="")
            self.stage.at += 301.0
            self.supervisor.poll()

    def begin(self, name: str, epoch: int = 0) -> None:
        """The job gets as far as the trial."""
        attempt = self.stage.broker.tracked(name).attempt
        assert attempt is not None
        write_json(self.folder(name).path / attempts.NAME, {"token": [attempt.number, 0]})
        self.event(name, "status", epoch, status="resumed" if epoch else "started")

    def event(self, name: str, kind: str, epoch: int, **content: Any) -> None:
        append_event(self.folder(name).events, {"type": kind, "trial": name, "time": 0, "epoch": epoch, "step": 0, **content})

    def epoch(self, name: str, epoch: int, seconds: float = 1.0, parameters: float = 1.0) -> None:
        self.event(name, "metrics", epoch, seconds=seconds, parameters=parameters)

    def ends(self, name: str, state: str, **about: str) -> str:
        job = self.stage.runs(name, state, **about)
        self.poll(3)
        return job

    def state(self, name: str = "t0") -> str:
        return state_of(read_events(self.folder(name).events))

    def error(self, name: str = "t0") -> str:
        last = read_events(self.folder(name).events)[-1]
        return str(last["error"] if last["status"] == "failed" else last["reason"])

    def options(self, name: str = "t0") -> dict[str, str]:
        return dict(self.stage.broker.tracked(name).work.options)


def test_a_node_on_which_jobs_die_is_avoided_for_a_while(stage: Stage) -> None:
    trials = Trials(stage, 3)
    for name in ("t0", "t1"):
        stage.runs(name, "FAILED", nodes="bad1")
    trials.begin("t2")
    stage.runs("t2")
    trials.poll(2)
    assert trials.options()["exclude"] == "bad1" and "exclude=bad1" in stage.taken()[-1]
    trials.ends("t0", "NODE_FAIL", nodes="bad[3-4]")
    assert trials.options()["exclude"] == "bad1,bad3,bad4"
    trials.begin("t1")
    stage.at += AVOID_S
    trials.ends("t1", "PREEMPTED", nodes="good1")
    assert "exclude" not in trials.options("t1")


def test_jobs_that_die_on_every_node_stop_the_campaign(stage: Stage) -> None:
    trials = Trials(stage, 4)
    stage.runs("t0", "FAILED", nodes="n1")
    stage.runs("t1", "FAILED", nodes="n1")
    trials.poll()
    (stage.state / "jobs" / "100_3_0_log.out").write_text("first\n\nModuleNotFoundError: No module named 'torch'\n")
    stage.runs("t2", "FAILED", nodes="n2")
    stage.runs("t3", "FAILED", nodes="n3")
    with pytest.raises(JobsKeepDying, match=r"on n1, n2, n3(.|\n)*100_3(.|\n)*No module named 'torch'"):
        trials.poll()
    assert not trials.supervisor.keep and trials.state("t0") == "waiting"


def test_jobs_that_die_do_not_stop_a_campaign_that_runs(stage: Stage) -> None:
    trials = Trials(stage, 4)
    trials.begin("t3")
    stage.runs("t3")
    for name, node in (("t0", "n1"), ("t1", "n2"), ("t2", "n3")):
        stage.runs(name, "FAILED", nodes=node)
    trials.poll(2)
    assert trials.options("t1")["exclude"] == "n1,n2,n3"


def test_one_node_that_swallows_many_jobs_does_not_stop_the_campaign(stage: Stage) -> None:
    trials = Trials(stage, 8)
    for name in trials.names:
        stage.runs(name, "FAILED", nodes="hole")
    trials.poll(2)
    assert len(stage.taken()) == 2 and "exclude=hole" in stage.taken()[1]
    for name in trials.names:
        trials.begin(name)
        stage.runs(name)
    trials.poll()


def test_the_same_trial_dying_again_and_again_stops_where_no_other_runs(stage: Stage) -> None:
    trials = Trials(stage)
    trials.ends("t0", "FAILED", nodes="n1")
    trials.ends("t0", "FAILED", nodes="n1")
    stage.runs("t0", "FAILED", nodes="n1")
    with pytest.raises(JobsKeepDying, match="one job after the other"):
        trials.poll()


def test_a_job_that_ran_out_of_memory_gets_more_and_a_grown_network_as_much_more(tmp_path: Path, stage: Stage) -> None:
    stage.broker.site = stage.site.model_copy(update={"memory_style": "mem"})
    trials = Trials(stage, memory_gb=2.0)
    assert trials.options()["mem"] == "2048M"
    trials.begin("t0")
    trials.ends("t0", "OUT_OF_MEMORY")
    assert trials.options()["mem"] == "3072M"
    trials.begin("t0")
    for epoch, size in ((1, 10.0), (2, 20.0)):
        trials.epoch("t0", epoch, parameters=size)
    trials.ends("t0", "OUT_OF_MEMORY")
    assert trials.options()["mem"] == "6144M"
    stage.broker = stage.driver()
    stage.broker.site = stage.site.model_copy(update={"memory_style": "mem"})
    assert json.loads((trials.folder("t0").path / "request.json").read_text())["memory_gb"] == 6.0
    assert Trials(stage, memory_gb=2.0).options()["mem"] == "6144M"


@pytest.mark.parametrize(("exclusive", "memory"), [("shared", "none"), ("job", "none")])
def test_where_memory_comes_with_cores_there_are_more_cores_or_it_is_said(stage: Stage, exclusive: str, memory: str) -> None:
    stage.broker.site = stage.site.model_copy(update={"memory_style": memory, "exclusive": exclusive})
    trials = Trials(stage, cpus=4)
    trials.begin("t0")
    trials.ends("t0", "OUT_OF_MEMORY")
    if exclusive == "shared":
        assert trials.options()["cpus-per-task"] == "6" and trials.state() == "running"
    else:
        assert trials.state() == "failed" and "out of memory on 1 whole nodes" in trials.error()


def test_more_memory_than_any_node_has_fails_this_trial_and_says_what_it_asked_for(stage: Stage) -> None:
    stage.broker.site = stage.site.model_copy(update={"memory_style": "mem"})
    trials = Trials(stage, 2, memory_gb=60.0)
    for name in trials.names:
        trials.begin(name)
        stage.runs(name)
    stage.set("refuse", "mem=92160M\nsbatch: error: Memory specification can not be satisfied")
    trials.ends("t0", "OUT_OF_MEMORY")
    trials.poll()
    assert trials.state() == "failed" and "--mem=92160M" in trials.error() and "can not be satisfied" in trials.error()
    assert trials.state("t1") == "running"


def test_jobs_that_slurm_never_takes_stop_the_campaign(stage: Stage) -> None:
    stage.set("refuse", "time=5\nsbatch: error: Invalid account or account/partition combination specified")
    with pytest.raises(JobsKeepDying, match="Invalid account"):
        Trials(stage, 3)


def test_epochs_that_grow_longer_get_more_time_until_the_site_has_no_more(stage: Stage) -> None:
    trials = Trials(stage)
    trials.begin("t0")
    trials.epoch("t0", 1, seconds=100.0)
    trials.ends("t0", "PREEMPTED")
    assert trials.options()["time"] == "5"
    trials.begin("t0")
    trials.epoch("t0", 1, seconds=240.0)  # from one checkpoint to the next: two of these
    trials.ends("t0", "TIMEOUT")
    assert trials.options()["time"] == "20"
    trials.begin("t0")
    trials.epoch("t0", 1, seconds=2500.0)
    trials.ends("t0", "TIMEOUT")
    assert trials.state() == "failed" and "may run for 100 min at most" in trials.error() and "took 2500 s" in trials.error()


def test_a_first_epoch_that_does_not_end_in_time_gets_more_time(stage: Stage) -> None:
    trials = Trials(stage)
    for time in ("5", "12", "26", "54", "100"):
        assert trials.options()["time"] == time and trials.state() in ("waiting", "running")
        trials.begin("t0")
        trials.ends("t0", "TIMEOUT")
    assert trials.state() == "failed" and "the first one did not end in time" in trials.error() and "100 min" in trials.error()


@pytest.mark.parametrize(
    ("end", "most", "state"),
    [("FAILED", 3, "failed"), *((end, 10, "interrupted") for end in ("PREEMPTED", "CANCELLED", "NODE_FAIL"))],
)
def test_a_trial_that_is_never_brought_on_is_given_up_for_now_where_it_is_not_to_blame(
    stage: Stage, end: str, most: int, state: str
) -> None:
    trials = Trials(stage)
    for _ in range(most - 1):
        trials.begin("t0")
        trials.ends("t0", end)
        assert trials.state() == "running"
    trials.begin("t0")
    trials.ends("t0", end, reason="Why")
    assert trials.state() == state
    assert f"ended as {end}: Why" in trials.error() and f"{most} jobs in a row" in trials.error()


def test_a_trial_that_comes_further_is_never_given_up(stage: Stage) -> None:
    trials = Trials(stage)
    for epoch in range(1, 9):
        trials.begin("t0", epoch)
        trials.ends("t0", "FAILED")
        assert trials.state() == "running"


def test_an_older_driver_ends_and_leaves_the_jobs_to_the_newer_one(stage: Stage) -> None:
    trials = Trials(stage)
    attempts.claim(stage.broker.folder, (1, 7))
    try:
        trials.poll()
        write_json(stage.broker.folder / attempts.NAME, {"token": [2, 3]})
        with pytest.raises(DriverReplaced, match="another driver has taken over"):
            trials.poll()
    finally:
        attempts.release(stage.broker.folder)
    trials.supervisor.release("t0")
    assert not trials.folder("t0").stop.exists() and not stage.client.cancelled


def test_a_trial_cancelled_before_it_got_a_job_gets_none(stage: Stage) -> None:
    stage.set("room", "0")
    trials = Trials(stage)
    trials.folder("t0").cancelled.touch()
    trials.poll()
    stage.unset("room")
    trials.poll(2)
    assert trials.state() == "failed" and trials.error() == "cancelled by its user" and not stage.taken()


def test_a_trial_that_is_over_is_fenced_off(stage: Stage) -> None:
    """An attempt on a node that Slurm has lost may still run."""
    trials = Trials(stage)
    trials.folder("t0").cancelled.touch()
    trials.begin("t0")
    trials.ends("t0", "CANCELLED")
    assert trials.state() == "failed"
    for token in ((1, 0), (1, 4)):
        with pytest.raises(attempts.Superseded):
            attempts.claim(trials.folder("t0").path, token)
    attempts.claim(trials.folder("t0").path, (2, 0))
    attempts.release(trials.folder("t0").path)


def test_a_job_that_finishes_is_not_cancelled(stage: Stage) -> None:
    trials = Trials(stage)
    trials.begin("t0")
    trials.event("t0", "status", 9, status="finished")
    stage.runs("t0")
    trials.supervisor.release("t0")
    trials.poll(2)
    assert not stage.client.cancelled and not trials.folder("t0").stop.exists()


def test_a_requeued_job_of_a_trial_that_has_ended_does_nothing(tmp_path: Path) -> None:
    trial = TrialFolder(tmp_path / "t0")
    for status in ("started", "finished"):
        append_event(trial.events, {"type": "status", "epoch": 3, "status": status})
    assert TrialJob({"folder": str(trial.path)})(1) == "finished"
    assert len(read_events(trial.events)) == 2 and attempts.newest(trial.path) is None
