"""How single tensors of an optimizer's state follow a parameter that is resized."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from coppice.methods.surgery.changes import TensorChange, followed
from coppice.methods.surgery.state_layout import FLAT, Layout, is_orthogonal, layout_of

SECOND_MOMENTS = frozenset(
    [
        "exp_avg_sq", "max_exp_avg_sq", "square_avg", "acc_delta", "exp_inf", "sum", "step_size", "variance", "row_var",
        "col_var", "exp_avg_sq_row", "exp_avg_sq_col", "exp_avg_res_row", "exp_avg_res_col",
    ]
)  # fmt: skip
"""State that an update is divided by: new entries get the mean of the kept ones, since zero would make their first steps
several times larger than the learning rate.
"""
MOMENTA = frozenset(["exp_avg", "momentum_buffer", "grad_avg", "prev"])
"""State that an update is proportional to: new entries are zero."""
COPIES = frozenset(["ax"])
"""Copies and averages of the weights: they change just as the weights do."""
_COPY = re.compile(r"(^|_)(master|slow|param|params|weight|weights|fp32|ema|anchor|shadow|p0|x0)(_|$)|^(z|x)$")

Path = tuple[str | int, ...]
StateRule = Callable[[Any, Tensor, Sequence[TensorChange]], Any]
"""(value, parameter in its new shape, changes) -> the value in the parameter's new shape."""
_rules: dict[tuple[type, str], StateRule] = {}


def register_state_rule(optimizer: type, key: str, rule: StateRule) -> None:
    """Say how an entry of an optimizer's state follows, where shape and numbers do not tell it or where it should be otherwise.

    Args:
        optimizer: the class of the optimizer; its subclasses follow alike.
        key: the name of the entry in the state of a parameter.
        rule: makes the new value of the old one; `followed` in `coppice` resizes one dimension of a tensor.
    """
    _rules[optimizer, key] = rule


def rule_of(optimizer: object, key: str) -> StateRule | None:
    """The rule for an entry, of the nearest class of the optimizer."""
    return next((_rules[c, key] for c in type(optimizer).__mro__ if (c, key) in _rules), None)


def label(path: Path) -> str:
    """`key`, or `key[0]` for what is within a list."""
    return str(path[0]) + "".join(f"[{p}]" for p in path[1:])


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """What nested lists, tuples and dictionaries hold, by path."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        for i, inner in enumerate(value):
            yield from leaves(inner, (*path, i))
    else:
        yield path, value


def replaced(value: Any, new: Mapping[Path, Any], path: Path = ()) -> Any:
    """The same lists, tuples and dictionaries with other leaves."""
    if isinstance(value, Mapping):
        return {k: replaced(v, new, (*path, k)) for k, v in value.items()}
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        items = [replaced(v, new, (*path, i)) for i, v in enumerate(value)]
        return items if isinstance(value, list) else type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return new.get(path, value)


@dataclass(frozen=True)
class Entry:
    """A tensor of a state and how it belongs to its parameter; `fill` is `zero`, `mean` or `copy`."""

    value: Tensor
    kind: str
    fill: str
    shape: tuple[int, ...]

    @property
    def layout(self) -> Layout:
        """For each of its dimensions the parameter's."""
        return layout_of(self.kind, self.value.shape, len(self.shape))

    def after(self, change: TensorChange) -> Entry:
        """The entry after one dimension of the parameter was resized."""
        shape = tuple(len(change.index) if d == change.dim else s for d, s in enumerate(self.shape))
        dims = [i for i, d in enumerate(self.layout) if d == change.dim]
        value = self.value.reshape(self.shape) if self.kind == FLAT else self.value
        if len(dims) == 2:
            value = _square(value, change)
        elif dims:
            value = (followed_by_mean if self.fill == "mean" else followed)(value, replace(change, dim=dims[0]))
        return replace(self, value=value.flatten() if self.kind == FLAT else value, shape=shape)

    def full(self) -> Tensor:
        """A factor with size 1 for every dimension of the parameter that it has not."""
        sizes = {d: s for d, s in zip(self.layout, self.value.shape, strict=True) if d is not None}
        return self.value.reshape([sizes.get(d, 1) for d in range(len(self.shape))])


