"""What the jobs of a trial have shown so far, as its driver keeps it in mind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coppice.orchestrator.placement.supervisor import SupervisedTrial
from coppice.slurm.request import Request


@dataclass
class JobHistory:
    """Of one trial.

    Attributes:
        request: what its next job asks for.
        checkpoint_every: epochs from one checkpoint to the next.
        dead: jobs in a row that ended before the trial began.
    """

    request: Request
    checkpoint_every: int
    dead: int = 0


def progress(trial: SupervisedTrial, events: Sequence[Mapping[str, Any]]) -> tuple[str, int]:
    """Newest checkpoint of a trial, and the epoch from which it has gone on last."""
    begun = [e.get("epoch", 0) for e in events if e["type"] == "status" and e["status"] in ("started", "resumed")]
    return trial.newest_checkpoint(), int(begun[-1]) if begun else 0
