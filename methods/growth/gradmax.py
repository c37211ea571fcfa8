"""GradMax: new units that get the largest gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from methods.graph.values import Element, Occurrence
from methods.growth.moments import Layer, cross_moment, is_layer, patches
from methods.growth.random import has_batch_norm
from methods.method import Context, Measurement, Method, parameter
from methods.plan import GrowPlan
from methods.statistics import Seen, observe, require_finite


@dataclass(frozen=True)
class GradMax(Method):
    """Top singular directions of A = E[dL/dz_out h_in^T] (Evci et al. 2022, eq. 8-11; exact convolution form).

    With zero fan-in the fan-out of unit i is the i-th right singular vector, and the gradient of its fan-in has norm
    sigma_i times the fan-out's norm. That needs an activation with f(0) = 0 and f'(0) != 0 and no BatchNorm between: `nn.ReLU`
    has derivative 0 at 0, so its units would be dead for ever, and BatchNorm would multiply the gradient by 1/sqrt(eps).
    There the zero goes to the fan-out, which preserves the function for everything, and the fan-in is the left singular
    vector (sign chosen so that ReLU passes it on average): ours, not the paper's, which trains it by GradMax-Opt.
    """

    kind = "grow"
    levels = ("channel",)
    paper = "Evci et al. 2022, GradMax (arXiv 2201.05125), eq. 8-11; zero fan-out side: ours"
    preserves = True
    batch_norm = "zero fan-out before BatchNorm, never zero fan-in"

    scale: float = parameter(0.5, "norm of the non-zero side, relative to the mean norm of existing units", low=0.05, high=2.0, log=True)
    placement: str = parameter("auto", "which side is zero", choices=("auto", "fan_in_zero", "fan_out_zero"))
    batches: int = parameter(1, "batches of training data that are measured", low=1, high=64)

    def accepts(self, context: Context, element: Element) -> str | None:
        """As every method; one Linear or ungrouped Conv2d must make the units, and such layers must take them."""
        return super().accepts(context, element) or _why_not(context, element)

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Squared singular values of each element's moment: first-order decrease per unit step of a unit-norm unit."""
        paths = {e.name: _path(context, e) for e in elements}
        sums: dict[str, list[Tensor]] = {}
        means: dict[str, Tensor] = {}
        num = 0

        def add(seen: dict[str, Seen], size: int) -> None:
            nonlocal num
            num += size
            for name, (producer, consumers) in paths.items():
                parts = [_part(context, producer, consumer, seen) for consumer in consumers]
                sums[name] = [a + b for a, b in zip(sums[name], parts, strict=True)] if name in sums else parts
                mean = patches(_layer(context, producer), seen[_owner(producer)].input).flatten(2).mean((0, 2)) * size
                means[name] = means.get(name, 0) + mean

        names = sorted({_owner(o) for p, cs in paths.values() for o in (p, *cs)})
        observe(context, names, add, self.batches)
        scores, data = {}, {}
        for name, parts in sums.items():
            moment = torch.cat(parts, 1) / num
            require_finite(f"the gradient moment of {name}", moment)
            left, sigma, right = torch.linalg.svd(moment, full_matrices=False)
            k = min(most[name], len(sigma))
            scores[name] = sigma[:k].square().cpu()
            sign = torch.where(left[:, :k].T @ means[name] < 0, -1.0, 1.0)[:, None]
            data[name] = {"left": left[:, :k].T * sign, "right": right[:k], "widths": torch.tensor([p.shape[1] for p in parts])}
        return Measurement(scores, data)

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> GrowPlan:
        """The directions with the largest singular values; the non-zero side has `scale` times the mean norm."""
        producer, consumers = _path(context, element)
        data = measurement.data[element.name]
        count = min(len(units), len(data["right"]))
        seed = int(torch.randint(2**62, (), generator=context.generator))
        gain = float(measurement.scores[element.name][:count].sum())
        values = {}
        if self._zero_fan_in(context, element):
            values[_key(producer)] = torch.zeros_like(_slices(context, producer, count))
            pieces = data["right"][:count].split(data["widths"].tolist(), 1)
            for consumer, piece in zip(consumers, pieces, strict=True):
                values[_key(consumer)] = self._scaled(context, consumer, piece, count)
        else:
            values[_key(producer)] = self._scaled(context, producer, data["left"][:count], count)
        return GrowPlan(element.name, count, values=values, consume="zero", seed=seed, predicted_gain=gain)

    def _zero_fan_in(self, context: Context, element: Element) -> bool:
        if self.placement != "auto":
            return self.placement == "fan_in_zero"
        return not has_batch_norm(context, element) and _alive_at_zero(context, element)

    def _scaled(self, context: Context, o: Occurrence, rows: Tensor, count: int) -> Tensor:
        """Unit rows (count, entries of one unit) as slices of the tensor, at `scale` times the mean norm of existing units."""
        weight = _weight(context, o)
        per_unit = weight.movedim(o.dim, 0).reshape(_units(context, o), -1)
        norm = self.scale * float(per_unit.norm(dim=1).mean())
        rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12) * norm
        return _shaped(rows, weight, o, count)


