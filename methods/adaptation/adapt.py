"""One act of an adaptation: candidates, measurement, choice, plans, changes; and for what was not done, the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from coppice.methods.adaptation.candidates import Scope, candidates_of, headroom, permissible_elements
from coppice.methods.adaptation.consensus import agree_on_choices, agree_on_plans, agree_on_randomness
from coppice.methods.adaptation.pending_plans import PendingPlans
from coppice.methods.adaptation.reasons import first_few, limit_in_words, name_of, nothing_chosen, short_of
from coppice.methods.adaptation.reuse import Measured
from coppice.methods.apply import apply
from coppice.methods.event import Event
from coppice.methods.measures.cost import flops
from coppice.methods.measures.statistics import NonFiniteStatistics
from coppice.methods.method import Context, Measurement, Method
from coppice.methods.network import Network
from coppice.methods.plan import Plan
from coppice.methods.selection.amount import Amount
from coppice.methods.selection.values import Candidate, Choice, Limit, Permissible, Selection
from coppice.methods.surgery.changes import Follower
from coppice.methods.surgery.check import PlanError


@dataclass(frozen=True)
class AdaptResult:
    """What happened: events of changes, and reasons for what was skipped."""

    events: tuple[Event, ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class Adaptation:
    """How, where, how much and what of: everything that one act of an adaptation needs beside the network.

    Attributes:
        method: how.
        selection: where and how many.
        amount: how many; a number is `Amount(number)`.
        scope: what may be touched.
    """

    method: Method
    selection: Selection
    amount: Amount | float
    scope: Scope = field(default_factory=Scope)

    @property
    def units(self) -> Amount:
        """The amount, whichever way it is given."""
        return self.amount if isinstance(self.amount, Amount) else Amount(self.amount)


def adapt(
    context: Context,
    adaptation: Adaptation,
    followers: Sequence[Follower] = (),
    *,
    turn: int = 0,
    defer: Callable[[Plan], bool] | None = None,
    measured: Measured | None = None,
) -> AdaptResult:
    """Let one adaptation act once.

    Where several ranks train the network, all call this alike: each measures its share of the data, and all carry out what rank 0
    has chosen, planned and accepted. Order is deterministic: candidates in the order of the network's elements, changes in the
    order of the selection.

    Args:
        context: the network and the data to measure on.
        adaptation: how, where, how much, and of which elements.
        followers: what `apply` resizes with the network.
        turn: how often this adaptation has acted before.
        defer: is offered every plan; returns True for one that it will carry out later itself.
        measured: what the method measured since weights were last trained; used where it is still valid.
    """
    method, scope, ranks = adaptation.method, adaptation.scope, context.ranks
    permissible, skipped = permissible_elements(context, method, scope)
    if not permissible:
        nothing = f"nothing to {method.kind}: no element is permissible for {name_of(method)}"
        return AdaptResult((), (*first_few(skipped), nothing))
    try:
        measurement = _measurement(context, method, permissible, measured)
    except NonFiniteStatistics as error:
        return AdaptResult((), (ranks.from_rank_0(f"{method.kind} skipped: {error}"),))
    candidates = candidates_of(context, method, permissible, measurement, scope, adaptation.selection.needs_latency)
    choices = agree_on_choices(ranks, _choices(context, adaptation, candidates, turn))
    if not choices:
        names = [p.element.name for p in permissible if p.element.name not in measurement.scores]
        skipped = [*skipped, *(f"{name}: {name_of(method)} has nothing to offer" for name in names)]
        return AdaptResult((), (*first_few(skipped), nothing_chosen(adaptation, candidates)))
    agree_on_randomness(context)
    plans, unplanned = agree_on_plans(ranks, *_plans(context, method, choices, measurement))
    now = [p for p in plans if defer is None or not defer(p)]
    events, failed = _apply_all(context, method, now, followers, scope.limit)
    reasons = [*short_of(adaptation, candidates, choices), *unplanned, *failed]
    return AdaptResult(tuple(events), tuple(ranks.from_rank_0(reasons)))


def _measurement(
    context: Context, method: Method, permissible: Sequence[Permissible], measured: Measured | None
) -> Measurement:
    """What was measured before, where it is still valid on all ranks; else a new measurement."""
    valid = measured is not None and measured.still_valid(context.network, permissible)
    valid = context.ranks.count(int(valid)) == context.ranks.size
    return (measured if measured and valid else Measured.measure(context, method, permissible)).measurement


def _choices(context: Context, adaptation: Adaptation, candidates: Sequence[Candidate], turn: int) -> list[Choice]:
    limit = headroom(context, adaptation.method, adaptation.scope)
    return adaptation.selection.choose(adaptation.method.kind, candidates, adaptation.units, limit, turn)


def _plans(context: Context, method: Method, choices: Sequence[Choice], measurement: Measurement) -> tuple[list[Plan], list[str]]:
    """A plan for every choice, and why there is none for some."""
    plans, unplanned = [], []
    for c in choices:
        try:
            plans.append(method.plan(context, context.network.element(c.element), c.units, measurement))
        except (PlanError, NonFiniteStatistics) as error:
            unplanned.append(f"{c.element}: {error}")
    return plans, unplanned



def _apply_all(
    context: Context, method: Method, plans: Sequence[Plan], followers: Sequence[Follower], limit: Limit
) -> tuple[list[Event], list[str]]:
    """Carry out plans for the same network one after the other.

    Those that would break the limit, or the method's promise to keep the function, are rolled back.
    """

    def accept(event: Event) -> bool:
        keeps = not _broken(context.network, method, event) and _within(context.network, method.kind, limit, event)
        return context.ranks.from_rank_0(keeps)

    pending = PendingPlans(plans)
    events: list[Event] = []
    failed: list[str] = []
    while (plan := pending.next()) is not None:
        try:
            event = apply(context.network, plan, [*followers, pending], _certify(context), accept)
        except PlanError as error:
            earlier = f"{plan.element} does not fit any more after an earlier change of the same step: {error}"
            failed.append(earlier if events else str(error))
            continue
        if event.accepted:
            events.append(event)
        else:
            limited = f"with the changes before it, it would break the limit {limit_in_words(limit)}"
            why = _broken(context.network, method, event) or limited
            failed.append(f"{event.element}: {why}; rolled back")
    return events, failed


PROMISED = 1e-3
"""Largest relative change of the function by a plan that promises none, where rounding is smaller."""


def _broken(network: Network, method: Method, event: Event) -> str | None:
    """Why an event is not what its method promised; None when it is."""
    change, scale = event.function_change, event.function_scale
    if not method.promises() or change is None or scale is None:
        return None
    rounding = max((16 * torch.finfo(p.dtype).eps for p in network.module.parameters() if p.is_floating_point()), default=0.0)
    if change <= max(PROMISED, rounding) * max(scale, 1e-30):
        return None
    return f"{name_of(method)} promises to keep the function, but it would change by {change:.3g} (outputs up to {scale:.3g})"


def _within(network: Network, kind: str, limit: Limit, event: Event) -> bool:
    """Whether the changed network keeps the limit: growth may not exceed it, pruning may not go below it."""
    sign = 1.0 if kind == "grow" else -1.0
    if limit.parameters is not None and sign * event.parameters_after > sign * limit.parameters:
        return False
    return limit.flops is None or sign * flops(network.module, network.example_inputs) <= sign * limit.flops




def _certify(context: Context) -> Tensor:
    return next(iter(context.batches(1)))[0]
