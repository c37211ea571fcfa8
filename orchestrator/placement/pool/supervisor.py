"""What becomes of the trials of a pool: they run where there is room, and go on elsewhere when they are lost."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from coppice.orchestrator.folder import attempts
from coppice.orchestrator.folder.events import BY_ITS_USER
from coppice.orchestrator.placement.pool.workers import EndedAttempt
from coppice.orchestrator.placement.supervisor import (
    BY_ITSELF,
    WITHOUT_PROGRESS,
    BaseSupervisor,
    DriverReplaced,
    SupervisedTrial,
)

LOOK_EVERY_S = 0.1
GIVE_BACK_AFTER_S = 60.0
"""How long a node must not have been needed before it is given back: it would have to queue again."""
LEAVE_S = 25.0
"""How long trials may take to end their epochs when the driver must end; Slurm kills what has not ended 30 s after its signal."""
PASSING = ("left", "stopped")
"""How attempts end that lost nothing."""


class TrialWorkers(Protocol):
    """Runs attempts at trials, see `coppice.orchestrator.placement.pool.workers.Workers`."""

    def start(self, key: str, task: dict[str, Any], token: attempts.Token) -> None:
        """Run an attempt at a trial as soon as there is room."""

    def ended(self) -> list[EndedAttempt]:
        """Attempts that have ended since this was called last."""

    def stop(self, key: str) -> None:
        """End the attempt at a trial at once."""

    def busy(self) -> set[str]:
        """Trials with an attempt that has not ended."""


@dataclass
class PoolSupervisor(BaseSupervisor):
    """The trials of a campaign that run in a pool.

    Attributes:
        workers: run the trials.
        grow: brings the pool to so many nodes; returns whether Slurm was asked.
        nodes_for: how many nodes so many trials can use.
        left: trials of the campaign that have not ended, those that are not known yet among them.
        ours: whether the cluster is this driver's.
        clock: seconds.
    """

    workers: TrialWorkers
    grow: Callable[[int], bool]
    nodes_for: Callable[[int], int]
    left: int
    ours: Callable[[], bool] = lambda: True
    clock: Callable[[], float] = field(default=time.monotonic, kw_only=True)
    replaced: bool = field(default=False, init=False)
    _released: set[str] = field(default_factory=set, init=False)
    _demand: deque[tuple[float, int]] = field(default_factory=deque, init=False)
    _next: float = field(default=0.0, init=False)

    def release(self, key: str) -> None:
        """Let go of a trial. Where the driver itself must end, trials may end their epochs first."""
        trial = self._trials.get(key)
        if trial is None or self.replaced:
            return
        if not trial.over and trial.state() not in BY_ITSELF:
            trial.ask_to_stop()
            if self.leaving():
                return
            self._shut_out(trial)
            self.workers.stop(key)
        del self._trials[key]
        self._released.add(key)

    def poll(self) -> None:
        """Look after trials and nodes; cheap when it was done just now.

        Raises:
            JobsKeepDying: node after node ends before it joins.
            DriverReplaced: another driver has taken over.
        """
        if self.clock() < self._next or self.leaving():
            return
        if not self.ours():
            self.replaced = True
            raise DriverReplaced("another driver has taken over this campaign, so this one ends.")
        for attempt in self.workers.ended():
            trial = self._trials.get(attempt.key)
            if trial is not None and not trial.over:
                self._attempt_ended(trial, attempt)
        if self.grow(self._nodes_wanted()):
            for trial in self._under_way():
                if trial.cancelled:
                    self.workers.stop(trial.key)
                    self.fail(trial, BY_ITS_USER)
        self._next = self.clock() + LOOK_EVERY_S

    def close(self) -> None:
        """The driver ends: trials that are under way may end their epochs, and nothing writes into their folders any more."""
        deadline = self.clock() + (LEAVE_S if self.leaving() else 0.0)
        while self.clock() < deadline and self.workers.busy():
            self.workers.ended()
            time.sleep(LOOK_EVERY_S)
        for trial in self._under_way():
            self.workers.stop(trial.key)
            if not self.replaced:
                self._shut_out(trial)

    def _nodes_wanted(self) -> int:
        """Enough for the trials of the last minute, and at the beginning for all that there will be."""
        now = self.clock()
        if not self._demand:
            self._demand.append((now, self.left))
        live = len(list(self._under_way()))
        self._demand.append((now, live))
        while self._demand[0][0] < now - GIVE_BACK_AFTER_S:
            self._demand.popleft()
        over = self._released | {key for key, trial in self._trials.items() if trial.over}
        left = max(live, self.left - len(over))
        return self.nodes_for(min(left, max(count for _, count in self._demand)))

    def _begin(self, trial: SupervisedTrial) -> None:
        self._released.discard(trial.key)
        trial.reached = _progress(trial)
        self.workers.start(trial.key, trial.task, attempts.supersede(trial.folder.path))

    def _attempt_ended(self, trial: SupervisedTrial, attempt: EndedAttempt) -> None:
        if self._concluded(trial):
            return
        if attempt.outcome not in PASSING:
            trial.lost = 0 if _progress(trial) > trial.reached else trial.lost + 1
        if trial.lost < WITHOUT_PROGRESS:
            self._begin(trial)
            return
        how = attempt.problem or f"its attempt was {attempt.outcome}"
        self.interrupt(trial, f"{trial.lost} attempts in a row were lost without a new checkpoint; the last one: {how}")

    def _shut_out(self, trial: SupervisedTrial) -> None:
        attempts.supersede(trial.folder.path)

    def _epoch(self, trial: SupervisedTrial) -> int:
        return trial.reached[1] or _progress(trial)[1]


def _progress(trial: SupervisedTrial) -> tuple[str, int]:
    """Newest checkpoint and newest epoch; bodies of the user's may keep their checkpoints elsewhere."""
    epochs = [int(e.get("epoch", 0)) for e in trial.events() if e["type"] == "metrics"]
    return trial.newest_checkpoint(), max(epochs, default=0)
