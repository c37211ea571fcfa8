"""What a trial's job runs, on the node that Slurm gave it. It needs neither Ray nor the driver."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coppice.orchestrator.folder import attempts
from coppice.orchestrator.folder.events import FINAL, read_events, state_of
from coppice.orchestrator.folder.files import OTHERS_WRITE
from coppice.orchestrator.folder.layout import TrialFolder
from coppice.orchestrator.placement.process_state import ProcessState
from coppice.orchestrator.placement.runner import Runner, accompany
from coppice.slurm.job.signals import EndSignals
from coppice.slurm.job.task import this_task

if TYPE_CHECKING:
    from coppice.orchestrator.trial.process_group import ProcessRanks


@dataclass(frozen=True)
class TrialJob:
    """Runs one trial from its newest checkpoint until it is done, is asked to stop, or is told that the job must end.

    Attributes:
        task: see `coppice.orchestrator.placement.runner.Runner`.
    """

    task: dict[str, Any]

    def __call__(self, number: int) -> str:
        """Attempt `number`; returns how it ended: finished, failed, stopped, interrupted or superseded.

        Where the job has several tasks this is called in each; all but the first accompany that one, and return `accompanied`.
        """
        os.umask(os.umask(OTHERS_WRITE) | OTHERS_WRITE)  # a site may give jobs another umask than their driver's
        folder = Path(self.task["folder"])
        ended = state_of(read_events(TrialFolder(folder).events))
        if ended in FINAL:  # its node was lost before Slurm heard of the end, and the job was requeued
            return ended
        token = (number, int(os.environ.get("SLURM_RESTART_COUNT", "0")))
        signals = EndSignals()
        task = this_task()
        # as many threads as cores, as in Ray's workers; with others sums are rounded in another way
        os.environ.setdefault("OMP_NUM_THREADS", str(task.cpus))
        if task.size == 1:
            return self._claimed(folder, token, signals, None)
        from coppice.orchestrator.trial.process_group import joined, use_gpu

        use_gpu(task.local)
        with joined(TrialFolder(folder).meeting, repr(token), task.rank, task.size, task.address) as ranks:
            if task.rank and ranks:
                accompany(self.task, ranks, _seed)
                return "accompanied"
            return self._claimed(folder, token, signals, ranks)

    def _claimed(self, folder: Path, token: attempts.Token, signals: EndSignals, ranks: ProcessRanks | None) -> str:
        try:
            attempts.claim(folder, token)
            return self._run(folder, signals, ranks)
        except attempts.Superseded:
            return "superseded"
        finally:
            attempts.release(folder)

    def _run(self, folder: Path, signals: EndSignals, ranks: ProcessRanks | None) -> str:
        runner = Runner(self.task, _seed, ranks)
        try:
            while True:
                if TrialFolder(folder).stop.exists():
                    return "stopped"
                if signals.last:
                    runner.save()
                    return "interrupted"
                attempts.check(folder)
                result = runner.step()
                if result["done"]:
                    return "failed" if result["failed"] else "interrupted" if result.get("interrupted") else "finished"
        finally:
            runner.end()


def _seed(seed: int) -> None:
    """Every global random stream of the job's process."""
    ProcessState().seed(seed)
