"""New units whose gradients are made large by gradient ascent, where no singular vectors give them (GradMax-Opt, Evci 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from coppice.methods.graph.values import Element
from coppice.methods.growth.first_order.cross_moment import fan_out_gradient, run_rows
from coppice.methods.growth.first_order.exact import Exact
from coppice.methods.growth.first_order.gradients import moments, offered, sites_of
from coppice.methods.growth.first_order.singular import leading
from coppice.methods.growth.first_order.sweep import View, layers_of, sweep
from coppice.methods.measures.site import Site, site_of
from coppice.methods.measures.statistics import require_finite
from coppice.methods.method import Context, Measurement, parameter
from coppice.methods.plan import GrowPlan
from coppice.methods.ranks import ALONE

SAME = 0.95
"""Cosine of the incoming weights from which on two units count as copies of each other."""


@dataclass(frozen=True)
class GradMaxOpt(Exact):
    """Ascends the gradient norm of the zero outgoing weights of new units by Adam on their incoming weights of fixed norm.

    Units start at the best of GradMax's singular vectors for `zero: fan_out`, their opposites, and random draws, as there are
    local maxima; each ends at the best point that it came by. Units that end as copies of a better one go back to their start,
    as copies would learn the same for ever (both ours). Scores are squared gradient norms.
    """

    kind = "grow"
    levels = ("channel",)
    why = "new units whose gradients are as large as possible with any activation, pooling and BatchNorm behind them"
    paper = "Evci et al. 2022, GradMax, section 3 and appendix (GradMax-Opt; arXiv 2201.05125), with zero fan-out"
    preserves = True
    batch_norm = "zero fan-out: new rows are scale 1, shift 0, mean 0, variance 1"
    cost = "one forward and backward per element and batch, then `steps` double backward passes from one layer to the next"

    scale: float = parameter(0.5, "norm of a new unit's incoming weights", low=1e-3, high=10.0, log=True)
    norm: str = parameter(
        "mean_norm", "scale times the mean norm of the existing units' weights, or scale itself", choices=("mean_norm", "fixed")
    )
    draws: int = parameter(64, "random weights among which starts are looked for, beside singular vectors", low=0, high=10000)
    steps: int = parameter(100, "steps of Adam", low=1, high=10000)
    lr: float = parameter(0.05, "learning rate of Adam, relative to the norm", low=1e-4, high=1.0, log=True)
    num_batches: int = parameter(1, "batches that gradients are taken over", low=1, high=1000)

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Incoming weights of new units and the squared norms of the gradients that their outgoing ones get."""
        scores, data = {}, {}
        for name, site in sites_of(context, elements).items():
            views: list[View] = []
            alone = replace(context, ranks=ALONE)
            samples = sweep(alone, {name: site}, lambda _, view: views.append(view), self.num_batches)  # noqa: B023
            pool = self._pool(context, name, site, offered(site, most[name]))
            pool = context.ranks.same({"": pool})[""]
            if not len(pool):
                continue
            with torch.autocast(pool.device.type, enabled=False):
                rows, gains = self._best(views, pool, offered(site, most[name]), samples)
            require_finite(f"the gradients of new units of {name}", gains, ranks=context.ranks)
            scores[name], data[name] = gains.cpu(), {"rows": rows.cpu()}
        return Measurement(scores, data)

    def _best(self, views: Sequence[View], pool: Tensor, count: int, samples: int) -> tuple[Tensor, Tensor]:
        """Incoming weights of new units and their squared gradient norms, descending."""
        start, before = _distinct(pool, _gains(views, pool, samples))
        start, before = start[:count], before[:count]
        ascended = [self._ascend(views, part, samples) for part in start.split(views[0].site.size)]
        rows, gains = torch.cat([r for r, _ in ascended]), torch.cat([g for _, g in ascended])
        return _distinct(rows, gains, start, before)

    def _pool(self, context: Context, name: str, site: Site, count: int) -> Tensor:
        """Where ascent may begin, [candidates, *shape of a row], each of the norm that new units have; none where A is 0."""
        weight = layers_of(context.network, site)[0].weight
        moment = moments(context, {name: site}, self.num_batches, exact=False)[name]
        rows = leading(moment.matrix, count)[0].T.unflatten(1, weight.shape[1:]).to(weight)
        draws = torch.randn(self.draws * bool(len(rows)), *weight.shape[1:], generator=context.generator).to(weight)
        return _of_norm(torch.cat([rows, -rows, draws]), self._length(weight))

    def _length(self, weight: Tensor) -> float:
        mean = 1.0 if self.norm == "fixed" else float(weight.detach().flatten(1).norm(dim=1).mean())
        return self.scale * mean

    def _ascend(self, views: Sequence[View], start: Tensor, samples: int) -> tuple[Tensor, Tensor]:
        """The best point of each unit and its squared gradient norm."""
        length = float(start[0].norm())
        rows = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([rows], lr=self.lr * length, maximize=True)
        best, gains = start.clone(), _gains(views, start, samples)
        for _ in range(self.steps):
            rows.grad = _slope(views, rows, samples)
            optimizer.step()
            with torch.no_grad():
                rows.copy_(_of_norm(rows, length))
                reached = _gains(views, rows, samples)
                better = reached > gains
                best[better], gains[better] = rows[better], reached[better]
        return best, gains

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> GrowPlan:
        """See `Method.plan`."""
        site = site_of(context.network, element)
        chosen = torch.tensor(list(units))
        values = {f"{site.producer}.weight:0": measurement.data[element.name]["rows"][chosen]}
        gain = float(measurement.scores[element.name][chosen].sum())
        return GrowPlan(element.name, len(chosen), produce="zero", consume="zero", values=values, predicted_gain=gain)


