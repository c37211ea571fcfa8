"""The end of `coppice elements`: how many parameters may change, by level, and what holds most of the others back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coppice.methods.graph.values import Element
from coppice.methods.measures.coverage import Coverage
from coppice.orchestrator.cli.output import plain_table, show, write

MOST_REASONS = 3


def show_coverage(found: Coverage, elements: Sequence[Element]) -> None:
    """Print the two closing tables of a network whose elements are `elements`."""
    numbers = [[level, str(sum(e.level == level and e.permissible for e in elements)), *_amounts(found, held)]
               for level, held in found.by_level.items()]
    rows = [row for row in numbers if row[1] != "0"]
    if rows:
        write()
        show(plain_table(["level", "elements", "parameters", "share"], rows, numbers=("elements", "parameters", "share")))
    write(f"\nUnits (channels, heads, groups) that may come and go hold {found.units:,} of {found.parameters:,} parameters "
          f"({_percent(found.units, found.parameters)}).")
    if found.reasons:
        rest = [[*_amounts(found, held), reason] for reason, held in found.reasons[:MOST_REASONS]]
        show(plain_table(["parameters", "share", "why they are in none"], rest, numbers=("parameters", "share")))


def coverage_record(found: Coverage) -> dict[str, Any]:
    """The same for `--json`, with all reasons."""
    reasons = [{"reason": reason, "parameters": held} for reason, held in found.reasons]
    return {"parameters": found.parameters, "units": found.units, "by_level": found.by_level, "reasons": reasons}


def _amounts(found: Coverage, held: int) -> list[str]:
    return [f"{held:,}", _percent(held, found.parameters)]


def _percent(part: int, whole: int) -> str:
    """Never 100 % for less than all."""
    share = 100 * part / whole if whole else 0.0
    return f"{min(share, 99.9 if part < whole else 100.0):.1f} %"
