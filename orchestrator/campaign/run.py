"""Runs a campaign: creates or reopens its folder, and lets Ray Tune run the trials that have not ended."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.orchestrator.campaign.ending import End
from coppice.orchestrator.campaign.interrupts import Interrupt
from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.folder.events import FINAL
from coppice.orchestrator.folder.files import written_by_us_alone
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.lock import changed_code
from coppice.orchestrator.folder.opening import made, reopened
from coppice.orchestrator.folder.origin import at_home
from coppice.orchestrator.folder.trials import TrialRecords
from coppice.orchestrator.operations.status import StatusBoard, TrialStatus
from coppice.orchestrator.placement.ray_session import prepare_environment
from coppice.orchestrator.report.results import best_trial, write_results

if TYPE_CHECKING:  # it imports Ray
    from coppice.orchestrator.campaign.progress import Progress

PATIENCE_S = 30.0
"""How long a campaign waits for room on a full disk; a driver that is a job of its own waits as long as the job lasts."""
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
        problem: what must be mended before it can go on, as a sentence; empty where nothing must.
        alike: whether it ended because one trial after the other failed in the same way.
    """

    folder: Path
    state: str
    trials: tuple[TrialStatus, ...]
    best: str | None
    signal: str | None = None
    problem: str = ""
    alike: bool = False

    @property
    def failed(self) -> tuple[TrialStatus, ...]:
        """Trials that failed, with `reason` and `traceback`."""
        return tuple(t for t in self.trials if t.state == "failed")


def run(
    spec: Campaign, *, resume: bool = False, on_progress: Progress | None = None, wait_s: float = 0.0, say: Say = warn,
    patience_s: float = PATIENCE_S, same_code: bool = False,
) -> Outcome:  # fmt: skip
    """Run a campaign to its end, or until it is interrupted (Ctrl-C, SIGTERM, SIGHUP, SIGUSR1).

    What ends it before its placement is up leaves nothing behind, and a resumed campaign as it was.

    Args:
        spec: the campaign.
        resume: go on with the campaign in its folder: what has ended stays, what has not goes on from its own checkpoint.
        on_progress: called about twice a second with the status of all trials.
        wait_s: how long to wait for another process that runs the campaign to end.
        say: called with what is remarkable: folders that are no trials, trials that are gone, why the campaign pauses.
        patience_s: how long to wait for room on a full disk, and for what else fails around the trials.
        same_code: refuse to resume where the code is not that of before.

    Raises:
        FileExistsError: there is a campaign of that name, or a folder with something in it, and `resume` is False.
        FileNotFoundError: there is none, and `resume` is True.
        ValueError: the resumed campaign is another one, its code is (with `same_code`), or a trial needs more than there is.
        BlockingIOError: another process runs the campaign.
    """
    folder = CampaignFolder((spec.root / spec.name).absolute())
    with at_home(folder.path, folder.lock):
        return _run(spec, folder, resume, on_progress, wait_s, say, patience_s, same_code)


def _run(
    spec: Campaign, folder: CampaignFolder, resume: bool, on_progress: Progress | None, wait_s: float, say: Say,
    patience_s: float, same_code: bool,
) -> Outcome:  # fmt: skip
    interrupt = Interrupt()
    with interrupt.listening(), written_by_us_alone(), reopened(folder, spec, wait_s) if resume else made(folder, spec) as opened:
        if resume:
            _tell_changes(changed_code(folder, spec), say, same_code)
        for sentence in TrialRecords(folder).remarks():
            say(sentence)
        end = _run_trials(spec, folder, on_progress, interrupt, opened.begin, say, patience_s)
        opened.begin()
        board = StatusBoard(folder.path).read(running=False)
        if end.trouble is None:
            write_results(folder.path)
    state = "finished" if end == End() and all(t.state in FINAL for t in board) else "interrupted"
    best = best_trial(folder.path, spec.search.metric, spec.search.mode)
    return Outcome(folder.path, state, tuple(board), best.id if best else None, end.signal, end.problem, bool(end.alike))


def _tell_changes(changes: list[str], say: Say, same_code: bool) -> None:
    if changes and same_code:
        raise ValueError(
            f"the code must be that with which the campaign ran last, but these have changed: {', '.join(changes)}; "
            "restore them, or resume without --same-code."
        )
    if changes:
        say(f"Code has changed since this campaign ran last, and trials go on with what is there now: {', '.join(changes)}.")


def _run_trials(
    spec: Campaign, folder: CampaignFolder, on_progress: Progress | None, interrupt: Interrupt, begin: Callable[[], None],
    say: Say, patience_s: float,
) -> End:  # fmt: skip
    prepare_environment()  # Ray reads it when it is imported, which takes seconds and is left to those that run campaigns
    from coppice.orchestrator.campaign.pausing import run_with_pauses

    return run_with_pauses(spec, folder, on_progress, interrupt, begin, say, patience_s)
