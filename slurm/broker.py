"""One broker for all jobs of a campaign: hands them in, asks about all of them at once, and finds them again after a restart.

What a piece of work has achieved is not known here: whoever gave it says whether it is done, once its job has ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slurm.client import Client, Job, SlurmError, SlurmUnreachable
from slurm.journal import Attempt, Journal
from slurm.site import Site
from slurm.submission import executor, hand_in, parameters

FORGOTTEN_AFTER_S = 60.0
"""A job that Slurm does not know so long after it was handed in never existed, or is forgotten."""
MAY_RETURN = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED")
RETURNS_WITHIN_S = 10.0
"""Slurm requeues jobs that ended in such states by itself, where the site allows it, some seconds later and under the same id."""
SLOWEST = 10
"""While Slurm does not answer it is asked less often, down to one in this many times."""


@dataclass(frozen=True)
class Work:
    """Something to be run as a job.

    Attributes:
        key: unique name.
        call: made in the job, once in each of its tasks; gets the number of the attempt.
        options: of sbatch, see `slurm.request.options`.
    """

    key: str
    call: Callable[[int], Any]
    options: Mapping[str, str]


@dataclass
class Tracked:
    """A piece of work and its newest attempt.

    Attributes:
        job: as last seen; None before Slurm has been asked about it.
        seen_s: when it was last seen, by the broker's clock.
        since_s: since when it has been in its state.
        over: whether the attempt has ended and nobody has taken note yet.
    """

    work: Work
    attempt: Attempt | None = None
    job: Job | None = None
    seen_s: float = 0.0
    since_s: float = 0.0
    over: bool = False


@dataclass
class Broker:
    """Keeps jobs under way.

    Attributes:
        name: of all its jobs; tells them from others of the same user.
        folder: submitit's files.
        site: where they run.
        journal: what was handed in.
        parallel: how many jobs of an array may run at a time.
        client: Slurm's commands.
        clock: seconds.
    """

    name: str
    folder: Path
    site: Site
    journal: Journal
    parallel: int = 256
    client: Client = field(default_factory=Client)
    clock: Callable[[], float] = time.monotonic
    problem: str = ""
    _works: dict[str, Tracked] = field(default_factory=dict)
    _waiting: list[str] = field(default_factory=list)
    _next_poll: float = 0.0
    _slowness: int = 1
    _accounts: bool = True

    def add(self, work: Work) -> None:
        """Take on work: the job that an earlier driver handed in for it, else a new one, handed in by the next poll."""
        tracked = self._works[work.key] = Tracked(work, seen_s=self.clock())
        earlier = self.journal.attempts().get(work.key, [])
        tracked.attempt = earlier[-1] if earlier else None
        if tracked.attempt is None or not tracked.attempt.job:
            self._waiting.append(work.key)

    def again(self, key: str, options: Mapping[str, str] | None = None) -> None:
        """Hand in another job for work whose attempt is over, with other options where they are given."""
        tracked = self._works[key]
        if options is not None:
            tracked.work = Work(key, tracked.work.call, options)
        tracked.over, tracked.job = False, None
        self._waiting.append(key)

    def drop(self, key: str) -> None:
        """Cancel the work's job and forget it."""
        tracked = self._works.pop(key, None)
        self._waiting = [k for k in self._waiting if k != key]
        if tracked and tracked.attempt and tracked.attempt.job and not tracked.over:
            self.client.cancel([tracked.attempt.job])

    def tracked(self, key: str) -> Tracked:
        """What is known of a piece of work."""
        return self._works[key]

    def attempts(self, key: str) -> int:
        """How many jobs it has had."""
        found = self._works[key].attempt
        return found.number if found else 0

    def poll(self) -> bool:
        """Hand in what waits and ask about all jobs, unless that was done just now; whether anything was asked."""
        if self.clock() < self._next_poll:
            return False
        try:
            self._hand_in()
            self._look()
            self._slowness, self.problem = 1, ""
        except SlurmUnreachable as error:
            self._slowness, self.problem = min(SLOWEST, self._slowness * 2), str(error)
        self._next_poll = self.clock() + self.site.limits.poll_every_s * self._slowness
        return True

    def _hand_in(self) -> None:
        most = self.site.limits.submitted
        room = None if most is None else most - sum(1 for t in self._works.values() if t.attempt and t.attempt.job and not t.over)
        groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
        for key in self._waiting if room is None else self._waiting[: max(room, 0)]:
            groups.setdefault(tuple(sorted(self._works[key].work.options.items())), []).append(key)
        for options, keys in groups.items():
            for start in range(0, len(keys), self.site.limits.array_size):
                self._hand_in_array(dict(options), keys[start : start + self.site.limits.array_size])

    def _hand_in_array(self, options: dict[str, str], keys: list[str]) -> None:
        numbers = [self.attempts(key) + 1 for key in keys]
        calls = [_Call(self._works[key].work.call, number) for key, number in zip(keys, numbers, strict=True)]
        self.journal.add([Attempt(key, number, "", time.time()) for key, number in zip(keys, numbers, strict=True)])
        jobs = hand_in(executor(self.folder, parameters(self.site, options, self.name, self.parallel)), calls)
        attempts = [Attempt(key, number, job, time.time()) for key, number, job in zip(keys, numbers, jobs, strict=True)]
        self.journal.add(attempts)
        for attempt in attempts:
            tracked = self._works[attempt.key]
            tracked.attempt, tracked.job, tracked.seen_s = attempt, None, self.clock()
        self._waiting = [k for k in self._waiting if k not in set(keys)]

    def _look(self) -> None:
        live = self.client.live()
        gone = []
        for tracked in self._under_way():
            assert tracked.attempt is not None
            job = live.get(tracked.attempt.job)
            if job is not None:
                since = tracked.since_s if tracked.job and tracked.job.state == job.state else self.clock()
                tracked.job, tracked.seen_s, tracked.since_s = job, self.clock(), since
                tracked.over = job.ended and (job.state not in MAY_RETURN or self.clock() - since > RETURNS_WITHIN_S)
            else:
                gone.append(tracked)
        self._account_for(gone)

    def _under_way(self) -> list[Tracked]:
        waiting = set(self._waiting)
        return [t for t in self._works.values() if t.attempt and t.attempt.job and not t.over and t.work.key not in waiting]

    def _account_for(self, gone: list[Tracked]) -> None:
        """Jobs that the controller has forgotten: the accounts tell how they ended, where there are accounts."""
        known: dict[str, Job] = {}
        if gone and self._accounts:
            try:
                known = self.client.ended(t.attempt.job for t in gone if t.attempt)
            except SlurmUnreachable:
                return
            except SlurmError:
                self._accounts = False
        for tracked in gone:
            assert tracked.attempt is not None
            job = known.get(tracked.attempt.job)
            if job is not None and job.ended:
                tracked.job, tracked.over = job, True
            elif self.clock() - tracked.seen_s > FORGOTTEN_AFTER_S:
                tracked.job, tracked.over = Job(tracked.attempt.job, "", "UNKNOWN", "Slurm does not know it any more"), True

    def orphans(self) -> list[str]:
        """Live jobs of this name that are nobody's newest attempt: an earlier driver died before it wrote them down."""
        ours = {attempts[-1].job for attempts in self.journal.attempts().values()}
        return sorted(j.id for j in self.client.live().values() if j.name == self.name and not j.ended and j.id not in ours)


@dataclass(frozen=True)
class _Call:
    """What submitit pickles: a call with the number of its attempt."""

    call: Callable[[int], Any]
    number: int

    def __call__(self) -> Any:
        return self.call(self.number)
