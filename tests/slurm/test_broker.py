"""The broker, before a Slurm that refuses, forgets and flaps: nothing is handed in twice, nothing is lost, nothing is left."""

import pytest

from coppice.slurm.broker.work import Work
from coppice.slurm.client import Job, SlurmError
from tests.support.slurm.stand_ins import Stage

TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"


def tasks(stage: Stage) -> list[int]:
    return [int(line.split()[0]) for line in stage.taken()]


def test_jobs_beyond_the_limit_of_their_user_are_handed_in_later(stage: Stage) -> None:
    stage.set("room", "3")
    keys = stage.add(7)
    stage.poll(3)
    assert sum(tasks(stage)) == 3 and "AssocMaxSubmitJobLimit" in stage.broker.problem
    for round_ in range(8):
        for key in keys:
            if not stage.broker.waits(key):
                stage.runs(key)
        stage.set("room", "1" if round_ < 3 else "9")
        stage.poll()
    assert sum(tasks(stage)) == 7 and not stage.broker.problem
    assert not any(stage.broker.tracked(key).over for key in keys)
    jobs = [stage.broker.tracked(key).attempt.job for key in keys]  # type: ignore[union-attr]
    assert len(set(jobs)) == 7 and not stage.client.cancelled


def test_a_full_queue_is_not_tried_again_and_again(stage: Stage) -> None:
    """Each try leaves files behind."""
    stage.set("room", "2")
    stage.add(4)
    stage.poll()
    jobs = stage.state / "jobs"
    stage.poll()
    for key in ("w0", "w1"):
        stage.runs(key)
    stage.poll()
    before = len(list(jobs.iterdir()))
    for _ in range(5):
        stage.at += 31.0
        stage.broker.poll()
    assert len(list(jobs.iterdir())) == before and tasks(stage) == [2]
    stage.set("room", "2")
    stage.runs("w0", "COMPLETED")
    stage.at += 31.0
    stage.broker.poll()  # one has ended: there may be room
    assert sum(tasks(stage)) > 2


def test_a_job_that_may_not_be_cancelled_does_not_keep_others_from_being_handed_in(stage: Stage) -> None:
    stage.client.jobs["9"] = Job("9", "ours", "RUNNING")
    stage.client.may_not_cancel = True
    stage.add(1)
    stage.poll()
    assert tasks(stage) == [1] and "permission denied" in stage.broker.problem


def test_arrays_that_are_too_large_are_cut(stage: Stage) -> None:
    stage.set("array", "4")
    stage.add(11)
    stage.poll()
    assert tasks(stage) == [2] * 5 + [1] and not stage.broker.problem


def test_what_is_refused_for_good_is_over_with_what_slurm_said(stage: Stage) -> None:
    stage.set("refuse", "--mem=9\nsbatch: error: Memory specification can not be satisfied")
    stage.broker.add(Work("large", print, {"time": "5", "mem": "9"}))
    keys = stage.add(2)
    stage.poll()
    large = stage.broker.tracked("large")
    assert large.over and large.job is not None and large.job.state == "REFUSED" and "can not be satisfied" in large.job.reason
    assert tasks(stage) == [2] and not any(stage.broker.tracked(key).over for key in keys)


def test_work_with_nowhere_to_run_avoids_no_nodes(stage: Stage) -> None:
    stage.set("refuse", "exclude=\nsbatch: error: Requested node configuration is not available")
    stage.add(1, exclude="node1,node2")
    stage.poll()
    assert not stage.taken() and not stage.broker.tracked("w0").over
    stage.poll()
    assert tasks(stage) == [1] and not stage.broker.tracked("w0").over


def test_a_job_whose_handing_in_timed_out_is_not_run_twice(stage: Stage) -> None:
    """The controller has taken it, but sbatch does not know."""
    stage.add(1)
    stage.set("lost", TIMED_OUT)
    stage.poll()
    assert stage.taken() == ["1 100 "] and "timed out" in stage.broker.problem and stage.broker.waits("w0")
    stage.client.jobs["100"] = Job("100", "ours", "PENDING")
    stage.client.jobs["7"] = Job("7", "another", "RUNNING")
    stage.unset("lost")
    stage.poll()
    assert stage.client.cancelled == ["100"]
    assert stage.broker.tracked("w0").attempt.job == "101"  # type: ignore[union-attr]


def test_a_new_driver_keeps_jobs_that_are_written_down_and_cancels_the_others(stage: Stage) -> None:
    stage.add(2)
    stage.poll()
    for key in ("w0", "w1"):
        stage.runs(key)
    stage.client.jobs["555"] = Job("555", "ours", "RUNNING")
    stage.client.away = "Unable to contact slurm controller"
    stage.broker = stage.driver()
    stage.add(3)
    stage.poll()
    assert stage.broker.problem and len(stage.taken()) == 1
    stage.client.away = ""
    stage.poll()
    assert stage.client.cancelled == ["555"] and tasks(stage) == [2, 1]


