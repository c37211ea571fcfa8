"""What becomes of the trials of a campaign when their jobs end: on with the next job, with a larger one, or no further."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coppice.orchestrator.folder import attempts
from coppice.orchestrator.folder.events import BY_ITS_USER
from coppice.orchestrator.folder.files import read_json
from coppice.orchestrator.folder.surroundings import check_room
from coppice.orchestrator.placement.ended_jobs import BLAMELESS, DEAD_ON_ARRIVAL, NODE_STATES, JobsKeepDying, last_lines
from coppice.orchestrator.placement.jobs.history import JobHistory, progress
from coppice.orchestrator.placement.jobs.next_request import LastJob, NeverFits, next_request, raised
from coppice.orchestrator.placement.jobs.trial_job import TrialJob
from coppice.orchestrator.placement.supervisor import (
    BY_ITSELF,
    WITHOUT_PROGRESS,
    BaseSupervisor,
    DriverReplaced,
    SupervisedTrial,
)
from coppice.slurm.broker.bad_nodes import BadNodes
from coppice.slurm.broker.broker import Broker
from coppice.slurm.broker.work import REFUSED, TrackedWork, Work
from coppice.slurm.client import Job
from coppice.slurm.request import Request, options
from coppice.slurm.site import SiteError

BLAMELESS_WITHOUT_PROGRESS = 10
"""How many jobs in a row a trial may lose to ends that say nothing about it, without a new checkpoint."""
LINES = 15
"""How much of a job's log an error shows."""


