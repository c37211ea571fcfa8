"""A trace leaves no mark: what it replaces or turns off while it runs, and how that comes back."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def stand_ins(modules: list[nn.Module], meta: bool) -> dict[int, Tensor]:
    """Replace parameters (on meta) and buffers (always) for the time of the trace; by id of the original."""
    new: dict[int, Tensor] = {}
    for m in modules:
        for table in (m._parameters, m._buffers):
            for key, tensor in table.items():
                if tensor is None:
                    continue
                if id(tensor) not in new:
                    if meta:
                        new[id(tensor)] = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
                    else:
                        new[id(tensor)] = tensor if table is m._parameters else tensor.detach().clone()
                table[key] = new[id(tensor)]  # type: ignore[assignment]
        flat = m.__dict__.get("_flat_weights")
        if isinstance(flat, list):
            m.__dict__["_flat_weights"] = [new.get(id(t), t) for t in flat]
    return new


@contextmanager
def as_before(modules: list[nn.Module], meta: bool) -> Iterator[None]:
    """Restore every attribute, parameter and buffer of every submodule, and the random number generators."""
    saved = [(dict(m.__dict__), dict(m._parameters), dict(m._buffers)) for m in modules]
    generator = torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if not meta and torch.cuda.is_available() else []
    try:
        yield
    finally:
        for m, (attributes, parameters, buffers) in zip(modules, saved, strict=True):
            m.__dict__.clear()
            m.__dict__.update(attributes)
            m._parameters.clear()
            m._parameters.update(parameters)
            m._buffers.clear()
            m._buffers.update(buffers)
        torch.set_rng_state(generator)
        if devices:
            torch.cuda.set_rng_state_all(devices)


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
