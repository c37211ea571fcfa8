"""What two ranks do in `test_ranks`: every method of the tables measures, and acts although rank 1 has other opinions."""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from coppice.methods.adaptation.adapt import Adaptation, AdaptResult, adapt
from coppice.methods.adaptation.candidates import Scope, permissible_elements
from coppice.methods.adaptation.signals import measure_signals
from coppice.methods.apply import apply
from coppice.methods.catalog import build
from coppice.methods.growth.senn.output_curvature import reachable
from coppice.methods.measures.statistics import NonFiniteStatistics
from coppice.methods.method import Context, Measurement, Method
from coppice.methods.plan import MaskPlan, Plan
from coppice.methods.ranks import Ranks
from coppice.methods.selection import All, GlobalRanking
from coppice.methods.selection.amount import Amount
from coppice.methods.surgery.check import PlanError
from coppice.testing.examples import mixed
from tests.methods import variants
from tests.methods.growth.test_regrow import sparse
from tests.methods.growth.test_residual_fitting import TestContract as FittingContract
from tests.methods.pruning.test_movement import moved
from tests.support.gates import gated
from tests.support.single_connections import classification, regression

Maker = Callable[[Method], Context]
ROWS = 7
"""Of a batch: two ranks have 4 and 3."""


@cache
def batches() -> list[tuple[Tensor, Tensor]]:
    """Three different batches for networks of the contracts."""
    drawn = torch.Generator().manual_seed(5)
    inputs = torch.randn(3, ROWS, 3, 8, 8, generator=drawn, dtype=torch.float64)
    return [*zip(inputs, torch.randint(4, (3, ROWS), generator=drawn), strict=True)]


def with_data(ctx: Context) -> Context:
    return replace(ctx, batches=lambda count: [batches()[i % 3] for i in range(count)])


def plain(method: Method) -> Context:
    return with_data(mixed(torch.float64))


def connections(method: Method) -> Context:
    return with_data(classification(torch.float64, 0))


def dead(method: Method) -> Context:
    ctx = connections(method)
    mask = ctx.network.masks["weight"].clone()
    mask[0] = False
    apply(ctx.network, MaskPlan({"weight": mask}))
    return ctx


def masked(method: Method) -> Context:
    return with_data(sparse(method, torch.float64))


def fitting(method: Method) -> Context:
    return FittingContract().context(torch.float64)


def small(method: Method) -> Context:
    return regression((3,))


OWN: dict[str, list[tuple[dict[str, Any], Maker]]] = {
    "grow size_weight": [({}, lambda m: gated(plain(m), m))],
    "grow controller": [({"start": 0.9}, lambda m: gated(plain(m), m))],
    "grow half_layer": [
        ({"draws": 3}, connections),
        ({"choice": "schur", "draws": 3, "num_batches": 2, "damping": 0.01}, connections),
    ],
    "grow cascade": [({"steps": 2, "pool": 2, "num_batches": 1}, connections)],
    "grow residual_fitting": [({"steps": 60, "num_batches": 1, "width": 4}, fitting)],
    **{f"grow {name}": [({}, masked)] for name in ("set", "rigl", "snfs", "nest_connections")},
    "prune size_weight": [({"start": 0.3}, lambda m: gated(plain(m), build("grow", "size_weight", vars(m))))],
    "prune controller": [({"start": 0.3}, lambda m: gated(plain(m), build("grow", "controller", vars(m))))],
    "prune dead_neurons": [({}, dead)],
    "prune movement": [({}, lambda m: moved(plain(m)))],
    "prune granet": [({}, plain)],
    "prune obs": [({"curvature": "exact", "num_batches": 1, "tolerance": 1.0, "most": 0.3}, small)],
}


@dataclass(frozen=True)
class Case:
    """A method and what it acts on."""

    kind: str
    name: str
    arguments: dict[str, Any]
    make: Maker

    @property
    def method(self) -> Method:
        return build(self.kind, self.name, self.arguments)

    def context(self, ranks: Ranks) -> Context:
        return replace(self.make(self.method), ranks=ranks)


def all_cases() -> dict[str, Case]:
    found = []
    for kind, table in (("grow", variants.GROWTH), ("prune", variants.PRUNING)):
        found += [Case(kind, name, dict(arguments), plain) for name, arguments in variants.cases(table)]
    for key, made in OWN.items():
        found += [Case(*key.split(), arguments, make) for arguments, make in made]
    for case in found:
        if case.name == "north":
            case.arguments["threshold"] = 0.08  # effective ranks of all samples and of half of them differ
    return {f"{c.kind} {c.name} {c.arguments or ''}".strip(): c for c in found}


METHODS = all_cases()
ADVISED = ("residual_fitting", "obs", "one_synapse", "size_weight", "controller")
PLANS = ("north", "nest", "tiny")
"""Methods that measure more when they plan."""


def measured(case: Case, ranks: Ranks) -> dict[str, Any]:
    """Everything that a method measures, flat."""
    ctx, method = case.context(ranks), case.method
    permissible = permissible_elements(ctx, method, Scope())[0]
    found = method.measure(ctx, [p.element for p in permissible], {p.element.name: p.most for p in permissible})
    plans = [
        method.plan(ctx, p.element, range(2), found)
        for p in permissible
        if case.name in PLANS and p.element.name in found.scores
    ]
    return {
        "elements": [p.element.name for p in permissible],
        "advised": dict(found.advised),
        "signals": dict(found.signals),
        "tensors": {f"scores/{n}": t for n, t in found.scores.items()}
        | {f"{e}/{n}": t for (e, n), t in _once(found.data).items()}
        | {f"plan of {p.element}/{n}": t for p in plans for n, t in p.values.items()},
    }