@dataclass
class JobSupervisor(BaseSupervisor):
    """The trials of a campaign that run as jobs.

    Attributes:
        broker: of their jobs.
        request: what each job gets at first.
        keep: whether jobs go on when this driver ends.
    """

    broker: Broker
    request: Request
    keep: bool = False
    _histories: dict[str, JobHistory] = field(default_factory=dict, init=False)
    _dead_on: set[str] = field(default_factory=set, init=False)
    _bad: BadNodes = field(default_factory=BadNodes, init=False)

    def _begin(self, trial: SupervisedTrial) -> None:
        """Hand in the trial's job; one of an earlier driver that still runs it is kept."""
        training = read_json(trial.folder.params)["spec"]["training"]
        request = raised(trial.folder.path, self.request)
        self._histories[trial.key] = JobHistory(request, int(training.get("checkpoint_every", 1)))
        trial.reached = progress(trial, trial.events())
        self.broker.add(Work(trial.key, TrialJob(trial.task), self._options(request)))

    def release(self, key: str) -> None:
        """Let go of a trial: its job ends. Where the driver itself must end, jobs go on without it."""
        trial = self._trials.pop(key, None)
        if trial is None or self.leaving() or self.keep:
            return
        by_itself = trial.state() in BY_ITSELF
        if not trial.over and not by_itself:
            trial.ask_to_stop()
        self.broker.drop(key, cancel=not by_itself)

    def poll(self) -> None:
        """Look after all jobs; cheap when it was done just now.

        Raises:
            JobsKeepDying: one job after the other ended before its trial began, or Slurm takes none.
            DriverReplaced: another driver has taken over; the jobs are its own from here on.
        """
        if not self.broker.due:
            return
        try:
            attempts.check(self.broker.folder)
        except attempts.Superseded as error:
            self.keep = True
            what = f"another driver has taken over this campaign, so this one ends; its jobs go on. ({error})"
            raise DriverReplaced(what) from None
        self.broker.poll()
        under_way = [(trial, self.broker.tracked(trial.key)) for trial in self._under_way()]
        with_ended_job = [(trial, tracked) for trial, tracked in under_way if tracked.over]
        self._find_the_fault(with_ended_job)
        for trial, tracked in with_ended_job:
            self._job_ended(trial, tracked)
        for trial, _ in under_way:
            if not trial.over and trial.cancelled and self.broker.waits(trial.key):
                self.broker.drop(trial.key)
                self.fail(trial, BY_ITS_USER)

    def _find_the_fault(self, with_ended_job: Sequence[tuple[SupervisedTrial, TrackedWork]]) -> None:
        """Whose fault it was that jobs ended: a node's, or everybody's. First of all, since no job goes to such a node again."""
        for trial, tracked in with_ended_job:
            if self._began(trial, tracked):
                self._histories[trial.key].dead = 0
                self._dead_on.clear()
        for trial, tracked in with_ended_job:
            job = _job_of(tracked)
            died = job.state not in (*BLAMELESS, REFUSED) and not self._began(trial, tracked)
            nodes = self._bad.add(job.nodes, self.broker.clock()) if died or job.state in NODE_STATES else []
            if not died:
                continue
            self._dead_on |= set(nodes)
            history = self._histories[trial.key]
            history.dead += 1
            if max(history.dead, len(self._dead_on)) >= DEAD_ON_ARRIVAL and not self._any_runs():
                log = last_lines(self.broker.folder, tracked, LINES)
                raise JobsKeepDying(
                    f"one job after the other ended before its trial began (on {', '.join(sorted(self._dead_on)) or 'no node'}), "
                    f"so no more are handed in. The last one, {job.id}, wrote:\n{log}"
                )

    def _job_ended(self, trial: SupervisedTrial, tracked: TrackedWork) -> None:
        if self._concluded(trial):
            return
        job = _job_of(tracked)
        if job.state == REFUSED:
            self._refused(trial, job.reason)
        else:
            self._go_on(trial, tracked)

    def _any_runs(self) -> bool:
        """Whether some trial has begun in its newest job."""
        newest = ((trial, self.broker.tracked(trial.key)) for trial in self._under_way())
        return any(not tracked.over and self._began(trial, tracked) for trial, tracked in newest)

    def _began(self, trial: SupervisedTrial, tracked: TrackedWork) -> bool:
        token = attempts.newest(trial.folder.path)
        return token is not None and tracked.attempt is not None and token[0] == tracked.attempt.number

    def _go_on(self, trial: SupervisedTrial, tracked: TrackedWork) -> None:
        job, events, history = _job_of(tracked), trial.events(), self._histories[trial.key]
        reached = progress(trial, events)
        trial.lost = 0 if reached != trial.reached else trial.lost + 1
        trial.reached = reached
        blameless = job.state in BLAMELESS or (trial.lost > 0 and trial.state() == "interrupted")
        if trial.lost:
            check_room(self.broker.folder)  # raises where that is why
        most = BLAMELESS_WITHOUT_PROGRESS if blameless else WITHOUT_PROGRESS
        try:
            last = LastJob(history.request, job.state, trial.lost)
            request = next_request(self.broker.site, trial.folder, last, events, history.checkpoint_every)
            if request != history.request:  # with more than it had it starts anew
                history.request, trial.lost = request, 0
            if trial.lost >= most and blameless:
                return self.interrupt(trial, self._why(tracked, f"{trial.lost} jobs in a row ended without a new checkpoint"))
            if trial.lost >= most:
                raise NeverFits(f"{trial.lost} jobs in a row ended without a new checkpoint")
            self.broker.resubmit(trial.key, self._options(request))
        except (NeverFits, SiteError) as error:
            self.fail(trial, self._why(tracked, str(error)))

    def _refused(self, trial: SupervisedTrial, said: str) -> None:
        """Slurm does not take the job: the fault of this trial if it asks for more than others, else every trial's fate."""
        request = self._histories[trial.key].request
        if request == self.request:
            self.keep = True
            raise JobsKeepDying(f"Slurm does not take jobs of this campaign; those that it has taken go on. It says:\n  {said}")
        self.fail(trial, f"Slurm does not take its next job, which asks for {_in_one_line(self._options(request))}: {said}")

    def _why(self, tracked: TrackedWork, why: str) -> str:
        job = _job_of(tracked)
        end = f"{job.state}{': ' + job.reason if job.reason else ''}"
        last_job = f"the last one ({job.id} on {job.nodes or 'no node'}) ended as {end}"
        return f"{why}; {last_job}.\n{last_lines(self.broker.folder, tracked, LINES)}"

    def _shut_out(self, trial: SupervisedTrial) -> None:
        attempts.close(trial.folder.path)

    def _epoch(self, trial: SupervisedTrial) -> int:
        return max((e.get("epoch", 0) for e in trial.events()), default=0)

    def _options(self, request: Request) -> dict[str, str]:
        of_site = options(self.broker.site, request)
        avoided = self._bad.listed(self.broker.clock())
        return {**of_site, "exclude": avoided} if avoided else of_site


def _job_of(tracked: TrackedWork) -> Job:
    assert tracked.job is not None, "its job has ended, so it was seen"
    return tracked.job


def _in_one_line(given: Mapping[str, Any]) -> str:
    """Options of sbatch as one writes them."""
    return " ".join(f"--{name}={value}" if value else f"--{name}" for name, value in sorted(given.items()))
