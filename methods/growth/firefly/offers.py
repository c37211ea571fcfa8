"""Which trained candidates are offered, and the plans that bring them into the network."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from coppice.methods.graph.values import Element
from coppice.methods.growth.firefly.candidates import DepthCandidate, WidthCandidates
from coppice.methods.growth.first_order.cross_moment import run_rows
from coppice.methods.measures.site import Site
from coppice.methods.measures.statistics import Seen, observe
from coppice.methods.method import Context
from coppice.methods.plan import GrowPlan


def offered_units(candidates: WidthCandidates, share: Tensor) -> dict[str, Tensor]:
    """The units that lower the loss, best first: `parents`, `rows` (v or a), `columns` (c, with its sign), `gains`.

    A split is the same for either sign of v, so one that raises the loss is left out.
    """
    site, new = candidates.site, candidates.new
    splits, fresh = share[: site.size], share[site.size :]
    gains = torch.cat([(-splits).clamp(min=0), fresh.abs()])
    rows = [f.tensor.cpu() for f in (candidates.splits, candidates.fan_in) if f is not None]
    if candidates.splits is None:
        rows.insert(0, rows[0].new_zeros(site.size, *rows[0].shape[1:]))
    parents = torch.cat([torch.arange(site.size), torch.full((new,), -1)])
    offered = {"parents": parents, "rows": torch.cat(rows), "gains": gains}
    if candidates.fan_out is not None:
        columns = candidates.fan_out.tensor.cpu().movedim(1, 0)
        columns = columns * -fresh.sign().to(columns.dtype).view(-1, *[1] * (columns.dim() - 1))
        offered["columns"] = torch.cat([columns.new_zeros(site.size, *columns.shape[1:]), columns])
    order = gains.argsort(descending=True, stable=True)
    order = order[gains[order] > 0]
    return {name: t[order] for name, t in offered.items()}


def offered_block(block: DepthCandidate, share: Tensor) -> dict[str, Tensor]:
    """A block's tensors, `last` with its sign, and `gains`: its one score, or none where it makes no difference."""
    values = {name: f.tensor.cpu() for name, f in block.tensors.items()}
    values["last"] = values["last"] * -share.sign().to(values["last"].dtype).item()
    return values | {"gains": share.abs()[share != 0]}


def statistics(context: Context, site: Site, offered: Mapping[str, Tensor], num_batches: int) -> dict[str, Tensor]:
    """Mean and variance (biased) of what new rows make, where BatchNorm follows; nothing without it."""
    norm = None if site.batch_norm is None else context.network.module.get_submodule(site.batch_norm)
    if norm is None or norm.weight is None or not len(offered["rows"]):
        return {}
    producer = context.network.module.get_submodule(site.producer)
    rows = offered["rows"].to(context.network.device())
    sums, counts = torch.zeros(2, len(rows), dtype=torch.float64), 0

    def use(seen: dict[str, Seen], inputs: Tensor) -> None:
        nonlocal counts
        made = run_rows(producer, seen[site.producer].input, rows).movedim(1, 0).flatten(1).double()
        sums.add_(torch.stack([made.sum(1), made.square().sum(1)]).cpu())
        counts += made.shape[1]

    observe(context, [site.producer], use, num_batches, gradients=False)
    context.ranks.sum(sums)
    counts = context.ranks.count(counts)
    mean = sums[0] / counts
    return {"mean": mean, "variance": (sums[1] / counts - mean.square()).clamp(min=0)}


def grow_plan(context: Context, element: Element, site: Site, chosen: Mapping[str, Tensor]) -> GrowPlan:
    """The plan for chosen candidates: parents step by -v, their copies by +v, new units come with a and c."""
    weight = context.network.module.get_submodule(site.producer).weight
    assert isinstance(weight, Tensor)
    parents, rows = chosen["parents"], chosen["rows"]
    split = parents >= 0
    adjust = torch.zeros(weight.shape, dtype=weight.dtype)
    adjust[parents[split]] = -rows[split]
    factors = 1 + split.to(rows.dtype).view(-1, *[1] * (rows.dim() - 1))
    offsets = {f"{site.producer}.weight:0": rows * factors}
    if "columns" in chosen:
        columns = chosen["columns"].movedim(0, 1)
        offsets[f"{site.consumer}.weight:1"] = columns.flatten(1) if columns.dim() == 3 else columns
    if "mean" in chosen:
        offsets |= _norm_offsets(context, site, chosen, ~split)
    return GrowPlan(
        element.name,
        len(parents),
        sources=tuple(parents.tolist()),
        produce="zero",
        predicted_gain=float(chosen["gains"].sum()),
        adjust={f"{site.producer}.weight": adjust} if bool(split.any()) else {},
        offsets=offsets,
    )


def _norm_offsets(context: Context, site: Site, chosen: Mapping[str, Tensor], new: Tensor) -> dict[str, Tensor]:
    """BatchNorm rows of new units (1, 0, 0, 1 by default): their statistics, and the scale and shift that undo them."""
    assert site.batch_norm is not None
    norm = context.network.module.get_submodule(site.batch_norm)
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    mean, variance = chosen["mean"], chosen["variance"]
    scored = (1 + norm.eps) ** -0.5
    changes = {
        "weight": (variance + norm.eps).sqrt() * scored - 1, "bias": mean * scored,
        "running_mean": mean, "running_var": variance - 1,
    }  # fmt: skip
    dtype = norm.weight.dtype
    return {f"{site.batch_norm}.{name}:0": torch.where(new, change, 0.0).to(dtype) for name, change in changes.items()}
