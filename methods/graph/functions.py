"""The function mode that sees each call of a torch function as the user's code makes it, with the sizes that it is given."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from coppice.methods.graph.given import Extent, Given
from coppice.methods.graph.source import is_user
from coppice.methods.graph.terms import Term

_SHAPE = torch.Tensor.shape
_WHOLE = frozenset(("view", "reshape", "expand", "broadcast_to", "repeat", "tile"))
_MADE = frozenset(("zeros", "ones", "full", "empty", "rand", "randn"))
_NEW = frozenset(("new_zeros", "new_ones", "new_full", "new_empty"))
_END = sys.maxsize


@dataclass(frozen=True)
class Call:
    """One call of a torch function.

    Attributes:
        name: of the function.
        args: positional arguments as they were given.
        kwargs: keyword arguments likewise.
        frame: where it was called.
    """

    name: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    frame: FrameType

    @property
    def by_user(self) -> bool:
        """Whether it was not called by torch's own code."""
        return is_user(self.frame.f_code.co_filename)

    def sizes(self, count: int) -> list[Any] | None:
        """The size that the user's code gives for each of `count` dimensions or pieces (None: none); None where it gives none."""
        given = self._sizes(count)
        return given if given is not None and len(given) == count else None

    def _sizes(self, count: int) -> list[Any] | None:
        name, args = self.name, self.args
        if name in _WHOLE or name in _NEW:
            first = [*args[1:2]] if name == "new_full" else [*args[1:]]
            return _flat([*first, *(self.kwargs.get(k) for k in ("size", "shape", "repeats", "dims"))])
        if name == "repeat_interleave":
            return _flat([self._argument(1, "repeats")])
        if name in _MADE:
            return _flat([*(args[:1] if name == "full" else args), self.kwargs.get("size")])
        if name == "unflatten":
            dim, sizes = self._argument(1, "dim"), self._argument(2, "sizes")
            given = _flat([sizes])
            if isinstance(dim, int):
                before = dim if dim >= 0 else count - len(given) + 1 + dim
                return [*[None] * before, *given, *[None] * (count - before - len(given))]
        if name in ("split", "split_with_sizes"):
            sizes = self._argument(1, "split_size_or_sections", self._argument(1, "split_size"))
            if isinstance(sizes, int):
                return [*[sizes] * (count - 1), sizes if count == 1 else None]
            return _flat([sizes])
        return None

    def _argument(self, position: int, name: str, default: Any = None) -> Any:
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def bounds(self, start: int, stop: int) -> tuple[Any, Any] | None:
        """The bounds of the slice that is cut now, as the user's code gives them (None: no bound); None where it gives none."""
        if self.name in ("__getitem__", "__setitem__"):
            items = self.args[1] if isinstance(self.args[1], tuple) else (self.args[1],)
            for item in items:
                if isinstance(item, slice):
                    first, last = item.start or 0, _END if item.stop is None else item.stop
                    if (first, last) == (start, stop):
                        return item.start, item.stop
        if self.name == "narrow":
            first, length = self._argument(2, "start"), self._argument(3, "length")
            if isinstance(first, int) and isinstance(length, int):
                return first, first + length
        return None


def _flat(items: Any) -> list[Any]:
    out: list[Any] = []
    for item in items:
        if isinstance(item, int) and not isinstance(item, bool):
            out.append(item)
        elif isinstance(item, (tuple, list)):
            out += _flat(item)
    return out


class Calls(TorchFunctionMode):
    """While it is entered, the call that runs is known to the rules, and shapes are numbers that remember their dimension.

    Args:
        watch: where the rules take their notes.
    """

    def __init__(self, watch: Any) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the call, and run it."""
        kwargs = kwargs or {}
        if getattr(func, "__self__", None) is _SHAPE:
            return self._shape(args[0], func(*args))
        name = getattr(func, "__name__", "")
        if name == "size":
            shape = self._shape(args[0], args[0].shape)
            dim = args[1] if len(args) > 1 else kwargs.get("dim")
            return shape if dim is None else shape[dim]
        before, self.watch.call = self.watch.call, Call(name, args, kwargs, _caller(name))
        try:
            if name in ("__getitem__", "__setitem__") and self.watch.call.by_user:
                self._whole(args[0], args[1])
            return func(*args, **kwargs)
        finally:
            self.watch.call = before

    def _whole(self, tensor: Tensor, items: Any) -> None:
        """Note the bounds of slices that leave a dimension as it is: no operator runs for them."""
        items = items if isinstance(items, tuple) else (items,)
        value = self.watch.values.get(id(tensor))
        widths = [_width(item) for item in items]
        if value is None or not any(isinstance(i, slice) and i.stop is not None for i in items):
            return
        dim = 0
        for item, width in zip(items, widths, strict=True):
            leading = isinstance(item, slice) and not item.start and item.step is None and isinstance(item.stop, int)
            if leading and dim < len(value.dims) and item.stop == value.dims[dim].size:
                self.watch.operator = "slice"
                self.watch.written_bound(item.stop, [value.dims[dim]], [])
            dim += len(value.dims) - sum(widths) if item is Ellipsis else width

    def _shape(self, tensor: Tensor, shape: Any) -> Any:
        value = self.watch.values.get(id(tensor))
        if value is None or len(value.dims) != len(shape):
            return shape
        return torch.Size([_given(n, dim) for n, dim in zip(shape, value.dims, strict=True)])


def _width(item: Any) -> int:
    """How many dimensions an index takes."""
    if isinstance(item, Tensor) and item.dtype in (torch.bool, torch.uint8):
        return item.dim()
    return 0 if item is None or item is Ellipsis or isinstance(item, bool) else 1


def _caller(name: str) -> FrameType:
    """Who has called a torch function, be it written in C or in Python."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_name in ("handle_torch_function", name):
        if is_user(frame.f_code.co_filename):
            break
        frame = frame.f_back
    return frame


def _given(size: int, dim: Term) -> int:
    return Given(size, Extent(dim)) if size == dim.size else size
