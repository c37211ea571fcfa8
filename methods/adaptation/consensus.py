"""What all ranks that train a network do alike in an act of an adaptation: rank 0's elements, draws, choices and plans.

Measurements are sums over all ranks, and still not to be relied on: what each makes of them may differ in the last bit, and where
scores are close that is another choice. A process that is alone passes everything on as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from coppice.methods.method import Context, Measurement
from coppice.methods.plan import Plan, plan_from_bytes, plan_to_bytes
from coppice.methods.ranks import Ranks
from coppice.methods.selection.values import Choice, Permissible


def agree_on_elements(
    context: Context, permissible: list[Permissible], skipped: list[str]
) -> tuple[list[Permissible], list[str]]:
    """Rank 0's elements that may be changed, and its reasons why others may not."""
    if context.ranks.size == 1:
        return permissible, skipped
    elements, reasons = context.ranks.from_rank_0(([(p.element.name, p.most) for p in permissible], skipped))
    return [Permissible(context.network.element(name), most) for name, most in elements], reasons


def agree_on_randomness(context: Context) -> None:
    """Put the random number generator where rank 0's is."""
    if context.ranks.size > 1:
        context.generator.set_state(context.ranks.same({"state": context.generator.get_state()})["state"])


def agree_on_measurement(context: Context, measurement: Measurement) -> Measurement:
    """A measurement of the form of rank 0's: its own where all ranks offer as many units of the same elements, else rank 0's.

    Plans can so be made of it on every rank, which matters where they measure more; rank 0's are carried out.
    """
    ranks, form = context.ranks, _form(measurement)
    if ranks.size == 1 or not ranks.count(int(ranks.from_rank_0(form) != form)):
        return measurement
    names, advised, signals = ranks.from_rank_0(
        ([(e, n, t.is_cpu) for e, n, t in _tensors(measurement)], dict(measurement.advised), dict(measurement.signals))
    )
    numbered = ranks.same({str(i): t for i, (_, _, t) in enumerate(_tensors(measurement))})
    if ranks.rank == 0:
        return measurement
    scores: dict[str, Tensor] = {}
    data: dict[str, dict[str, Tensor]] = {}
    for (element, name, on_cpu), tensor in zip(names, numbered.values(), strict=True):
        placed = tensor.to("cpu" if on_cpu else context.network.device())
        if name is None:
            scores[element] = placed
        else:
            data.setdefault(element, {})[name] = placed
    return Measurement(scores, data, advised, signals)


def _tensors(measurement: Measurement) -> list[tuple[str, str | None, Tensor]]:
    """(element, None, scores) and (element, name of data, tensor)."""
    scores: list[tuple[str, str | None, Tensor]] = [(e, None, t) for e, t in measurement.scores.items()]
    return scores + [(e, name, t) for e, held in measurement.data.items() for name, t in held.items()]


def _form(measurement: Measurement) -> list[list[object]]:
    return [[element, name, list(t.shape), str(t.dtype)] for element, name, t in _tensors(measurement)]


def agree_on_choices(ranks: Ranks, choices: Sequence[Choice]) -> list[Choice]:
    """The choices of rank 0, which all ranks carry out."""
    return [Choice(element, tuple(units)) for element, units in ranks.from_rank_0([(c.element, c.units) for c in choices])]


def agree_on_plans(ranks: Ranks, plans: list[Plan], unplanned: list[str]) -> tuple[list[Plan], list[str]]:
    """Rank 0's plans, on the CPU where there are several ranks, and why there are no others."""
    if ranks.size == 1:
        return plans, unplanned
    packed, reasons = [], list(unplanned)
    for plan in plans if ranks.rank == 0 else ():
        try:
            packed.append(plan_to_bytes(plan))
        except ValueError as error:
            reasons.append(f"{plan.element}: the plan holds numbers that are not finite ({error})")
    count, reasons = ranks.from_rank_0((len(packed), reasons))
    return [plan_from_bytes(ranks.agree(packed[i] if ranks.rank == 0 else b"")) for i in range(count)], reasons
