"""What becomes of trials whose jobs end: goes on in another job, or not, and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coppice.orchestrator.folder import attempts as fence
from coppice.orchestrator.folder.events import FINAL, append_event, read_events, state_of
from coppice.orchestrator.folder.files import read_json
from coppice.orchestrator.folder.layout import STOP, TrialFolder
from coppice.orchestrator.placement.jobs.next_request import NeverFits, asked, next_request
from coppice.orchestrator.placement.jobs.trial_job import TrialJob
from coppice.orchestrator.placement.jobs.watched import Watched, last_lines, reached, told
from coppice.orchestrator.placement.supervisor import (
    BLAMELESS,
    BLAMELESS_WITHOUT_PROGRESS,
    BY_ITSELF,
    DEAD_ON_ARRIVAL,
    NODE_STATES,
    WITHOUT_PROGRESS,
    JobsDie,
    Replaced,
)
from coppice.slurm.broker.bad_nodes import BadNodes
from coppice.slurm.broker.broker import Broker
from coppice.slurm.broker.work import REFUSED, Tracked, Work
from coppice.slurm.request import Request, options
from coppice.slurm.site import SiteError


@dataclass
class Board:
    """The trials of a campaign that run as jobs.

    Attributes:
        broker: of their jobs.
        request: what each job gets at first.
        leaving: whether this driver must end before its campaign.
        keep: whether jobs go on when this driver ends.
    """

    broker: Broker
    request: Request
    leaving: Callable[[], bool] = lambda: False
    keep: bool = False
    _trials: dict[str, Watched] = field(default_factory=dict)
    _dead_on: set[str] = field(default_factory=set)
    _bad: BadNodes = field(default_factory=BadNodes)

    def add(self, task: dict[str, Any]) -> None:
        """Run a trial; a job of an earlier driver that still runs it is kept."""
        folder = Path(task["folder"])
        training = read_json(TrialFolder(folder).params)["spec"]["training"]
        watched = Watched(task, asked(folder, self.request), int(training.get("checkpoint_every", 1)))
        (folder / STOP).unlink(missing_ok=True)
        watched.reached = reached(folder, read_events(folder / "events.jsonl"))
        self._trials[folder.name] = watched
        if watched.cancelled:
            self._fail(watched, "cancelled by its user")
            return
        self.broker.add(Work(folder.name, TrialJob(task), self._options(watched)))

    def drop(self, key: str) -> None:
        """Nothing more of a trial is wanted: its job ends. Where the driver itself must end, jobs go on without it."""
        watched = self._trials.pop(key, None)
        if watched is None or self.leaving() or self.keep:
            return
        by_itself = state_of(read_events(watched.folder / "events.jsonl")) in BY_ITSELF
        if not watched.over and not by_itself:
            (watched.folder / STOP).touch()
        self.broker.drop(key, cancel=not by_itself)

    def over(self, key: str) -> bool:
        """Whether no job of the trial will write anything any more."""
        return self._trials[key].over

    def poll(self) -> None:
        """Look after all jobs; cheap when it was done just now.

        Raises:
            JobsDie: one job after the other ended before its trial began, or Slurm takes none.
            Replaced: another driver has taken over; the jobs are its own from here on.
        """
        if not self.broker.due:
            return
        try:
            fence.check(self.broker.folder)
        except fence.Superseded as error:
            self.keep = True
            raise Replaced(f"another driver has taken over this campaign, so this one ends; its jobs go on. ({error})") from None
        self.broker.poll()
        under_way = [(w, self.broker.tracked(key)) for key, w in self._trials.items() if not w.over]
        ended = [(watched, tracked) for watched, tracked in under_way if tracked.over]
        self._judge(ended)
        for watched, tracked in ended:
            self._ended(watched, tracked)
        for watched, _ in under_way:
            if not watched.over and watched.cancelled and self.broker.waits(watched.folder.name):
                self.broker.drop(watched.folder.name)
                self._fail(watched, "cancelled by its user")

    def _judge(self, ended: Sequence[tuple[Watched, Tracked]]) -> None:
        """Whose fault it was that jobs ended: a node's, or everybody's. First of all, since no job goes to such a node again."""
        for watched, tracked in ended:
            if self._began(watched, tracked):
                watched.dead = 0
                self._dead_on.clear()
        for watched, tracked in ended:
            job = tracked.job
            assert job is not None
            died = job.state not in (*BLAMELESS, REFUSED) and not self._began(watched, tracked)
            nodes = self._bad.add(job.nodes, self.broker.clock()) if died or job.state in NODE_STATES else []
            if not died:
                continue
            self._dead_on |= set(nodes)
            watched.dead += 1
            if max(watched.dead, len(self._dead_on)) >= DEAD_ON_ARRIVAL and not self._any_runs():
                raise JobsDie(
                    f"one job after the other ended before its trial began (on {', '.join(sorted(self._dead_on)) or 'no node'}), "
                    f"so no more are handed in. The last one, {job.id}, wrote:\n{last_lines(self.broker.folder, tracked)}"
                )

    def _ended(self, watched: Watched, tracked: Tracked) -> None:
        job = tracked.job
        assert job is not None
        events = read_events(watched.folder / "events.jsonl")
        if state_of(events) in FINAL:
            watched.over = True
        elif watched.cancelled:
            self._fail(watched, "cancelled by its user")
        elif job.state == REFUSED:
            self._refused(watched, job.reason)
        else:
            self._go_on(watched, tracked, events)

    def _any_runs(self) -> bool:
        """Whether some trial has begun in its newest job."""
        found = ((w, self.broker.tracked(k)) for k, w in self._trials.items() if not w.over)
        return any(not t.over and self._began(w, t) for w, t in found)

    def _began(self, watched: Watched, tracked: Tracked) -> bool:
        token = fence.newest(watched.folder)
        return token is not None and tracked.attempt is not None and token[0] == tracked.attempt.number

    def _go_on(self, watched: Watched, tracked: Tracked, events: Sequence[Mapping[str, Any]]) -> None:
        job, folder = tracked.job, watched.folder
        assert job is not None
        now = reached(folder, events)
        watched.lost = 0 if now != watched.reached else watched.lost + 1
        watched.reached = now
        most = BLAMELESS_WITHOUT_PROGRESS if job.state in BLAMELESS else WITHOUT_PROGRESS
        try:
            request = next_request(self.broker.site, watched.request, job.state, events, watched.every, watched.lost, folder)
            if request != watched.request:  # with more than it had it starts anew
                watched.request, watched.lost = request, 0
            if watched.lost >= most:
                raise NeverFits(f"{watched.lost} jobs in a row ended without a new checkpoint")
            self.broker.again(folder.name, self._options(watched))
        except (NeverFits, SiteError) as error:
            self._give_up(watched, tracked, str(error))

    def _refused(self, watched: Watched, said: str) -> None:
        """Slurm does not take the job: the fault of this trial if it asks for more than others, else every trial's fate."""
        if watched.request == self.request:
            self.keep = True
            raise JobsDie(f"Slurm does not take jobs of this campaign; those that it has taken go on. It says:\n  {said}")
        had = self._options(watched)
        self._fail(watched, f"Slurm does not take its next job, which asks for {told(had)}: {said}")

    def _give_up(self, watched: Watched, tracked: Tracked, why: str) -> None:
        job = tracked.job
        assert job is not None
        ended = f"{job.state}{': ' + job.reason if job.reason else ''}"
        where = f"the last one ({job.id} on {job.nodes or 'no node'}) ended as {ended}"
        self._fail(watched, f"{why}; {where}.\n{last_lines(self.broker.folder, tracked)}")

    def _fail(self, watched: Watched, reason: str) -> None:
        """The end of a trial that the driver writes, after all of its jobs."""
        fence.close(watched.folder)
        watched.over = True
        events = read_events(watched.folder / "events.jsonl")
        epoch = max((e.get("epoch", 0) for e in events), default=0)
        event: Mapping[str, Any] = {
            "type": "status", "trial": watched.folder.name, "time": time.time(), "epoch": epoch, "step": 0, "status": "failed",
            "error": reason, "traceback": "",
        }  # fmt: skip
        append_event(TrialFolder(watched.folder).events, event)

    def _options(self, watched: Watched) -> dict[str, str]:
        found = options(self.broker.site, watched.request)
        avoided = self._bad.listed(self.broker.clock())
        return {**found, "exclude": avoided} if avoided else found