def _once(data: Mapping[str, Mapping[str, Tensor]]) -> dict[tuple[str, str], Tensor]:
    """What is measured of several elements together is here for the first of them."""
    found = {id(t): ((e, n), t) for e, held in reversed(data.items()) for n, t in reversed(held.items())}
    return dict(reversed(found.values()))


def disagreeing(method: Method, ranks: Ranks, how: str = "turned") -> Method:
    """The method, but on rank 1 about everything is another way.

    Args:
        method: which.
        ranks: where.
        how: what is measured there is `turned` around, is missing for the first element (`forgets`), or is not finite (`fails`).
    """
    if ranks.rank == 0:
        return method
    own = type(method)

    def accepts(self, context, element) -> str | None:
        return own.accepts(self, context, element) or ("no" if _odd(element.name) else None)

    def measure(self, context, elements, most) -> Measurement:
        found = own.measure(self, context, elements, most)
        torch.rand(3, generator=context.generator)
        if how == "fails":
            raise NonFiniteStatistics("here alone")
        return _without_first(found) if how == "forgets" else _all_turned(found)

    def plan(self, context, element, units, measurement) -> Plan:
        made = own.plan(self, context, element, units, measurement)
        if _odd(element.name):
            raise PlanError("not here")
        return made

    changed = {"accepts": accepts, "measure": measure, "plan": plan, "promises": lambda self: not own.promises(self)}
    return type(own.__name__, (own,), changed)(**{f.name: getattr(method, f.name) for f in fields(method)})


def _odd(name: str) -> bool:
    return bool(zlib.crc32(name.encode()) % 2)


def _without_first(found: Measurement) -> Measurement:
    first = next(iter(found.scores), None)
    scores, data = ({n: t for n, t in d.items() if n != first} for d in (found.scores, found.data))
    return replace(found, scores=scores, data=data, advised={n: 9 for n in found.advised if n != first})


def _all_turned(found: Measurement) -> Measurement:
    return replace(
        found,
        scores={n: -t.flip(0) + torch.rand(len(t)) for n, t in found.scores.items()},
        data={e: {n: _turned(t) for n, t in held.items()} for e, held in found.data.items()},
        advised={n: count + 1 for n, count in found.advised.items()},
    )


def _turned(tensor: Tensor) -> Tensor:
    return tensor * 1.5 + 0.1 if tensor.is_floating_point() else tensor


def told(ctx: Context, result: AdaptResult) -> dict[str, Any]:
    network = ctx.network
    return {
        "tensors": {**network.module.state_dict(), **{f"mask {n}": m for n, m in network.masks.items()}},
        "companion": {} if ctx.companion is None else ctx.companion.tensors(),
        "events": [(e.kind, e.element, e.count, e.units, e.size_after) for e in result.events],
        "skipped": list(result.skipped),
    }


def acted(case: Case, ranks: Ranks, how: str = "turned") -> dict[str, Any]:
    """The network after an act in which rank 1 would choose and plan something else."""
    ctx = case.context(ranks)
    torch.manual_seed(ranks.rank)
    if ranks.rank:
        ctx.generator.manual_seed(99)
    method = disagreeing(case.method, ranks, how)
    whole = set(method.levels) <= {"layer", "block", "insertion"}
    amount = Amount(0, "advised") if case.name in ADVISED else Amount(1 if whole else 0.3)
    selection = GlobalRanking() if method.kind == "prune" and not whole else All()
    followers = [] if ctx.companion is None else [ctx.companion]
    return told(ctx, adapt(ctx, Adaptation(method, selection, amount), followers))


def blown(case: Case, ranks: Ranks) -> dict[str, Any]:
    """The network after an act in which only rank 1 has data that are not finite."""
    ctx = case.context(ranks)
    held = [(x.clone(), y) for x, y in ctx.batches(2)]
    for x, _ in held:
        x[-1] = float("nan")
    ctx = replace(ctx, batches=lambda count: [held[i % 2] for i in range(count)])
    return told(ctx, adapt(ctx, Adaptation(case.method, All(), 0.3)))


def signals(ranks: Ranks) -> dict[str, float]:
    ctx, method = replace(plain(None), ranks=ranks), build("grow", "gradmax", {})
    found = measure_signals(ctx, method, Scope(), ("scores", "train_accuracy", "effective_rank"))
    real = replace(ctx, batches=lambda n: [(x, x.flatten(1)[:, :4]) for x, _ in ctx.batches(n)])
    return {**found, **measure_signals(real, method, Scope(), ("train_accuracy",)), "reachable": reachable(ctx, 2)}


FEW = ("gradmax", "tiny", "splitting", "firefly")
CASES: dict[str, Callable[[Ranks], Any]] = {
    **{f"measured {name}": partial(measured, case) for name, case in METHODS.items()},
    **{f"acted {name}": partial(acted, case) for name, case in METHODS.items()},
    **{f"blown {name}": partial(blown, case) for name, case in METHODS.items()},
    **{f"{how} {n}": partial(acted, METHODS[f"grow {n}"], how=how) for how in ("forgets", "fails") for n in FEW},
    "signals": signals,
}
