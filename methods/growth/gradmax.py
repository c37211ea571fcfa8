"""New units that get the largest possible gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from methods.graph.values import Element
from methods.growth.cross_moment import cross_moment, fan_out_gradient
from methods.growth.site import Site, at_zero, find_site, pull_back, through
from methods.method import Context, Measurement, Method, parameter
from methods.plan import GrowPlan
from methods.statistics import Seen, observe, require_finite

_EPSILON = 1e-3


@dataclass(frozen=True)
class GradMax(Method):
    """Sets new weights to singular vectors of A = E[gradient behind x input before], so that the new gradients are largest.

    `zero: fan_in` is the paper's: outgoing weights are the top singular vectors on the gradient's side, incoming ones are zero,
    and the gradient of new unit i has norm sigma_i times the norm of its outgoing weights. It needs a path between the two
    layers that is 0 at 0 and linear there (not ReLU, whose derivative at 0 is 0: such units would be dead for ever) and no
    BatchNorm (which would multiply the gradient by 1/sqrt(eps)). `zero: fan_out` is the inverse: incoming weights are the
    singular vectors on the input's side with the largest gradients through the real activation, both signs tried (better
    than chance, but no maximum: there is no closed form); outgoing ones are zero. `auto` takes fan_in where it is sound, else
    fan_out.

    Scores are squared gradient norms of the new units: the first-order decrease of the loss for a unit learning rate, comparable
    across layers. At most rank(A) units are offered.
    """

    kind = "grow"
    levels = ("channel",)
    why = "new units whose gradients, and so the first decrease of the loss, are as large as possible"
    paper = "Evci et al. 2022, GradMax, eq. 8-11 and appendix B for convolutions (arXiv 2201.05125)"
    preserves = True
    batch_norm = "new rows are scale 1, shift 0, mean 0, variance 1; the zero side is always the fan-out"
    cost = "one forward, one backward and a singular value decomposition per element and batch"

    scale: float = parameter(0.5, "norm of a new unit's non-zero weights", low=1e-3, high=10.0, log=True)
    norm: str = parameter(
        "mean_norm", "scale times the mean norm of the existing units' weights, or scale itself", choices=("mean_norm", "fixed")
    )
    zero: str = parameter("auto", "which side of the new units is zero", choices=("auto", "fan_in", "fan_out"))
    num_batches: int = parameter(1, "batches that A is taken over", low=1, high=1000)

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element)
        if reason is not None:
            return reason
        if element.grow != "exact":
            return "new units would change the function"
        site = find_site(context.network, element)
        if isinstance(site, str):
            return site
        return self._why_not_fan_in(context, site) if self.zero == "fan_in" else None

    def _why_not_fan_in(self, context: Context, site: Site) -> str | None:
        if site.batch_norm is not None:
            return f"BatchNorm {site.batch_norm} would multiply the gradient of zero fan-in by 1/sqrt(eps)"
        inputs, _ = next(iter(context.batches(1)))
        return at_zero(context.network, site, inputs).reason

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Singular vectors, and the squared gradient norms that new units will get."""
        scores, data = {}, {}
        for element in elements:
            site = find_site(context.network, element)
            assert isinstance(site, Site), "accepted before"
            fan_in_zero = self.zero != "fan_out" and self._why_not_fan_in(context, site) is None
            task = _Task(context, site, self.num_batches)
            moment = task.moment(fan_in_zero)
            require_finite(f"the cross moment of {element.name}", moment)
            found = task.fan_in_zero(moment, self) if fan_in_zero else task.fan_out_zero(moment, self, most[element.name])
            require_finite(f"the gradients of new units of {element.name}", found["gains"])
            scores[element.name], data[element.name] = found["gains"], found
        return Measurement(scores, data)

    def length(self, weight: Tensor, dim: int) -> float:
        """Norm of the non-zero weights of a new unit, which lie along the other dimensions of `weight`."""
        if self.norm == "fixed":
            return self.scale
        return self.scale * float(weight.detach().movedim(dim, 0).flatten(1).norm(dim=1).mean())

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> GrowPlan:
        """See `Method.plan`."""
        site = find_site(context.network, element)
        assert isinstance(site, Site), "accepted before"
        data, chosen = measurement.data[element.name], torch.tensor(list(units))
        gain = float(data["gains"][chosen].sum())
        plan = GrowPlan(element.name, len(units), produce="zero", consume="zero", predicted_gain=gain)
        if "rows" in data:
            return replace(plan, values={f"{site.producer}.weight:0": data["rows"][chosen]})
        return replace(plan, values={f"{site.consumer}.weight:1": _columns(data["columns"][chosen], site)})


