"""What is wrong with a campaign file, and the error that says all of it at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from coppice.user_code import users_frames, what_went_wrong

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
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.path + ': ' if self.path else ''}{self.message}"


class CampaignError(ValueError):
    """Everything that is wrong with a campaign file."""

    def __init__(self, where: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        super().__init__(f"{where} has {count}; nothing was started:\n" + "\n".join(f"  {p}" for p in problems))


def told(error: BaseException) -> str:
    """What is said of an error that building or trying something has raised, in a line.

    Errors that our code raises on purpose speak for themselves; of others the type is told, and where in the user's own code.
    """
    said = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    purposely = isinstance(error, (ValueError, KeyError, ImportError, OSError)) and " " in said
    return said if purposely and not users_frames(error) else what_went_wrong(error)


def fault_of(place: Place, call: Callable[[], Any], intro: str = "") -> Faults:
    """The error that a call raises, as a fault of `place`; nothing where it raises none."""
    try:
        call()
    except (Exception, SystemExit) as error:  # a user's own code may raise anything, and it must not start
        yield place, f"{intro}{told(error)}"
