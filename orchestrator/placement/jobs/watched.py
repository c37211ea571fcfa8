"""A trial that runs as a job, as its driver sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coppice.orchestrator.folder.checkpoint import available
from coppice.orchestrator.folder.layout import CANCELLED
from coppice.slurm.broker.work import Tracked
from coppice.slurm.request import Request


@dataclass
class Watched:
    """One trial.

    Attributes:
        request: what its next job asks for.
        every: epochs from one checkpoint to the next.
        reached: how far it was when its job was handed in: newest checkpoint, epoch from which it has gone on last.
        lost: jobs in a row that ended without bringing it further.
        dead: jobs in a row that ended before it began.
        over: whether no job of it will write anything any more.
    """

    task: dict[str, Any]
    request: Request
    every: int
    reached: tuple[str, int] = ("", 0)
    lost: int = 0
    dead: int = 0
    over: bool = False

    @property
    def folder(self) -> Path:
        """Of the trial."""
        return Path(self.task["folder"])

    @property
    def cancelled(self) -> bool:
        """Whether its user does not want it any more."""
        return (self.folder / CANCELLED).exists()


def reached(folder: Path, events: Sequence[Mapping[str, Any]]) -> tuple[str, int]:
    """Newest checkpoint of a trial, and the epoch from which it has gone on last."""
    found = available(folder / "checkpoints")
    begun = [e.get("epoch", 0) for e in events if e["type"] == "status" and e["status"] in ("started", "resumed")]
    return found[-1].name if found else "", int(begun[-1]) if begun else 0


def last_lines(folder: Path, tracked: Tracked, lines: int = 15) -> str:
    """The end of what a job has written; `folder` is submitit's."""
    job = tracked.attempt.job if tracked.attempt else ""
    for path in sorted(folder.glob(f"{job}_*_log.out")):
        text = path.read_text(errors="replace").strip()
        if text:
            return "\n".join("  " + line for line in text.split("\n")[-lines:])
    return f"  (nothing: is {folder} on a file system that the nodes share?)"


def told(had: Mapping[str, str]) -> str:
    """Options of sbatch, in one line."""
    return " ".join(f"--{name}={value}" if value else f"--{name}" for name, value in sorted(had.items()))