def _columns(columns: Tensor, site: Site) -> Tensor:
    """[units, out, taps or kernel] -> new slices of the consumer's weight along its dimension 1."""
    moved = columns.movedim(0, 1)
    return moved.flatten(1) if columns.dim() == 3 else moved


@dataclass(frozen=True)
class _Task:
    """Measures one site."""

    context: Context
    site: Site
    num_batches: int

    def moment(self, exact: bool) -> Tensor:
        """A, the mean over samples, float64 on the CPU.

        Args:
            exact: linearise the path at 0; else near 0 at a random point, where ReLU and max-pooling have a derivative.
        """
        network, site = self.context.network, self.site
        total: list[Tensor] = []

        def use(seen: dict[str, Seen], inputs: Tensor) -> None:
            gradient = seen[site.consumer].gradient
            assert gradient is not None, "the loss depends on the consumer"
            base = torch.zeros_like(seen[site.entry].output)
            if not exact:
                generator = torch.Generator().manual_seed(0)
                base = (torch.randn(base.shape, generator=generator) * _EPSILON).to(base)
            pull = pull_back(network, site, inputs, base)
            before, behind = seen[site.producer].input, seen[site.consumer].input
            total.append(cross_moment(network, site, before, gradient, behind.shape, pull).double().cpu())
            total[:] = [total[0] + total[1]] if len(total) > 1 else total

        samples = observe(self.context, [*{site.producer, site.entry}, site.consumer], use, self.num_batches)
        return total[0] / samples

    def fan_in_zero(self, moment: Tensor, method: GradMax) -> dict[str, Tensor]:
        """The paper's placement."""
        weight = self.context.network.module.get_submodule(self.site.consumer).weight
        assert isinstance(weight, Tensor)
        _, sigma, right = torch.linalg.svd(moment, full_matrices=False)
        kept = sigma > sigma[:1] * 1e-7
        length = method.length(weight if weight.dim() > 2 else weight.unflatten(1, (-1, self.site.taps)), 1)
        shape = (-1, len(weight), self.site.taps) if weight.dim() == 2 else (-1, len(weight), *weight.shape[2:])
        columns = (right[kept] * length).reshape(shape).to(weight.dtype)
        return {"gains": (sigma[kept] * length).square(), "sigma": sigma[kept], "columns": columns}

    def fan_out_zero(self, moment: Tensor, method: GradMax, most: int) -> dict[str, Tensor]:
        """The inverse placement: directions from A, signs and scores from the gradients themselves."""
        weight = self.context.network.module.get_submodule(self.site.producer).weight
        assert isinstance(weight, Tensor)
        left, sigma, _ = torch.linalg.svd(moment, full_matrices=False)
        kept = (sigma > sigma[:1] * 1e-7) & (torch.arange(len(sigma)) < 2 * most)
        rows = (left.T[kept] * method.length(weight, 0)).reshape(-1, *weight.shape[1:]).to(weight)
        both = torch.cat([rows, -rows])
        gains = self._gradients(both).square().sum(1).view(2, -1)
        better, sign = gains.max(0)
        signed = torch.where((sign == 0).view(-1, *[1] * (rows.dim() - 1)).to(rows.device), rows, -rows)
        order = better.argsort(descending=True, stable=True)[:most]
        return {"gains": better[order], "sigma": sigma[kept][order], "rows": signed.cpu()[order]}

    def _gradients(self, rows: Tensor) -> Tensor:
        """Gradient of the zero fan-out of units with these rows, [units, outgoing weights], mean over samples, float64."""
        network, site = self.context.network, self.site
        producer, consumer = (network.module.get_submodule(n) for n in (site.producer, site.consumer))
        total: dict[int, Tensor] = {}

        def use(seen: dict[str, Seen], inputs: Tensor) -> None:
            gradient = seen[site.consumer].gradient
            assert gradient is not None, "the loss depends on the consumer"
            for start in range(0, len(rows), site.size):
                part = rows[start : start + site.size]
                z = torch.zeros_like(seen[site.entry].output)
                z[:, : len(part)] = _run(producer, seen[site.producer].input, part)
                behind = through(network, site, inputs, z)
                found = fan_out_gradient(consumer, behind, gradient, site.size)[: len(part)].double().cpu()
                total[start] = total.get(start, 0) + found

        samples = observe(self.context, [*{site.producer, site.entry}, site.consumer], use, self.num_batches)
        return torch.cat(list(total.values())) / samples


def _run(module: torch.nn.Module, inputs: Tensor, rows: Tensor) -> Tensor:
    """What units with these incoming weights and no bias make."""
    if isinstance(module, torch.nn.Linear):
        return torch.nn.functional.linear(inputs, rows)
    assert isinstance(module, torch.nn.Conv2d)
    return torch.nn.functional.conv2d(inputs, rows, None, module.stride, module.padding, module.dilation)