def _of_norm(rows: Tensor, length: float) -> Tensor:
    norms = rows.flatten(1).norm(dim=1).clamp(min=torch.finfo(rows.dtype).tiny)
    return rows * (length / norms).view(-1, *[1] * (rows.dim() - 1))


def _entries(view: View, rows: Tensor) -> Tensor:
    """The path's output for units with these incoming weights, with 0 for the rest of the site's units."""
    made = run_rows(view.producer, view.before, rows)
    rest = made.new_zeros(len(made), view.site.size - len(rows), *made.shape[2:])
    return view.run(torch.cat([made, rest], 1))


@torch.no_grad()
def _gradient(views: Sequence[View], rows: Tensor, samples: int) -> Tensor:
    """Gradient of the outgoing weights, mean over samples: [units, outgoing weights], for any number of units."""
    gradients = []
    for part in rows.split(views[0].site.size):
        gradients.append(torch.stack([fan_out_gradient(v, _entries(v, part), len(part)) for v in views]).sum(0) / samples)
    return torch.cat(gradients)


def _gains(views: Sequence[View], rows: Tensor, samples: int) -> Tensor:
    """Squared gradient norm of each unit, float64."""
    return _gradient(views, rows, samples).double().square().sum(1)


def _slope(views: Sequence[View], rows: Tensor, samples: int) -> Tensor:
    """Derivative of the summed squared gradient norms with respect to the incoming weights, by double backward."""
    direction = 2 * _gradient(views, rows, samples) / samples
    total = torch.zeros_like(rows)
    with torch.enable_grad():
        for view in views:
            weight = view.consumer.weight
            columns = (len(weight), view.site.size * view.site.taps, *weight.shape[2:])
            outgoing = torch.zeros(columns, device=weight.device, dtype=weight.dtype, requires_grad=True)
            made = run_rows(view.consumer, _entries(view, rows), outgoing)
            (gradient,) = torch.autograd.grad((made * view.gradient).sum(), outgoing, create_graph=True)
            per_unit = gradient.unflatten(1, (view.site.size, view.site.taps)).movedim(1, 0)[: len(rows)].flatten(1)
            (slope,) = torch.autograd.grad((per_unit * direction).sum(), rows)
            total += slope
    return total


def _distinct(
    rows: Tensor, gains: Tensor, instead: Tensor | None = None, instead_gains: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The best first, without copies of better ones; or, where `instead` is given, with what it says in their place."""
    directions = nn.functional.normalize(rows.flatten(1), dim=1)
    kept: list[int] = []
    copies: list[int] = []
    for i in gains.argsort(descending=True, stable=True).tolist():
        same = bool(kept) and float((directions[kept] @ directions[i]).max()) > SAME
        (copies if same else kept).append(i)
    if instead is None or instead_gains is None:
        return rows[kept], gains[kept]
    rows, gains = torch.cat([rows[kept], instead[copies]]), torch.cat([gains[kept], instead_gains[copies]])
    order = gains.argsort(descending=True, stable=True)
    return rows[order], gains[order]
