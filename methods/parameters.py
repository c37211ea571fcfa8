"""Parameters of methods and selections: dataclass fields that know their range."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Parameter:
    """Range of a parameter, for search and for checks."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()
    help: str = ""


def parameter(
    default: Any, help: str, low: float | None = None, high: float | None = None, log: bool = False, choices: Sequence[Any] = ()
) -> Any:
    """A dataclass field with its range: `scale: float = parameter(0.5, "...", low=0.01, high=2, log=True)`."""
    return dataclasses.field(default=default, metadata={"parameter": Parameter(low, high, log, tuple(choices), help)})
