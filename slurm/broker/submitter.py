"""How many jobs a site takes at a time: nobody says reliably, so it is found out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from coppice.slurm.client import SlurmError, SlurmFull, SlurmUnreachable

EITHER = "Job violates accounting/QOS policy"
"""Slurm's words where it does not say which of its limits it means: the number of jobs, or what one of them asks for."""
TOO_LARGE = "Invalid job array specification"
Options = Mapping[str, str]


@dataclass
class Submitter:
    """Hands in work in arrays of what asks for the same.

    After a refusal for too many jobs, arrays become half as large and the rest waits for the next time; after each array that
    was taken they may become twice as large again. An array that is refused for its size is halved at once and for good.

    Attributes:
        most: largest array.
        problem: why not everything was taken the last time; empty when it was.
    """

    most: int
    problem: str = ""
    _size: int = 0

    def submit_all(
        self, waiting: Sequence[tuple[str, Options]], submit: Callable[[Options, list[str]], None], others: bool
    ) -> Iterator[tuple[list[str], SlurmError]]:
        """Hand in as much as Slurm takes. Yields what it refuses for good, with what it said.

        Args:
            waiting: keys and options of the work.
            submit: hands in one array.
            others: whether other jobs of this broker are in the queue already.

        Raises:
            SlurmUnreachable: Slurm does not answer.
        """
        self.problem = ""
        for options, keys in _alike(waiting):
            left = keys
            while left:
                some, left = left[: self._next()], left[self._next() :]
                try:
                    submit(options, some)
                except SlurmUnreachable:
                    raise
                except SlurmError as error:
                    if TOO_LARGE in str(error) and len(some) > 1:
                        self.most = self._size = len(some) // 2
                        left = some + left
                    elif isinstance(error, SlurmFull) or (EITHER in str(error) and others):
                        self.problem, self._size = str(error), max(1, len(some) // 2)
                        return
                    else:
                        yield some, error
                else:
                    others, self._size = True, min(self.most, 2 * self._next())

    def _next(self) -> int:
        return self._size or self.most


def _alike(waiting: Sequence[tuple[str, Options]]) -> list[tuple[Options, list[str]]]:
    """By options, in order."""
    keys_of: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for key, options in waiting:
        keys_of.setdefault(tuple(sorted(options.items())), []).append(key)
    return [(dict(options), keys) for options, keys in keys_of.items()]