def fill_of(key: str, pairs: Sequence[tuple[Tensor, Tensor]]) -> str:
    """What new entries are: zero, the mean of the kept ones, or a copy of the weight's.

    Args:
        key: name of the state.
        pairs: each state of that name, and its parameter.
    """
    if key in SECOND_MOMENTS:
        return "mean"
    if key in MOMENTA or not all(v.is_floating_point() and p.is_floating_point() for v, p in pairs):
        return "zero"
    pairs = [(v.detach().float(), p.detach().float().to(v.device)) for v, p in pairs]
    if all(v.shape in (p.shape, (p.numel(),)) for v, p in pairs):
        pairs = [(v.reshape(p.shape), p) for v, p in pairs]
        weight = sum(float(p.square().sum()) for _, p in pairs)
        apart = sum(float((v - p).square().sum()) for v, p in pairs)
        named = key in COPIES or _COPY.search(key) is not None
        if key in COPIES or (weight > 0 and apart <= weight * (1.0 if named else 0.1)):
            return "copy"
    positive = all(not bool((v < 0).any()) for v, _ in pairs) and any(bool((v > 0).any()) for v, _ in pairs)
    return "mean" if positive else "zero"


def keep_products(old: Mapping[str, Entry], new: dict[str, Entry], change: TensorChange) -> None:
    """Factors of a second moment, its means over rows and over columns: kept entries keep their product.

    The estimate is row * column / mean(row) (Shazeer and Stern 2018, algorithm 4). Where the rows are resized, their mean
    changes, and the column's factor, a mean over the rows, changes as much; likewise the other way round.
    """
    for name in old:
        partner = name.replace("row", "col") if "row" in name else name.replace("col", "row")
        if partner == name or partner not in old or change.dim in old[partner].layout or change.dim not in old[name].layout:
            continue
        if any(old[n].fill != "mean" or old[n].kind.startswith("matrix") for n in (name, partner)):
            continue
        before, after = (e[name].full().mean(change.dim, keepdim=True) for e in (old, new))
        ratio = torch.where(before > 0, after / before.clamp(min=torch.finfo(before.dtype).tiny), torch.ones_like(before))
        factor = new[partner]
        new[partner] = replace(factor, value=(factor.full() * ratio).reshape(factor.value.shape))


def followed_by_mean(value: Tensor, change: TensorChange) -> Tensor:
    """As `followed`, but new entries are the mean of the kept ones along the resized dimension."""
    entries = followed(value, change)
    index = torch.tensor(change.index, device=value.device)
    new = (index < 0).nonzero().flatten()
    if not len(new):
        return entries
    kept = entries.index_select(change.dim, (index >= 0).nonzero().flatten())
    shape = list(entries.shape)
    shape[change.dim] = len(new)
    return entries.index_copy(change.dim, new, kept.mean(change.dim, keepdim=True).expand(shape))


def _square(matrix: Tensor, change: TensorChange) -> Tensor:
    """A matrix over one dimension (a preconditioner): new rows and columns are zero but for the mean of the kept diagonal.

    An orthogonal matrix stays one: the nearest to what is kept, with 1 for new entries.
    """
    orthogonal = is_orthogonal(matrix)
    both = followed(followed(matrix, replace(change, dim=0)), replace(change, dim=1))
    index = torch.tensor(change.index, device=matrix.device)
    kept = (index >= 0).nonzero().flatten()
    if orthogonal and len(kept) < change.old_size:
        wide = both[kept][:, kept].to(torch.promote_types(both.dtype, torch.float32))
        left, _, right = torch.linalg.svd(wide)
        both[kept[:, None], kept] = (left @ right).to(both)
    diagonal = both.diagonal()
    new = torch.ones_like(diagonal) if orthogonal else diagonal[kept].mean().expand_as(diagonal)
    return both + torch.diag(torch.where(index < 0, new, torch.zeros_like(diagonal)))
