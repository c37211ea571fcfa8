"""What is wrong with a campaign file, and the error that says all of it at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Place = tuple[Any, ...]
"""Keys and indices from the root of a tree to something in it."""
Fault = tuple[Place, str]
"""Something wrong in a tree: where, and what."""
Faults = Iterator[Fault]


@dataclass(frozen=True, order=True)
class Problem:
    """Something wrong in a campaign file.

    Attributes:
        line: counted from 1; 0 where there is none.
        path: keys with dots between.
        message: what must hold, and what there is.
    """

    line: int
    path: str
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.path + ': ' if self.path else ''}{self.message}"


class CampaignError(ValueError):
    """Everything that is wrong with a campaign file."""

    def __init__(self, where: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        super().__init__(f"{where} has {count}; nothing was started:\n" + "\n".join(f"  {p}" for p in problems))
