"""A trace leaves no mark: what it replaces or turns off while it runs, and how that comes back."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from coppice.methods.graph.held import generators
from coppice.methods.graph.reach import Reach


def stand_ins(named: Iterable[Tensor], meta: bool) -> dict[int, Tensor]:
    """What takes the place of parameters and buffers for the time of the trace; by id of the original.

    On meta they have no data; else parameters share theirs, and buffers have a copy, since kernels write to them.
    """
    return {id(tensor): _stand_in(tensor, meta) for tensor in named}


def _stand_in(tensor: Tensor, meta: bool) -> Tensor:
    parameter = isinstance(tensor, nn.Parameter)
    if meta:
        new = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    elif parameter and type(tensor) is not nn.Parameter:
        return tensor
    else:
        new = tensor.detach() if parameter else tensor.detach().clone()
    if parameter:
        new = nn.Parameter(new, requires_grad=tensor.requires_grad)
    if getattr(tensor, "__dict__", None):
        new.__dict__.update(tensor.__dict__)
    return new


@contextmanager
def as_before(modules: list[nn.Module], standing: Mapping[int, Tensor]) -> Iterator[None]:
    """Put the stand-ins in place; afterwards restore everything that the forward can reach, and the random number generators."""
    reach = Reach(modules, standing)
    undo = list(generators())
    try:
        reach.enter()
        yield
    finally:
        reach.restore()
        for back in undo:
            back()


@contextmanager
def collector_paused() -> Iterator[None]:
    """A trace makes many small objects and hardly any garbage: collecting would only take time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def slow_paths(meta: bool) -> Iterator[None]:
    """Turn off fused kernels that hide what they do."""
    fast = torch.backends.mha.get_fastpath_enabled()
    mkldnn, cudnn = torch._C._get_mkldnn_enabled(), torch._C._get_cudnn_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    if not meta:
        torch._C._set_mkldnn_enabled(False)
        torch._C._set_cudnn_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch._C._set_mkldnn_enabled(mkldnn)
        torch._C._set_cudnn_enabled(cudnn)
