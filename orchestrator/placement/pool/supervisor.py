"""What becomes of the trials of a pool: they run where there is room, and go on elsewhere when they are lost."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from coppice.orchestrator.folder import attempts as fence
from coppice.orchestrator.folder.checkpoint import available
from coppice.orchestrator.folder.events import FINAL, append_event, read_events, state_of
from coppice.orchestrator.folder.layout import CANCELLED, STOP, TrialFolder
from coppice.orchestrator.placement.pool.workers import Ended
from coppice.orchestrator.placement.supervisor import WITHOUT_PROGRESS, Replaced

LOOK_EVERY_S = 0.1
GIVE_BACK_AFTER_S = 60.0
"""How long a node must not have been needed before it is given back: it would have to queue again."""
LEAVE_S = 25.0
"""How long trials may take to end their epochs when the driver must end; Slurm kills what has not ended 30 s after its signal."""
BY_ITSELF = ("finished", "failed")
"""Ends that a trial comes to without being told; that it was stopped is written by the driver."""
PASSING = ("left", "stopped")
"""How attempts end that lost nothing."""


class Crew(Protocol):
    """Runs trials, see `coppice.orchestrator.placement.pool.workers.Workers`."""

    def start(self, key: str, task: dict[str, Any], token: fence.Token) -> None:
        """Begin."""

    def ended(self) -> list[Ended]:
        """News."""

    def stop(self, key: str) -> None:
        """End."""

    def busy(self) -> set[str]:
        """Under way."""


@dataclass
class Watched:
    """One trial.

    Attributes:
        reached: how far it had come when its attempt began: newest checkpoint, newest epoch.
        lost: attempts in a row that were lost and brought it no further.
        over: whether nothing will be written into its folder any more.
    """

    task: dict[str, Any]
    reached: tuple[str, int] = ("", 0)
    lost: int = 0
    over: bool = False

    @property
    def folder(self) -> Path:
        """Of the trial."""
        return Path(self.task["folder"])


@dataclass
class PoolBoard:
    """The trials of a campaign that run in a pool.

    Attributes:
        crew: runs them.
        grow: brings the pool to so many nodes; returns whether Slurm was asked.
        ours: whether the cluster is this driver's.
        nodes_for: how many nodes so many trials can use.
        left: trials of the campaign that have not ended, those that are not known yet among them.
        leaving: whether this driver must end before its campaign.
        clock: seconds.
    """

    crew: Crew
    grow: Callable[[int], bool]
    nodes_for: Callable[[int], int]
    left: int
    ours: Callable[[], bool] = lambda: True
    leaving: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.monotonic
    replaced: bool = False
    _trials: dict[str, Watched] = field(default_factory=dict)
    _ended_ones: set[str] = field(default_factory=set)
    _demand: deque[tuple[float, int]] = field(default_factory=deque)
    _next: float = 0.0

    def add(self, task: dict[str, Any]) -> None:
        """Run a trial."""
        watched = Watched(task)
        key = watched.folder.name
        (watched.folder / STOP).unlink(missing_ok=True)
        self._trials[key] = watched
        self._ended_ones.discard(key)
        if (watched.folder / CANCELLED).exists():
            self._fail(watched, "cancelled by its user")
        else:
            self._begin(watched)

    def drop(self, key: str) -> None:
        """Nothing more of a trial is wanted. Where the driver itself must end, trials may end their epochs first."""
        watched = self._trials.get(key)
        if watched is None or self.replaced:
            return
        ended = watched.over or _state(watched.folder) in BY_ITSELF
        if not ended:
            (watched.folder / STOP).touch()
            if self.leaving():
                return
            fence.supersede(watched.folder)
            self.crew.stop(key)
        del self._trials[key]
        self._ended_ones.add(key)

    def over(self, key: str) -> bool:
        """Whether no attempt will write anything any more."""
        return self._trials[key].over

    def poll(self) -> None:
        """Look after trials and nodes; cheap when it was done just now.

        Raises:
            JobsDie: node after node ends before it joins.
            Replaced: another driver has taken over.
        """
        if self.clock() < self._next or self.leaving():
            return
        if not self.ours():
            self.replaced = True
            raise Replaced("another driver has taken over this campaign, so this one ends.")
        for ended in self.crew.ended():
            watched = self._trials.get(ended.key)
            if watched is not None and not watched.over:
                self._ended(watched, ended)
        if self.grow(self._nodes_wanted()):
            for watched in self._trials.values():
                if not watched.over and (watched.folder / CANCELLED).exists():
                    self.crew.stop(watched.folder.name)
                    self._fail(watched, "cancelled by its user")
        self._next = self.clock() + LOOK_EVERY_S

    def close(self) -> None:
        """The driver ends: trials that are under way may end their epochs, and nothing writes into their folders any more."""
        deadline = self.clock() + (LEAVE_S if self.leaving() else 0.0)
        while self.clock() < deadline and self.crew.busy():
            self.crew.ended()
            time.sleep(LOOK_EVERY_S)
        for watched in self._trials.values():
            if not watched.over:
                self.crew.stop(watched.folder.name)
                if not self.replaced:
                    fence.supersede(watched.folder)

    def _nodes_wanted(self) -> int:
        """Enough for the trials of the last minute, and at the beginning for all that there will be."""
        now = self.clock()
        if not self._demand:
            self._demand.append((now, self.left))
        live = sum(not w.over for w in self._trials.values())
        self._demand.append((now, live))
        while self._demand[0][0] < now - GIVE_BACK_AFTER_S:
            self._demand.popleft()
        left = max(live, self.left - len(self._ended_ones | {k for k, w in self._trials.items() if w.over}))
        return self.nodes_for(min(left, max(count for _, count in self._demand)))

    def _begin(self, watched: Watched) -> None:
        watched.reached = _reached(watched.folder)
        self.crew.start(watched.folder.name, watched.task, fence.supersede(watched.folder))

    def _ended(self, watched: Watched, ended: Ended) -> None:
        folder = watched.folder
        if _state(folder) in FINAL:
            watched.over = True
            return
        if (folder / CANCELLED).exists():
            self._fail(watched, "cancelled by its user")
            return
        if ended.outcome not in PASSING:
            watched.lost = 0 if _reached(folder) > watched.reached else watched.lost + 1
        if watched.lost < WITHOUT_PROGRESS:
            self._begin(watched)
            return
        how = ended.problem or f"its attempt was {ended.outcome}"
        self._fail(watched, f"{watched.lost} attempts in a row were lost without a new checkpoint; the last one: {how}")

    def _fail(self, watched: Watched, reason: str) -> None:
        """Nobody else writes into the folder any more."""
        fence.supersede(watched.folder)
        watched.over = True
        epoch = watched.reached[1] or _reached(watched.folder)[1]
        event: Mapping[str, Any] = {
            "type": "status", "trial": watched.folder.name, "time": time.time(), "epoch": epoch, "step": 0, "status": "failed",
            "error": reason, "traceback": "",
        }  # fmt: skip
        append_event(TrialFolder(watched.folder).events, event)


def _state(folder: Path) -> str:
    return state_of(read_events(folder / "events.jsonl"))


def _reached(folder: Path) -> tuple[str, int]:
    """Newest checkpoint and newest epoch; bodies of the user's may keep their checkpoints elsewhere."""
    found = available(folder / "checkpoints")
    epochs = [int(e.get("epoch", 0)) for e in read_events(folder / "events.jsonl") if e["type"] == "metrics"]
    return (found[-1].name if found else "", max(epochs, default=0))
