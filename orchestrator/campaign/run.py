"""Runs a campaign: creates or reopens its folder, and lets Ray Tune run the trials that have not ended."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coppice.orchestrator.config.models import CampaignSpec, TrialSpec
from coppice.orchestrator.folder import lock
from coppice.orchestrator.folder.files import exclusive
from coppice.orchestrator.folder.layout import CANCELLED, CampaignFolder, cancelled
from coppice.orchestrator.folder.trials import Ledger
from coppice.orchestrator.operations.status import StatusBoard, TrialStatus
from coppice.orchestrator.placement.catalog import placed
from coppice.orchestrator.placement.open_placement import OpenPlacement
from coppice.orchestrator.placement.ray_session import prepare_environment
from coppice.orchestrator.report.results import best_trial, write_results

PROGRESS_EVERY_S = 0.5
GAUGES_EVERY_S = 5.0
"""Time between two looks at all trials where nobody wants to see their progress: Ray hands metrics on every ten seconds."""

Progress = Callable[[list[TrialStatus]], None]


@dataclass(frozen=True)
class Outcome:
    """How a run of a campaign ended.

    Attributes:
        folder: of the campaign.
        state: `finished` when every trial has ended, else `interrupted`.
        trials: all trials.
        best: id of the best trial of the search; None where no trial has a value.
        signal: name of the signal that interrupted it.
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
    spec: CampaignSpec, *, resume: bool = False, on_progress: Progress | None = None, wait_s: float = 0.0
) -> Outcome:
    """Run a campaign to its end, or until it is interrupted (Ctrl-C, SIGTERM, SIGUSR1).

    Args:
        spec: the campaign.
        resume: go on with the campaign in its folder: what has ended stays, what has not goes on from its own checkpoint.
        on_progress: called about twice a second with the status of all trials.
        wait_s: how long to wait for another process that runs the campaign to end.

    Raises:
        FileExistsError: there is a campaign of that name, and `resume` is False.
        FileNotFoundError: there is none, and `resume` is True.
        ValueError: the resumed campaign is another one, or a trial needs more than the placement has.
        BlockingIOError: another process runs the campaign.
    """
    folder = CampaignFolder((spec.root / spec.name).absolute())
    (lock.reopen if resume else lock.create)(folder, spec)
    with exclusive(folder.in_use, wait_s):
        folder.in_use.write_text(_this_process())
        (folder.path / CANCELLED).unlink(missing_ok=True)
        signal = _run(spec, folder, on_progress)
        board = StatusBoard(folder.path).read(running=False)
        write_results(folder.path)
    ended = all(t.state in ("finished", "stopped", "failed") for t in board) and signal is None
    best = best_trial(folder.path, spec.search.metric, spec.search.mode)
    return Outcome(folder.path, "finished" if ended else "interrupted", tuple(board), best.id if best else None, signal)


def resume(folder: Path | str, *, on_progress: Progress | None = None, wait_s: float = 0.0) -> Outcome:
    """Go on with the campaign in `folder`, wherever that stands now; arguments, result and errors as those of `run`."""
    return run(lock.load_spec(CampaignFolder(Path(folder))), resume=True, on_progress=on_progress, wait_s=wait_s)


def _this_process() -> str:
    """For whoever wonders what holds the campaign."""
    job = os.environ.get("SLURM_JOB_ID", "")
    return f"process {os.getpid()} on {socket.gethostname()}{f', job {job}' if job else ''}"


def _run(spec: CampaignSpec, folder: CampaignFolder, on_progress: Progress | None) -> str | None:
    ledger = Ledger(folder)
    jobs = spec.placement.name != "local"
    if not jobs:
        ledger.interrupt()
    entries = ledger.entries()
    from coppice.orchestrator.campaign.sampler import Sampler

    sampler = Sampler(spec)
    sampler.restore(entries)
    prepare_environment()
    from coppice.orchestrator.campaign.interrupts import Interrupt
    from coppice.orchestrator.campaign.tune_search import TuneSearch
    from coppice.scheduler.trials import build_trial_scheduler, replay, stop_at

    named = spec.search.trial_scheduler
    trial_scheduler = build_trial_scheduler(named.name, named.arguments, spec.search.metric, spec.search.mode)
    replay(trial_scheduler, {e.id: e.reports for e in entries if e.number is not None})
    search = TuneSearch(spec, ledger, entries, sampler, lambda: _comparisons(spec, folder), stop_at(trial_scheduler))
    interrupt = Interrupt(lambda: cancelled(folder))
    if not search.complete:
        with placed(spec, folder, lambda: interrupt.signal is not None) as place, interrupt.listening():
            search.limit = min(place.capacity, spec.search.max_concurrent or sys.maxsize)
            _tune(spec, folder, search, trial_scheduler, interrupt, on_progress, place)
    if not search.complete:
        if not jobs:
            ledger.interrupt()
        return interrupt.signal or "SIGUSR1"
    return None


def _tune(
    spec: CampaignSpec, folder: CampaignFolder, search: Any, trial_scheduler: Any, interrupt: Any, on_progress: Progress | None,
    place: OpenPlacement,
) -> None:  # fmt: skip
    from ray import tune

    from coppice.orchestrator.campaign.progress import ProgressCallback
    from coppice.orchestrator.operations.gauges import Gauges

    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    reports: list[Progress] = [Gauges(spec.name, spec.search.metric), *([on_progress] if on_progress else [])]
    every_s = PROGRESS_EVERY_S if on_progress else GAUGES_EVERY_S
    tune.run(
        place.trainable,
        name=time.strftime("%Y%m%d-%H%M%S"),
        storage_path=str(folder.tune),
        search_alg=search,
        scheduler=trial_scheduler,
        stop=interrupt,
        reuse_actors=place.reuse_workers,
        callbacks=[ProgressCallback(StatusBoard(folder.path), reports, every_s)],
        raise_on_failed_trial=False,
        verbose=0,
    )


def _comparisons(spec: CampaignSpec, folder: CampaignFolder) -> list[tuple[str, TrialSpec]]:
    """What the best trial is compared with, as `spec.compare` asks for."""
    if not spec.compare.static and spec.compare.big is None:
        return []
    from coppice.orchestrator.folder.checkpoint import available
    from coppice.orchestrator.trial.baselines import big, static

    best = best_trial(folder.path, spec.search.metric, spec.search.mode)
    if best is None:
        return []
    entry = next(e for e in Ledger(folder).entries() if e.id == best.id)
    trial = TrialSpec.model_validate(entry.spec)
    found = []
    checkpoints = available(folder.trial(best.id).checkpoints)
    if spec.compare.static and checkpoints:
        found.append(("static", static(trial, checkpoints[-1].absolute())))
    if spec.compare.big is not None:
        found.append(("big", big(trial, spec.compare.big)))
    return found
