"""The only door through which a network changes: checks, applies, certifies, and rolls back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from coppice.methods.event import Event
from coppice.methods.graph.outputs import Returned
from coppice.methods.graph.values import Element
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan, InsertPlan, MaskPlan, Plan, PrunePlan, RemovePlan
from coppice.methods.surgery.carry_out import carry_out, resized_dimensions
from coppice.methods.surgery.changes import Follower
from coppice.methods.surgery.check import PlanError, check
from coppice.methods.surgery.coverage import Coverage
from coppice.methods.surgery.gradients import GradientFollower
from coppice.methods.surgery.running import CANNOT_RUN, failure, modes_that_run, told_by_us, where
from coppice.methods.surgery.verdicts import settle

KINDS = {GrowPlan: "grow", PrunePlan: "prune", InsertPlan: "insert", RemovePlan: "remove", MaskPlan: "mask"}


def apply(
    network: Network,
    plan: Plan,
    followers: Sequence[Follower] = (),
    certify: Any = None,
    accept: Callable[[Event], bool] | None = None,
) -> Event:
    """Change `network` as `plan` says.

    Args:
        network: changed in place.
        plan: what will change; checked against the network before anything is touched.
        followers: optimizers and averages that must change with it.
        certify: a batch of inputs (a tensor, or a tuple of positional arguments) on which the change of the function is measured.
        accept: decides on the event; where it returns False everything is rolled back, bit by bit.

    Returns:
        What changed. `accepted` is False when it was rolled back.

    Raises:
        PlanError: the plan does not fit the network, or the forward does not run after the change in some mode in which it ran
            before; the network is as before.
        RuntimeError: the optimizers that follow do not fit the network, or after the change some parameter would not be trained
            any more; everything is as before.
    """
    if any(e.name == plan.element and e.doubt is not None for e in network.elements()):
        settle(network)
    check(network, plan)
    modes = {} if isinstance(plan, MaskPlan) else modes_that_run(network)
    element = None if isinstance(plan, MaskPlan) else network.element(plan.element)
    gradients = GradientFollower(network.module)
    followers = [*followers, gradients]
    coverage = Coverage.before(network.module, followers)
    for follower in followers:
        follower.prepare(resized_dimensions(network, plan))
    snapshot = Snapshot.take(network, followers)
    measured = None if certify is None else _returned(network.module, certify)
    before = _Before(element, network.num_parameters(), measured, time.perf_counter())
    try:
        with torch.random.fork_rng(devices=[]):
            _carry_out(network, plan, followers)
        if (failed := failure(network, modes)) is not None:
            raise PlanError(f"{plan.element} must be able to change alone, but then the forward does not run {failed}.")
        notes = [note for follower in followers for note in follower.finish()] + coverage.notes(network.module)
        coverage.check(network.module, followers)
        after = None if certify is None else _returned(network.module, certify)
        event = replace(_event(network, plan, before, after), gradients=gradients.outcome, notes=tuple(notes))
        if accept is not None and not accept(event):
            event = replace(event, accepted=False, reason="rejected by the caller")
    except BaseException:
        snapshot.restore(network, followers)
        raise
    if event.accepted:
        network.lineage.append(event.to_json())
    else:
        snapshot.restore(network, followers)
    return event


def _carry_out(network: Network, plan: Plan, followers: Sequence[Follower]) -> None:
    """Carry out a plan; what goes wrong on the way is a plan that does not fit."""
    try:
        carry_out(network, plan, followers)
    except CANNOT_RUN as error:
        if told_by_us(error):
            raise
        raise PlanError(f"{plan.element} cannot change as planned: it fails {where(error)}.") from error


def outputs(module: nn.Module, inputs: Any) -> list[Tensor]:
    """The tensors that the module returns for `inputs`, in eval mode and the parameters' own precision.

    They may be in containers, mappings, dataclasses and other objects; floating-point and complex ones, or whole numbers where
    there are no others. Modes and the RNG are put back.

    Raises:
        ValueError: the module returns nothing that can be compared.
    """
    return _returned(module, inputs).results


@torch.no_grad()
def _returned(module: nn.Module, inputs: Any) -> Returned:
    modes = [(m, m.training) for m in module.modules()]
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    kinds = {p.device.type for p in module.parameters()} or {"cpu"}
    with torch.random.fork_rng(devices=[]), ExitStack() as precision:
        for kind in kinds:
            precision.enter_context(torch.autocast(kind, enabled=False))
        module.eval()
        try:
            output = module(*arguments)
        finally:
            for submodule, training in modes:
                submodule.training = training
    return Returned.of(output)


def predicted(plan: Plan) -> float | None:
    """Gain or loss that the plan's method predicted."""
    if isinstance(plan, (GrowPlan, InsertPlan)):
        return plan.predicted_gain
    if isinstance(plan, MaskPlan) and plan.predicted_gain is not None:
        return plan.predicted_gain
    return plan.predicted_loss


