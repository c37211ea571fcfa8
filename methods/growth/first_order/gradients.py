"""What the gradient-based growth methods measure at all sites together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coppice.methods.graph.values import Element
from coppice.methods.growth.first_order.cross_moment import (
    add_cross_moment,
    fan_out_gradient,
    moment_shape,
    num_taps,
    run_rows,
    sum_dtype,
)
from coppice.methods.growth.first_order.linearised import linearise
from coppice.methods.growth.first_order.sweep import View, groups, layers_of, sweep
from coppice.methods.measures.site import Site, site_of, why_not_zero
from coppice.methods.measures.statistics import require_finite
from coppice.methods.method import Context

GROUP_BYTES = 64 * 2**20
"""Memory for the moments of the sites that are measured in one pass; only wide layers need several passes."""


def sites_of(context: Context, elements: Sequence[Element]) -> dict[str, Site]:
    """Sites by element name, of elements that were accepted."""
    return {element.name: site_of(context.network, element) for element in elements}


def grouped(context: Context, sites: Mapping[str, Site], squares: bool = False) -> Iterator[dict[str, Site]]:
    """Sites whose moments are in memory at the same time; `squares`: with the second moments of both layers' inputs."""
    sizes = []
    for name, site in sites.items():
        producer, consumer = layers_of(context.network, site)
        shapes = [moment_shape(producer, consumer, site.taps)]
        if squares:
            shapes += [(layer.weight[0].numel(),) * 2 for layer in (producer, consumer)]
        sizes.append((name, sum(math.prod(s) * sum_dtype(math.prod(s), producer.weight.dtype).itemsize for s in shapes)))
    for names in groups(sizes, GROUP_BYTES):
        yield {name: sites[name] for name in names}


def offered(site: Site, most: int) -> int:
    """How many units are offered at most at a time: as many as there are, at least 64."""
    return min(most, max(site.size, 64))


@dataclass(frozen=True)
class Moment:
    """A, the mean over samples; and why new units with zero fan-in would not do, None where they would."""

    matrix: Tensor
    why_not_zero: str | None


def moments(context: Context, sites: Mapping[str, Site], num_batches: int, exact: bool | None) -> dict[str, Moment]:
    """A of every site.

    Args:
        context: network, data and loss.
        sites: by name.
        num_batches: over how many batches.
        exact: linearise paths at 0; False: near 0 at random points, where ReLU and max-pooling have a derivative; None: at 0
            where zero fan-in is sound.

    Raises:
        NonFiniteStatistics: some A is not finite.
    """
    totals: dict[str, Tensor] = {}
    reasons: dict[str, str | None] = {}

    def use(name: str, view: View) -> None:
        if name not in totals:
            shape = moment_shape(view.producer, view.consumer, view.site.taps)
            dtype = sum_dtype(math.prod(shape), view.producer.weight.dtype)
            totals[name] = torch.zeros(shape, dtype=dtype, device=view.before.device)
            reasons[name] = context.ranks.from_rank_0(_why_not(view)) if exact is None else None
        at_zero = reasons[name] is None if exact is None else exact
        path = linearise(view.run, view.shape, view.before, at_zero, view.drawn)
        add_cross_moment(totals[name], view, path)

    samples = sweep(context, sites, use, num_batches)
    context.ranks.sum(*totals.values())
    for name, total in totals.items():
        total.div_(samples)
        require_finite(f"the cross moment of {name}", total)
    return {name: Moment(total, reasons[name]) for name, total in totals.items()}


def _why_not(view: View) -> str | None:
    if view.site.batch_norm is not None:
        return f"BatchNorm {view.site.batch_norm} would multiply the gradient of zero fan-in by 1/sqrt(eps)"
    return why_not_zero(view.run, view.shape, view.before)


def fan_out_gradients(
    context: Context, sites: Mapping[str, Site], rows: Mapping[str, Tensor], num_batches: int
) -> dict[str, Tensor]:
    """Gradients of the zero fan-out of units with these incoming weights, and with the opposite ones, through the real path.

    Args:
        context: network, data and loss.
        sites: by name.
        rows: [units, *shape of a row] by name, or [units, entries + 1] with a bias at the end of each row; equal on all ranks.
        num_batches: over how many batches.

    Returns:
        [2, units, outgoing weights], mean over samples, on the CPU, by name.
    """
    totals: dict[str, Tensor] = {}

    def use(name: str, view: View) -> None:
        if name not in totals:
            shape = (2, len(rows[name]), num_taps(view.consumer, view.site.taps))
            totals[name] = torch.zeros(shape, dtype=sum_dtype(math.prod(shape), view.before.dtype), device=view.before.device)
        for total, part in zip(totals[name].split(view.site.size, 1), rows[name].split(view.site.size), strict=True):
            for sign, gradient in enumerate(_both_signs(view, part)):
                total[sign] += gradient.to(total)

    samples = sweep(context, {n: sites[n] for n in rows}, use, num_batches)
    context.ranks.sum(*totals.values())
    return {name: total.div_(samples).cpu() for name, total in totals.items()}


def _both_signs(view: View, rows: Tensor) -> Iterator[Tensor]:
    rows = rows.flatten(1).to(view.before)
    entries = view.producer.weight[0].numel()
    weight = rows[:, :entries].unflatten(1, view.producer.weight.shape[1:])
    bias = rows[:, entries] if rows.shape[1] > entries else None
    units = len(rows)
    z = torch.zeros(view.shape, device=rows.device, dtype=rows.dtype)
    z[:, :units] = run_rows(view.producer, view.before, weight, bias)
    for _ in range(2):
        yield fan_out_gradient(view, view.run(z.clone()), units)
        z = z.neg_()
