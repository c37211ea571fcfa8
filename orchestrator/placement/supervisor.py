"""What placements have in common whose trials run elsewhere: the driver starts them, releases them, and fails those in vain."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from coppice.orchestrator.folder.checkpoint import available
from coppice.orchestrator.folder.events import BY_ITS_USER, FINAL, read_events, state_of, status_event
from coppice.orchestrator.folder.layout import TrialFolder

WITHOUT_PROGRESS = 3
"""How many attempts in a row a trial may lose without a new checkpoint."""
BY_ITSELF = ("finished", "failed")
"""Ends that a trial comes to by itself; that it was stopped is written by the driver."""


class DriverReplaced(RuntimeError):
    """Another driver has taken over the campaign."""


class Supervisor(Protocol):
    """Looks after trials that run elsewhere: those of placement `job` are Slurm jobs, those of `pool` are Ray tasks."""

    def start(self, task: dict[str, Any]) -> None:
        """Let a trial run; `task` is what `coppice.orchestrator.placement.runner.Runner` takes."""

    def release(self, key: str) -> None:
        """Let go of a trial: nobody waits for more of it."""

    def ended(self, key: str) -> bool:
        """Whether nothing will be written into the trial's folder any more."""

    def poll(self) -> None:
        """Look after all trials, without waiting for anything."""


@dataclass
class SupervisedTrial:
    """A trial that runs elsewhere, as its driver sees it.

    Attributes:
        task: see `coppice.orchestrator.placement.runner.Runner`.
        reached: how far it was when its newest attempt began: name of the newest checkpoint, and an epoch.
        lost: attempts in a row that ended without bringing it further.
        over: whether no attempt at it will write anything any more.
    """

    task: dict[str, Any]
    reached: tuple[str, int] = ("", 0)
    lost: int = 0
    over: bool = False

    @functools.cached_property
    def folder(self) -> TrialFolder:
        """Where it keeps what it does."""
        return TrialFolder(Path(self.task["folder"]))

    @property
    def key(self) -> str:
        """The trial's id, by which supervisors know it."""
        return self.folder.name

    @property
    def cancelled(self) -> bool:
        """Whether its user does not want it any more."""
        return self.folder.cancelled.exists()

    def events(self) -> list[dict[str, Any]]:
        """What it has written so far."""
        return read_events(self.folder.events)

    def state(self) -> str:
        """What it was doing last, by its own word."""
        return state_of(self.events())

    def newest_checkpoint(self) -> str:
        """Name of the newest valid checkpoint; empty where there is none."""
        checkpoints = available(self.folder.checkpoints)
        return checkpoints[-1].name if checkpoints else ""

    def ask_to_stop(self) -> None:
        """Let it end after its epoch."""
        self.folder.stop.touch()


@dataclass
class BaseSupervisor(abc.ABC):
    """What becomes of a campaign's trials, as far as that does not depend on what runs them.

    Attributes:
        leaving: whether this driver must end before its campaign.
    """

    leaving: Callable[[], bool] = field(default=lambda: False, kw_only=True)
    _trials: dict[str, SupervisedTrial] = field(default_factory=dict, init=False)

    def start(self, task: dict[str, Any]) -> None:
        """Let a trial run, unless its user has cancelled it."""
        trial = SupervisedTrial(task)
        trial.folder.stop.unlink(missing_ok=True)
        self._trials[trial.key] = trial
        if trial.cancelled:
            self.fail(trial, BY_ITS_USER)
        else:
            self._begin(trial)

    def ended(self, key: str) -> bool:
        """Whether no attempt at the trial will write anything any more."""
        return self._trials[key].over

    def fail(self, trial: SupervisedTrial, reason: str) -> None:
        """End a trial by the driver's word; no attempt at it writes anything afterwards."""
        self._end(trial, "failed", error=reason, traceback="")

    def interrupt(self, trial: SupervisedTrial, reason: str) -> None:
        """End a trial for now, by no fault of its own: it goes on when the campaign is resumed."""
        self._end(trial, "interrupted", reason=reason)

    def _end(self, trial: SupervisedTrial, status: str, **why: Any) -> None:
        self._shut_out(trial)
        trial.over = True
        trial.folder.append_event(status_event(trial.key, status, self._epoch(trial), **why))

    def _under_way(self) -> Iterable[SupervisedTrial]:
        return (trial for trial in self._trials.values() if not trial.over)

    def _concluded(self, trial: SupervisedTrial) -> bool:
        """Whether an attempt that has ended was the trial's last: the trial has come to its end, or its user cancelled it."""
        if trial.state() in FINAL:
            trial.over = True
        elif trial.cancelled:
            self.fail(trial, BY_ITS_USER)
        return trial.over

    @abc.abstractmethod
    def _begin(self, trial: SupervisedTrial) -> None:
        """Start a first attempt at the trial."""

    @abc.abstractmethod
    def _shut_out(self, trial: SupervisedTrial) -> None:
        """Keep every attempt so far from writing anything more."""

    @abc.abstractmethod
    def _epoch(self, trial: SupervisedTrial) -> int:
        """The epoch to which the trial has come, for its last event."""
