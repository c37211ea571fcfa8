"""One broker for all jobs of a campaign: hands them in, asks about all of them at once, and finds them again after a restart.

What a piece of work has achieved is not known here: whoever gave it says whether it is done, once its job has ended.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from coppice.slurm.broker.journal import Attempt, Journal
from coppice.slurm.broker.submitter import Submitter
from coppice.slurm.broker.work import LAUNCH_FAILED, REFUSED, UNKNOWN, Call, TrackedWork, Work
from coppice.slurm.client import Client, Job, SlurmError, SlurmUnreachable
from coppice.slurm.site import Site
from coppice.slurm.submission import executor, parameters, submit_all

FORGOTTEN_AFTER_S, FORGOTTEN_AFTER = 60.0, 3
"""A job that Slurm has not known for so long, so many times in a row, never existed or is forgotten."""
MAY_RETURN = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED")
RETURNS_WITHIN_S = 10.0
"""Slurm requeues jobs that ended in such states by itself, where the site allows it, some seconds later and under the same id."""
HELD = ("launch failed requeued held", "jobholdmaxrequeue")
"""Reasons of jobs that Slurm could not start, several times, and holds until somebody looks at them."""
ENDS_WITHIN_S = 10.0
"""How long a job whose work is done may take to end."""
SLOWEST = 10
"""While Slurm does not answer it is asked less often, down to one in this many times."""


@dataclass
class Broker:
    """Keeps jobs under way.

    Attributes:
        name: of all its jobs; tells them from others of the same user. Live jobs of this name that it has not handed in itself or
            found in its journal come from a driver that died before it wrote them down, and are cancelled. Jobs of another name
            that its journal knows are somebody else's: the journal was copied.
        folder: submitit's files.
        site: where they run.
        journal: what was handed in.
        parallel: how many jobs of an array may run at a time.
        client: Slurm's commands.
        clock: seconds.
        problem: why Slurm takes no jobs or does not answer at the moment; empty when all is well.
    """

    name: str
    folder: Path
    site: Site
    journal: Journal
    parallel: int = 256
    client: Client = field(default_factory=Client)
    clock: Callable[[], float] = time.monotonic
    problem: str = ""
    _works: dict[str, TrackedWork] = field(default_factory=dict)
    _waiting: list[str] = field(default_factory=list)
    _next_poll: float = 0.0
    _slowness: int = 1
    _accounts: bool = True
    _answered: bool = False
    _unwanted: set[str] = field(default_factory=set)
    _full: tuple[int, float] = (sys.maxsize, 0.0)

    def __post_init__(self) -> None:
        self._submitter, self._remark = Submitter(self.site.limits.array_size), ""
        self._newest = {key: attempts[-1] for key, attempts in self.journal.attempts().items()}
        self._ours = {attempt.job for attempt in self._newest.values()}

    def add(self, work: Work) -> None:
        """Take on work: the job that an earlier driver handed in for it, else a new one, handed in by the next poll."""
        tracked = self._works[work.key] = TrackedWork(work, seen_s=self.clock())
        tracked.attempt = self._newest.get(work.key)
        if tracked.attempt is None or not tracked.attempt.job:
            self._waiting.append(work.key)

    def resubmit(self, key: str, options: Mapping[str, str] | None = None) -> None:
        """Hand in another job for work whose attempt is over, with other options where they are given."""
        tracked = self._works[key]
        if options is not None:
            tracked.work = Work(key, tracked.work.function, options)
        tracked.over, tracked.job = False, None
        self._waiting.append(key)

    def drop(self, key: str, cancel: bool = True) -> None:
        """Forget the work. If its job still runs or waits at the next poll, it is cancelled, unless it is about to end."""
        tracked = self._works.pop(key, None)
        self._waiting = [k for k in self._waiting if k != key]
        if cancel and tracked and tracked.attempt and tracked.attempt.job and not tracked.over:
            self._unwanted.add(tracked.attempt.job)

    def tracked(self, key: str) -> TrackedWork:
        """What is known of a piece of work."""
        return self._works[key]

    def waits(self, key: str) -> bool:
        """Whether the work has no job now, and will get one when Slurm takes it."""
        return key in self._waiting

    def attempts(self, key: str) -> int:
        """How many jobs it has had."""
        attempt = self._works[key].attempt
        return attempt.number if attempt else 0

    @property
    def due(self) -> bool:
        """Whether `poll` would do something."""
        return self.clock() >= self._next_poll

    def poll(self) -> bool:
        """Ask about all jobs and hand in what waits, unless that was done just now; whether anything was asked.

        Raises:
            SlurmError: Slurm's commands do not work here: the first question of all was refused.
        """
        if not self.due:
            return False
        self._remark = ""
        try:
            self._look()
            self._submit_waiting()
            self._slowness, self.problem = 1, self._submitter.problem or self._remark
        except SlurmError as error:
            if not self._answered and not isinstance(error, SlurmUnreachable):
                raise
            self._slowness, self.problem = min(SLOWEST, self._slowness * 2), str(error)
        self._next_poll = self.clock() + self.site.limits.poll_every_s * self._slowness
        return True

    def _submit_waiting(self) -> None:
        most, under_way = self.site.limits.submitted, len(self._under_way())
        many, since = self._full
        if under_way >= many and self.clock() - since < SLOWEST * self.site.limits.poll_every_s:
            return
        keys = self._waiting if most is None else self._waiting[: max(most - under_way, 0)]
        waiting = [(key, self._works[key].work.options) for key in keys]
        for refused, error in self._submitter.submit_all(waiting, self._submit_array, under_way > 0):
            self._refused(refused, error)
        self._full = (len(self._under_way()), self.clock()) if self._submitter.problem else (sys.maxsize, 0.0)

    def _submit_array(self, options: Mapping[str, str], keys: list[str]) -> None:
        numbers = [self.attempts(key) + 1 for key in keys]
        calls = [Call(self._works[key].work.function, number) for key, number in zip(keys, numbers, strict=True)]
        self.journal.add([Attempt(key, number, "", time.time()) for key, number in zip(keys, numbers, strict=True)])
        jobs = submit_all(executor(self.folder, parameters(self.site, options, self.name, self.parallel)), calls)
        attempts = [Attempt(key, number, job, time.time()) for key, number, job in zip(keys, numbers, jobs, strict=True)]
        self.journal.add(attempts)
        self._ours |= set(jobs)
        for attempt in attempts:
            tracked, self._newest[attempt.key] = self._works[attempt.key], attempt
            tracked.attempt, tracked.job, tracked.seen_s, tracked.missed = attempt, None, self.clock(), 0
        self._waiting = [k for k in self._waiting if k not in set(keys)]

    def _refused(self, keys: list[str], error: SlurmError) -> None:
        """Work that avoids nodes may have nowhere to run: it avoids none the next time. Other work has had its chance."""
        for key in keys:
            tracked = self._works[key]
            if "exclude" in tracked.work.options:
                options = {name: value for name, value in tracked.work.options.items() if name != "exclude"}
                tracked.work = Work(key, tracked.work.function, options)
            else:
                tracked.job, tracked.over = Job("", "", REFUSED, str(error)), True
                self._waiting.remove(key)

    def _look(self) -> None:
        live = self.client.live()
        self._answered = True
        self._cancel(live)
        gone = []
        for tracked in self._under_way():
            assert tracked.attempt is not None
            job = live.get(tracked.attempt.job)
            if job is None:
                gone.append(tracked)
                continue
            if job.name != self.name:
                tracked.job, tracked.over = Job(job.id, job.name, UNKNOWN, "it is a job of another campaign"), True
                continue
            since = tracked.since_s if tracked.job and tracked.job.state == job.state else self.clock()
            tracked.job, tracked.seen_s, tracked.since_s, tracked.missed = job, self.clock(), since, 0
            tracked.over = job.ended and (job.state not in MAY_RETURN or self.clock() - since > RETURNS_WITHIN_S)
            if job.state == "PENDING" and job.reason.lower().replace("_", " ") in HELD:
                tracked.job, tracked.over = replace(job, state=LAUNCH_FAILED), True
                self._unwanted.add(job.id)
        self._account_for(gone)

    def _cancel(self, live: Mapping[str, Job]) -> None:
        """What nobody wants any more, and what a dead driver has left; asked for again until it has ended."""
        self._unwanted -= {job.id for job in live.values() if job.ended or job.name != self.name}
        strays = {job.id for job in live.values() if job.name == self.name and not job.ended and job.id not in self._ours}
        try:
            self.client.cancel(strays | (self._unwanted & live.keys()), patience_s=0.0)
        except SlurmUnreachable:
            raise
        except SlurmError as error:  # no reason to leave the others alone
            self._remark = str(error)

    def _under_way(self) -> list[TrackedWork]:
        waiting = set(self._waiting)
        return [t for t in self._works.values() if t.attempt and t.attempt.job and not t.over and t.work.key not in waiting]

    def _account_for(self, gone: Iterable[TrackedWork]) -> None:
        """Jobs that the controller does not know: the accounts tell how they ended, where there are accounts."""
        known: dict[str, Job] = {}
        missing = [(t, t.attempt.job) for t in gone if t.attempt]
        if missing and self._accounts:
            try:
                known = self.client.ended(job for _, job in missing)
            except SlurmUnreachable:
                pass  # they may answer the next time; until then the jobs count as unknown
            except SlurmError:
                self._accounts = False
        for tracked, name in missing:
            job = known.get(name)
            tracked.missed += 1
            if job is not None and job.ended:
                tracked.job, tracked.over = job, True
            elif self.clock() - tracked.seen_s > FORGOTTEN_AFTER_S and tracked.missed >= FORGOTTEN_AFTER:
                tracked.job, tracked.over = Job(name, "", UNKNOWN, "Slurm does not know it any more"), True
                self._unwanted.add(name)

    def end(self, patience_s: float = 30.0, sleep: Callable[[float], None] = time.sleep) -> list[str]:
        """See to it that no job of this name is left: they get some seconds to end by themselves, then they are cancelled.

        Args:
            patience_s: how long to wait for their end.
            sleep: waits.

        Returns:
            Those that are still there after all: Slurm does not answer, or they do not end.
        """
        waited, left = 0.0, ["?"]
        while left and waited <= patience_s:
            try:
                left = sorted(j.id for j in self.client.live().values() if j.name == self.name and not j.ended)
                if left and (waited >= ENDS_WITHIN_S or set(left) <= self._unwanted):
                    self.client.cancel(left, patience_s=0.0)
            except SlurmError as error:
                self.problem = str(error)
            if left:
                sleep(1.0)
                waited += 1.0
        return left