def test_a_queue_that_flaps_ends_nothing(stage: Stage) -> None:
    stage.add(1)
    stage.poll()
    job = stage.runs("w0")
    stage.poll()
    for _ in range(4):
        found = stage.client.jobs.pop(job)
        stage.poll(2)
        assert not stage.broker.tracked("w0").over
        stage.client.jobs[job] = found
        stage.poll()
    assert len(stage.taken()) == 1 and not stage.client.cancelled


def test_a_job_that_comes_back_after_it_was_given_up_is_cancelled(stage: Stage) -> None:
    stage.add(1)
    stage.poll()
    job = stage.runs("w0")
    stage.poll()
    found = stage.client.jobs.pop(job)
    stage.client.accounts[job] = Job(job, "", "RUNNING")  # what the accounts say of a job that the controller has lost
    stage.poll(3)
    tracked = stage.broker.tracked("w0")
    assert tracked.over and tracked.job is not None and tracked.job.state == "UNKNOWN"
    stage.broker.resubmit("w0")
    stage.client.jobs[job] = found
    stage.poll()
    assert stage.client.cancelled == [job] and len(stage.taken()) == 2


@pytest.mark.parametrize("accounts", ["known", "away", "none"])
def test_a_job_that_the_controller_forgot(stage: Stage, accounts: str) -> None:
    stage.add(1)
    stage.poll()
    job = stage.broker.tracked("w0").attempt.job  # type: ignore[union-attr]
    stage.client.accounts[job] = Job(job, "", "OUT_OF_MEMORY")
    stage.client.without_accounts = accounts == "none"
    stage.client.accounts_away = accounts == "away"
    stage.poll(3)
    tracked = stage.broker.tracked("w0")
    assert tracked.over and tracked.job is not None
    assert tracked.job.state == ("OUT_OF_MEMORY" if accounts == "known" else "UNKNOWN")


def test_a_job_that_slurm_holds_because_it_cannot_start_it_is_replaced(stage: Stage) -> None:
    stage.add(1)
    stage.poll()
    job = stage.runs("w0", "PENDING", reason="launch_failed_requeued_held", nodes="")
    stage.poll()
    tracked = stage.broker.tracked("w0")
    assert tracked.over and tracked.job is not None and tracked.job.state == "LAUNCH_FAILED"
    stage.broker.resubmit("w0")
    stage.poll()
    assert stage.client.cancelled == [job] and len(stage.taken()) == 2


def test_commands_that_never_worked_are_an_error_and_later_ones_are_waited_for(stage: Stage) -> None:
    stage.client.refuses = "squeue: error: Invalid user"
    with pytest.raises(SlurmError, match="Invalid user"):
        stage.poll()
    stage.client.refuses = ""
    stage.add(1)
    stage.poll()
    stage.client.refuses = "squeue: fatal: Could not establish a configuration source"
    stage.poll(2)
    assert "configuration source" in stage.broker.problem and not stage.broker.tracked("w0").over


def test_what_is_dropped_while_slurm_is_away_is_cancelled_when_it_is_back(stage: Stage) -> None:
    stage.add(2)
    stage.poll()
    jobs = [stage.runs(key) for key in ("w0", "w1")]
    stage.client.away = "Socket timed out"
    stage.broker.drop("w0")
    stage.poll()
    assert not stage.client.cancelled
    stage.client.away = ""
    stage.poll(2)
    assert stage.client.cancelled == [jobs[0], jobs[0]]  # until it has ended
    stage.client.jobs[jobs[0]] = Job(jobs[0], "ours", "CANCELLED")
    stage.poll(2)
    assert len(stage.client.cancelled) == 2


def test_nothing_is_left_in_the_end(stage: Stage) -> None:
    stage.add(2)
    stage.poll()
    for key in ("w0", "w1"):
        stage.runs(key)
    seconds: list[float] = []

    def sleep(pause: float) -> None:
        seconds.append(pause)
        ended = {0: "100_0", 3: "100_1"}.get(len(seconds) - 1)
        if ended:
            stage.client.jobs[ended] = Job(ended, "ours", "COMPLETED")

    assert stage.broker.end(sleep=sleep) == []
    assert not stage.client.cancelled and len(seconds) == 4
    stage.runs("w1")
    stage.client.jobs["100_1"] = Job("100_1", "ours", "RUNNING")
    assert stage.broker.end(sleep=lambda pause: None) == ["100_1"] and set(stage.client.cancelled) == {"100_1"}
    stage.client.away = "Socket timed out"
    assert stage.broker.end(sleep=lambda pause: None) == ["?"]


def test_a_job_that_a_copied_journal_knows_is_somebody_elses(stage: Stage) -> None:
    stage.add(1)
    stage.poll()
    job = stage.runs("w0")
    stage.client.jobs[job] = Job(job, "the original's", "RUNNING")
    copy = stage.driver()
    copy.add(Work("w0", print, {"time": "5"}))
    copy.drop("w0")
    copy.add(Work("w0", print, {"time": "5"}))
    copy.poll()
    assert copy.tracked("w0").over and stage.client.cancelled == []
