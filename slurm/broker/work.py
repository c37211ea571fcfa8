"""Pieces of work that are run as jobs, and what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from coppice.slurm.broker.journal import Attempt
from coppice.slurm.client import Job

REFUSED, LAUNCH_FAILED, UNKNOWN = "REFUSED", "LAUNCH_FAILED", "UNKNOWN"
"""Ends of an attempt beside Slurm's own: not handed in at all; held because it could not be started; not known any more."""


@dataclass(frozen=True)
class Work:
    """Something to be run as a job.

    Attributes:
        key: unique name.
        function: called in the job, once in each of its tasks; gets the number of the attempt.
        options: of sbatch, see `coppice.slurm.request.options`.
    """

    key: str
    function: Callable[[int], Any]
    options: Mapping[str, str]


@dataclass
class TrackedWork:
    """A piece of work and its newest attempt.

    Attributes:
        job: as last seen; None before Slurm has been asked about it.
        seen_s: when it was last seen, by the broker's clock.
        since_s: since when it has been in its state.
        missed: how many times in a row Slurm did not know it.
        over: whether the attempt has ended and nobody has taken note yet.
    """

    work: Work
    attempt: Attempt | None = None
    job: Job | None = None
    seen_s: float = 0.0
    since_s: float = 0.0
    missed: int = 0
    over: bool = False


@dataclass(frozen=True)
class Call:
    """What submitit pickles: a function of work with the number of the attempt."""

    function: Callable[[int], Any]
    number: int

    def __call__(self) -> Any:
        """Run the function, in the job; returns what it returns."""
        return self.function(self.number)
