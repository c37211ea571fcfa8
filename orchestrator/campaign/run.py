"""Runs a campaign: creates or reopens its folder, and lets Ray Tune run the trials that have not ended."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.orchestrator.campaign.interrupts import Interrupt
from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.folder.files import written_by_us_alone
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.opening import made, reopened
from coppice.orchestrator.folder.trials import TrialRecords
from coppice.orchestrator.operations.status import StatusBoard, TrialStatus
from coppice.orchestrator.placement.ray_session import prepare_environment
from coppice.orchestrator.report.results import best_trial, write_results

if TYPE_CHECKING:  # it imports Ray
    from coppice.orchestrator.campaign.progress import Progress

Say = Callable[[str], None]
"""Is given a sentence for whoever runs the campaign."""


def warn(sentence: str) -> None:
    """A warning of Python's: what programs get that do not say where sentences go."""
    warnings.warn(sentence, stacklevel=3)


@dataclass(frozen=True)
class Outcome:
    """How a run of a campaign ended.

    Attributes:
        folder: of the campaign.
        state: `finished` when every trial has ended, else `interrupted`.
        trials: all trials.
        best: id of the best trial of the search; None where no trial has a value.
        signal: what interrupted it: the name of a signal, or what has ended that it needs.
    """

    folder: Path
    state: str
    trials: tuple[TrialStatus, ...]
    best: str | None
    signal: str | None = None

    @property
    def failed(self) -> tuple[TrialStatus, ...]:
        """Trials that failed, with `reason` and `traceback`."""
        return tuple(t for t in self.trials if t.state == "failed")


def run(
    spec: Campaign, *, resume: bool = False, on_progress: Progress | None = None, wait_s: float = 0.0, say: Say = warn
) -> Outcome:
    """Run a campaign to its end, or until it is interrupted (Ctrl-C, SIGTERM, SIGHUP, SIGUSR1).

    What ends it before its placement is up leaves nothing behind, and a resumed campaign as it was.

    Args:
        spec: the campaign.
        resume: go on with the campaign in its folder: what has ended stays, what has not goes on from its own checkpoint.
        on_progress: called about twice a second with the status of all trials.
        wait_s: how long to wait for another process that runs the campaign to end.
        say: called with what is remarkable: folders that are no trials, trials that are gone.

    Raises:
        FileExistsError: there is a campaign of that name, or a folder with something in it, and `resume` is False.
        FileNotFoundError: there is none, and `resume` is True.
        ValueError: the resumed campaign is another one, or a trial needs more than the placement has.
        BlockingIOError: another process runs the campaign.
    """
    folder = CampaignFolder((spec.root / spec.name).absolute())
    interrupt = Interrupt()
    with interrupt.listening(), written_by_us_alone(), reopened(folder, spec, wait_s) if resume else made(folder, spec) as opened:
        for sentence in TrialRecords(folder).remarks():
            say(sentence)
        signal = _run_trials(spec, folder, on_progress, interrupt, opened.begin)
        opened.begin()
        board = StatusBoard(folder.path).read(running=False)
        write_results(folder.path)
    ended = all(t.state in ("finished", "stopped", "failed") for t in board) and signal is None
    best = best_trial(folder.path, spec.search.metric, spec.search.mode)
    return Outcome(folder.path, "finished" if ended else "interrupted", tuple(board), best.id if best else None, signal)


def _run_trials(
    spec: Campaign, folder: CampaignFolder, on_progress: Progress | None, interrupt: Interrupt, begin: Callable[[], None]
) -> str | None:
    prepare_environment()  # Ray reads it when it is imported, which takes seconds and is left to those that run campaigns
    from coppice.orchestrator.campaign.tune_run import run_trials

    return run_trials(spec, folder, on_progress, interrupt, begin)
