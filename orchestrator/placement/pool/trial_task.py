"""What runs on a node of the pool for each trial."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from coppice.orchestrator.folder import attempts
from coppice.orchestrator.folder.files import exclusive
from coppice.orchestrator.folder.layout import TrialFolder
from coppice.orchestrator.placement.process_state import ProcessState
from coppice.orchestrator.placement.ray_ranks import RankActors
from coppice.orchestrator.placement.runner import LEFTOVER_WAIT_S, Runner
from coppice.orchestrator.trial.errors import RanksLost
from coppice.slurm.ray.node import LEAVING

_CLEAN: list[ProcessState] = []
"""This process as it was before its first trial: Ray gives trials that use no GPU to processes that ran others before."""


def run_trial(task: dict[str, Any], token: attempts.Token, bundles: list[dict[str, float]]) -> str:
    """Run a trial from its newest checkpoint; returns how it ended: finished, failed, stopped, left, held, superseded or lost.

    Args:
        task: see `coppice.orchestrator.placement.runner.Runner`.
        token: of this attempt.
        bundles: what each of its ranks gets; this process is rank 0.
    """
    if not _CLEAN:
        _CLEAN.append(ProcessState())
    folder = Path(task["folder"])
    try:
        attempts.claim(folder, token)
        return _led(task, folder, bundles) if _free(folder) else "held"
    except attempts.Superseded:
        return "superseded"
    finally:
        attempts.release(folder)
        _CLEAN[0].restore()


def _led(task: dict[str, Any], folder: Path, bundles: list[dict[str, float]]) -> str:
    others = RankActors(task, bundles)
    runner = Runner(task, _CLEAN[0].seed, others.ranks)
    try:
        return _run(runner, folder)
    except RanksLost as error:
        return f"lost ({error})"
    finally:
        runner.end()
        others.leave()


def _run(runner: Runner, folder: Path) -> str:
    leaving = Path(os.environ.get(LEAVING) or os.devnull + "/none")
    while True:
        if TrialFolder(folder).stop.exists():
            return "stopped"
        if leaving.exists():
            return "left"
        attempts.check(folder)
        result = runner.step()
        if result["done"]:
            held_up = result.get("interrupted")
            return "failed" if result["failed"] else f"lost ({held_up})" if held_up else "finished"


def _free(folder: Path) -> bool:
    """Wait for an earlier attempt to let go of the trial, which it does as soon as it finds that there is a newer one."""
    deadline = time.monotonic() + LEFTOVER_WAIT_S
    while time.monotonic() < deadline:
        try:
            with exclusive(TrialFolder(folder).in_use):
                return True
        except BlockingIOError:
            attempts.check(folder)
            time.sleep(0.2)
    return False
