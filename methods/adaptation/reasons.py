"""What is said of an act of an adaptation: why it changed nothing, or less than was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from coppice.methods.method import Method
from coppice.methods.selection.amount import Amount
from coppice.methods.selection.counting import offered, wanted
from coppice.methods.selection.values import Candidate, Choice, Limit

if TYPE_CHECKING:
    from coppice.methods.adaptation.adapt import Adaptation


def short_of(adaptation: Adaptation, candidates: Sequence[Candidate], choices: Sequence[Choice]) -> list[str]:
    """Which elements grow by less than the amount asks, because the method offers no more units."""
    method, amount = adaptation.method, adaptation.units
    if method.kind != "grow" or amount.of not in ("now", "seed") or not adaptation.selection.by_element:
        return []
    chosen, reasons = {c.element: len(c.units) for c in choices}, []
    for c in candidates:
        count, name = chosen.get(c.element.name, 0), c.element.name
        full = wanted("grow", replace(c, scores=c.scores[:0]), amount)
        if count and len(c.scores) < c.most and count == offered("grow", c) < full:
            reasons.append(f"{name}: {count} units instead of {full}, as {name_of(method)} has no more to offer")
    return reasons


def nothing_chosen(adaptation: Adaptation, candidates: Sequence[Candidate]) -> str:
    """Why an act changes nothing although there are candidates."""
    sizes = sum(c.element.size for c in candidates)
    return (
        f"nothing to {adaptation.method.kind}: amount {_written(adaptation.units)} over {len(candidates)} elements with {sizes} "
        f"units rounds to 0, or the limit {limit_in_words(adaptation.scope.limit)} is reached (selection "
        f"{type(adaptation.selection).__name__}); raise the amount or the limit"
    )


def _written(amount: Amount) -> str:
    return f"{amount.value:g}" if amount.of == "now" else amount.of if amount.of == "advised" else f"{amount.of} {amount.value:g}"


def limit_in_words(limit: Limit) -> str:
    """`parameters=50000, flops=1e+06`; `none` where nothing is limited."""
    return ", ".join(f"{name}={value:g}" for name, value in vars(limit).items() if value is not None) or "none"


def name_of(method: Method) -> str:
    """What messages call a method: its class."""
    return type(method).__name__


def first_few(skipped: Sequence[str], most: int = 5) -> list[str]:
    """The first few reasons, and how many more there are."""
    rest = len(skipped) - most
    return [*skipped[:most], *([f"... and {rest} more elements"] if rest > 0 else [])]