def _owner(o: Occurrence) -> str:
    return o.tensor.rpartition(".")[0]


def _key(o: Occurrence) -> str:
    return f"{o.tensor}:{o.dim}"


def _layer(context: Context, o: Occurrence) -> Layer:
    return cast(Layer, context.network.module.get_submodule(_owner(o)))


def _weight(context: Context, o: Occurrence) -> Tensor:
    return cast(Tensor, _layer(context, o).weight).detach()


def _units(context: Context, o: Occurrence) -> int:
    """Number of units in the dimension: its size, or that of the atom when every unit has several entries (flattened maps)."""
    weight = _weight(context, o)
    pieces = _pieces(context, o)
    return weight.shape[o.dim] // pieces


def _pieces(context: Context, o: Occurrence) -> int:
    from methods.graph.expr import atom_names, walk

    (atom,) = atom_names(o.expr)
    size = next(e.size for e in walk(o.expr) if getattr(e, "name", None) == atom)
    return o.expr.size // size


def _shaped(rows: Tensor, weight: Tensor, o: Occurrence, count: int) -> Tensor:
    if o.role == "produce":
        return rows.reshape(count, *weight.shape[1:])
    out = weight.shape[0]
    if weight.ndim == 4:
        return rows.reshape(count, out, *weight.shape[2:]).movedim(0, 1)
    return rows.reshape(count, out, -1).movedim(1, 0).reshape(out, -1)


def _slices(context: Context, o: Occurrence, count: int) -> Tensor:
    return _weight(context, o).new_zeros(count, *_weight(context, o).shape[1:])


def _path(context: Context, element: Element) -> tuple[Occurrence, list[Occurrence]]:
    occurrences = context.network.graph().atoms[element.moves[0].atom].occurrences
    return next(o for o in occurrences if o.role == "produce"), [o for o in occurrences if o.role == "consume"]


def _why_not(context: Context, element: Element) -> str | None:
    if element.joint:
        return "several atoms move together"
    info = context.network.graph().atoms[element.moves[0].atom]
    producers = [o for o in info.occurrences if o.role == "produce"]
    consumers = [o for o in info.occurrences if o.role == "consume"]
    if len(producers) != 1:
        return f"one layer must make the units, but {len(producers)} do"
    if not consumers:
        return "no layer takes the units by a weight"
    for o in (*producers, *consumers):
        if not o.tensor.endswith(".weight") or not is_layer(context.network.module.get_submodule(_owner(o))):
            return f"{o.tensor} must belong to a Linear or an ungrouped Conv2d"
    if producers[0].expr.size != element.size:
        return "the units are only a part of what their layer makes"
    if any(o.expr.size % element.size or (o.expr.size != element.size and _weight(context, o).ndim == 4) for o in consumers):
        return "the units are only a part of what a layer takes"
    calls = context.network.graph().modules
    if any(calls[_owner(o)].calls != 1 for o in (*producers, *consumers) if _owner(o) in calls):
        return "a layer is called several times"
    return None


def _part(context: Context, producer: Occurrence, consumer: Occurrence, seen: Mapping[str, Seen]) -> Tensor:
    before, after = seen[_owner(producer)], seen[_owner(consumer)]
    gradient = torch.zeros_like(after.output) if after.gradient is None else after.gradient
    return cross_moment(
        _layer(context, producer), _layer(context, consumer), before.input, -gradient, after.input, _pieces(context, consumer)
    )


def _alive_at_zero(context: Context, element: Element) -> bool:
    """Whether a unit at zero passes a gradient on: tried on a copy that has one more unit with zero fan-in."""
    import copy

    from methods.surgery.resize import resize, widening

    clone = copy.deepcopy(context.network.module)
    producer, _ = _path(context, element)
    plan = GrowPlan(element.name, 1, produce="zero", consume="kaiming", seed=0)
    resize(clone, context.network.graph(), [widening(element, plan)])
    clone.eval()
    weight = cast(Tensor, clone.get_submodule(_owner(producer)).weight)
    inputs, targets = next(iter(context.batches(1)))
    with torch.random.fork_rng(devices=[]):
        (gradient,) = torch.autograd.grad(context.loss(clone(inputs), targets), [weight])
    return bool(gradient[-1].abs().max() > 0)
