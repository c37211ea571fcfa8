"""What becomes of trials whose jobs end: goes on in another job, or not, and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator import fence
from orchestrator.campaign.jobs.call import STOP, TrialJob
from orchestrator.checkpoint import available
from orchestrator.jobqueue import CANCELLED
from orchestrator.status import FINAL, state_of
from orchestrator.store import TrialFolder, append_event, read_events
from slurm.broker import Broker, Tracked, Work
from slurm.client import SlurmError
from slurm.request import Request, options

WITHOUT_PROGRESS = 3
"""How many jobs in a row a trial may lose without a new checkpoint."""
DEAD_ON_ARRIVAL = 3
"""After so many jobs of a campaign that ended before any trial began, something is wrong with all of them."""
MORE_MEMORY = 1.5
AVOID_S = 3600.0
"""How long a node on which a job died at once, or that failed, is not used."""
NODE_STATES = ("NODE_FAIL", "BOOT_FAIL")


class JobsDie(RuntimeError):
    """Every job dies before its trial begins; the message shows the end of a log."""


@dataclass
class Watched:
    """One trial.

    Attributes:
        checkpoint: newest one when its job was handed in.
        lost: jobs in a row that ended without a new checkpoint.
        reason: why it failed, where its jobs are the reason.
    """

    task: dict[str, Any]
    request: Request
    checkpoint: str = ""
    lost: int = 0
    over: bool = False

    @property
    def folder(self) -> Path:
        """Of the trial."""
        return Path(self.task["folder"])


@dataclass
class Board:
    """The trials of a campaign that run as jobs.

    Attributes:
        broker: of their jobs.
        request: what each job gets.
        leaving: whether this driver must end before its campaign.
        clock: seconds.
    """

    broker: Broker
    request: Request
    leaving: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.monotonic
    _trials: dict[str, Watched] = field(default_factory=dict)
    _arrived: bool = False
    _dead: int = 0
    _avoid: dict[str, float] = field(default_factory=dict)

    def add(self, task: dict[str, Any]) -> None:
        """Run a trial; a job of an earlier driver that still runs it is kept."""
        watched = Watched(task, self.request)
        key = watched.folder.name
        (watched.folder / STOP).unlink(missing_ok=True)
        watched.checkpoint = _newest(watched.folder)
        self._trials[key] = watched
        if (watched.folder / CANCELLED).exists():
            self._fail(watched, "cancelled by its user")
            return
        self.broker.add(Work(key, TrialJob(task), self._options(watched)))

    def drop(self, key: str) -> None:
        """Nothing more of a trial is wanted: its job ends. Where the driver itself must end, jobs go on without it."""
        watched = self._trials.pop(key, None)
        if watched is None or self.leaving():
            return
        (watched.folder / STOP).touch()
        if not watched.over:
            self.broker.drop(key)

    def over(self, key: str) -> bool:
        """Whether no job of the trial will write anything any more."""
        return self._trials[key].over

    def poll(self) -> None:
        """Look after all jobs; cheap when it was done just now.

        Raises:
            JobsDie: the first jobs all ended before their trials began.
        """
        if not self.broker.poll():
            return
        for key, watched in self._trials.items():
            if watched.over:
                continue
            tracked = self.broker.tracked(key)
            if tracked.over:
                self._ended(watched, tracked)

    def _ended(self, watched: Watched, tracked: Tracked) -> None:
        assert tracked.attempt is not None and tracked.job is not None
        number, folder = tracked.attempt.number, watched.folder
        state = state_of(read_events(folder / "events.jsonl"))
        began = (token := fence.newest(folder)) is not None and token[0] == number
        self._arrived |= began
        if state in FINAL:
            watched.over = True
            return
        if (folder / CANCELLED).exists():
            self._fail(watched, "cancelled by its user")
            return
        job = tracked.job
        if not began and job.state not in ("CANCELLED", "PREEMPTED", *NODE_STATES):
            self._died(watched, tracked)
        if job.state in NODE_STATES or not began:
            self._avoid |= dict.fromkeys(filter(None, job.nodes.split(",")), self.clock() + AVOID_S)
        newest = _newest(folder)
        watched.lost = 0 if newest != watched.checkpoint else watched.lost + 1
        watched.checkpoint = newest
        if watched.lost >= WITHOUT_PROGRESS:
            self._give_up(watched, tracked)
            return
        if job.state == "OUT_OF_MEMORY":
            memory = (watched.request.memory_gb or self._memory_gb(watched)) * MORE_MEMORY
            watched.request = replace(watched.request, memory_gb=memory)
        try:
            self.broker.again(folder.name, self._options(watched))
        except SlurmError as error:
            self._fail(watched, str(error))

    def _died(self, watched: Watched, tracked: Tracked) -> None:
        self._dead += 1
        if self._dead >= DEAD_ON_ARRIVAL and not self._arrived:
            last = f"{tracked.job.id} on {tracked.job.nodes or 'no node'}" if tracked.job else "?"
            raise JobsDie(
                f"{self._dead} jobs ended before their trials began, so no more are handed in; the last one, {last}, wrote:\n"
                f"{self._log(tracked)}"
            )

    def _log(self, tracked: Tracked, lines: int = 15) -> str:
        job = tracked.attempt.job if tracked.attempt else ""
        for path in sorted(self.broker.folder.glob(f"{job}_*_log.out")):
            text = path.read_text(errors="replace").strip()
            if text:
                return "\n".join("  " + line for line in text.split("\n")[-lines:])
        return f"  (nothing: is {self.broker.folder} on a file system that the nodes share?)"

    def _give_up(self, watched: Watched, tracked: Tracked) -> None:
        job = tracked.job
        assert job is not None
        where = f"{job.id} on {job.nodes or 'no node'}"
        why = f"{watched.lost} jobs in a row ended without a new checkpoint; the last one ({where}) ended as"
        hint = " an epoch may take longer than resources.hours" if job.state == "TIMEOUT" else ""
        self._fail(watched, f"{why} {job.state}{': ' + job.reason if job.reason else ''}.{hint}\n{self._log(tracked)}")

    def _fail(self, watched: Watched, reason: str) -> None:
        """No job writes into the folder any more, so the driver may."""
        watched.over = True
        events = read_events(watched.folder / "events.jsonl")
        epoch = max((e.get("epoch", 0) for e in events), default=0)
        event: Mapping[str, Any] = {
            "type": "status", "trial": watched.folder.name, "time": time.time(), "epoch": epoch, "step": 0, "status": "failed",
            "error": reason, "traceback": "",
        }  # fmt: skip
        append_event(TrialFolder(watched.folder).events, event)

    def _memory_gb(self, watched: Watched) -> float:
        """What the site gives a job that does not ask."""
        given = self._options(watched)
        gpus = max(1, watched.request.gpus)
        for name, parts in (("mem", 1), ("mem-per-cpu", int(given["cpus-per-task"]) * gpus), ("mem-per-gpu", gpus)):
            if name in given:
                return float(given[name].removesuffix("M")) / 1024 * parts
        return 4.0

    def _options(self, watched: Watched) -> dict[str, str]:
        found = options(self.broker.site, watched.request)
        now = self.clock()
        avoided = sorted(node for node, until in self._avoid.items() if until > now)
        return {**found, "exclude": ",".join(avoided)} if avoided else found


def _newest(folder: Path) -> str:
    found = available(folder / "checkpoints")
    return found[-1].name if found else ""