@dataclass(frozen=True)
class _Before:
    """What is known before the change."""

    element: Element | None
    num_parameters: int
    outputs: Returned | None
    seconds: float


def _event(network: Network, plan: Plan, before: _Before, after: Returned | None) -> Event:
    change, scale = _differences(before.outputs, after)
    count, size, size_after, units = _sizes(plan, before.element)
    return Event(
        kind=KINDS[type(plan)],
        element=plan.element,
        level="weight" if before.element is None else before.element.level,
        count=count,
        size_before=size,
        size_after=size_after,
        units=units,
        parameters_before=before.num_parameters,
        parameters_after=network.num_parameters(),
        function_change=change,
        function_scale=scale,
        predicted=predicted(plan),
        seconds=time.perf_counter() - before.seconds,
    )


def _differences(before: Returned | None, after: Returned | None) -> tuple[float | None, float | None]:
    """max |after - before| and max |before|; None where nothing was measured, where shapes changed or where it is not finite."""
    found = None if before is None or after is None else after.differences(before)
    change, scale = found or (math.nan, math.nan)
    return change if math.isfinite(change) else None, scale if math.isfinite(scale) else None


def _sizes(plan: Plan, element: Element | None) -> tuple[int, int, int, tuple[int, ...]]:
    """Count, size before, size after, removed units."""
    if isinstance(plan, MaskPlan):
        size, kept = sum(m.numel() for m in plan.masks.values()), sum(int(m.sum()) for m in plan.masks.values())
        return size - kept, size, kept, ()
    assert element is not None, "every other plan names an element, which was checked"
    if isinstance(plan, GrowPlan):
        return plan.count, element.size, element.size + plan.count, ()
    if isinstance(plan, PrunePlan):
        return len(plan.units), element.size, element.size - len(plan.units), tuple(plan.units)
    return 1, element.size, 0 if isinstance(plan, RemovePlan) else element.size, ()


@dataclass(frozen=True)
class Snapshot:
    """Everything that a change may touch, to come back to it bit by bit."""

    tensors: dict[int, tuple[nn.Parameter, Tensor]]
    modules: list[tuple[nn.Module, dict[str, Any]]]
    record: dict[str, Any]
    followers: list[Any]

    @staticmethod
    def take(network: Network, followers: Sequence[Follower]) -> Snapshot:
        """Remember a network and its followers."""
        parameters = {id(p): (p, p.detach().clone()) for p in network.module.parameters()}
        modules = [(m, _table(m)) for m in network.module.modules()]
        record = {
            "edits": list(network.edits), "attributes": dict(network.attributes), "masks": dict(network.masks),
            "lineage": list(network.lineage),
        }
        return Snapshot(parameters, modules, record, [f.snapshot() for f in followers])

    def restore(self, network: Network, followers: Sequence[Follower]) -> None:
        """Put the network and its followers back to the moment of `take`."""
        for module, table in self.modules:
            module.__dict__.clear()
            module.__dict__.update(table | {k: dict(v) for k, v in table.items() if k in _TABLES})
        with torch.no_grad():
            for parameter, value in self.tensors.values():
                parameter.grad = None
                parameter.set_(value)  # type: ignore[call-overload]
        network.edits, network.attributes = list(self.record["edits"]), dict(self.record["attributes"])
        network.masks, network.lineage = dict(self.record["masks"]), list(self.record["lineage"])
        network.changed()
        for follower, saved in zip(followers, self.followers, strict=True):
            follower.restore(saved)


_TABLES = ("_parameters", "_modules", "_buffers")


def _table(module: nn.Module) -> dict[str, Any]:
    """A module's attributes; its tables are copied, its buffers cloned."""
    table = dict(module.__dict__)
    table["_parameters"] = dict(module._parameters)
    table["_modules"] = dict(module._modules)
    table["_buffers"] = {n: None if b is None else b.clone() for n, b in module._buffers.items()}
    return {k: (type(v)(v) if k.endswith("_hooks") and hasattr(v, "copy") else v) for k, v in table.items()}
