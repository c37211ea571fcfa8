"""Whether a network's forward runs, without data where that is possible, and where it fails."""

from __future__ import annotations

import copy
import linecache
import os
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from coppice.methods.graph.caches import function_caches
from coppice.methods.graph.isolation import as_before, slow_paths, stand_ins
from coppice.methods.graph.trace import differs_in_training
from coppice.methods.network import Network, Run

CANNOT_RUN = (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, AssertionError, ZeroDivisionError)
_NOT_THE_USERS = (os.path.dirname(torch.__file__) + os.sep, os.path.dirname(os.path.dirname(__file__)) + os.sep)


def modes_that_run(network: Network) -> Mapping[bool, Run]:
    """How the unchanged network runs on its example inputs, in the modes (training or not) in which it does.

    Where no forward asks for the mode, one says all: torch's own modules give the same shapes in both.
    """
    if network.modes is None:
        with isolated(network.module):
            tried = {False: _first(network, training=False)}
            if tried[False] is None or differs_in_training(list(network.module.modules())):
                tried[True] = _first(network, training=True)
        network.modes = {training: run for training, run in tried.items() if run is not None}
    return network.modes


def failure(network: Network, modes: Mapping[bool, Run]) -> str | None:
    """Where the changed network fails in one of these modes, in words after "the forward does not run"; None where it runs.

    Nothing that the forward reaches is different afterwards.
    """
    for meta in {run.meta for run in modes.values()}:
        standing = stand_ins([*network.module.parameters(), *network.module.buffers()], meta)
        with isolated(network.module, standing):
            for training in (t for t, run in modes.items() if run.meta == meta):
                found = attempt(network.module, network.example_inputs, training, modes[training])
                if found is not None:
                    return found
    return None


@contextmanager
def isolated(module: nn.Module, standing: Mapping[int, Tensor] | None = None) -> Iterator[None]:
    """Whatever forwards of the module, or of copies of it, reach outside of these copies is as before afterwards."""
    with torch.no_grad(), function_caches(), as_before(list(module.modules()), standing or {}):
        yield


def attempt(module: nn.Module, inputs: tuple[Any, ...], training: bool, wanted: Run) -> str | None:
    """Run a module whose tensors are where `wanted` says; where it fails, None where its outputs have the wanted shapes."""
    try:
        shapes = _shapes(module, inputs, training, wanted.meta)
    except CANNOT_RUN as error:
        return where(error)
    return None if shapes == wanted.shapes else "with outputs of the same shape"


def _first(network: Network, training: bool) -> Run | None:
    """How a copy of the network runs: without data where that is possible, else with it."""
    for meta in (True, False):
        module = copy_to(network.module, meta)
        try:
            return Run(meta, _shapes(module, network.example_inputs, training, meta))
        except CANNOT_RUN:
            continue
    return None


def copy_to(module: nn.Module, meta: bool, memo: dict[int, Tensor] | None = None) -> nn.Module:
    """A copy to run, its tensors without data if `meta`; `memo` says what stands for some of them."""
    standing = stand_ins([*module.parameters(), *module.buffers()], meta) | (memo or {})
    for m in module.modules():
        computed = [v for v in vars(m).values() if isinstance(v, Tensor)]
        standing |= {id(v): torch.empty_like(v, device="meta") if meta else v.detach().clone() for v in computed}
    return copy.deepcopy(module, cast(Any, dict(standing)))


def _shapes(module: nn.Module, inputs: tuple[Any, ...], training: bool, meta: bool) -> tuple[tuple[int, ...], ...]:
    for m in module.modules():
        m.__dict__["training"] = training and not isinstance(m, nn.modules.batchnorm._BatchNorm)
    given = tree_map(lambda x: torch.empty_like(x, device="meta") if meta and isinstance(x, Tensor) else x, inputs)
    with slow_paths(meta), torch.device("meta" if meta else torch.get_default_device()):
        return tuple(tuple(t.shape) for t in tree_leaves(module(*given)) if isinstance(t, Tensor))


def where(error: BaseException) -> str:
    """The user's line at which an error was raised: `at model.py:12 (y = x.view(2, 8))`."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_NOT_THE_USERS)]
    if not frames:
        return f"in PyTorch itself ({type(error).__name__})"
    line = linecache.getline(frames[-1].filename, frames[-1].lineno or 0).strip()
    return f"at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" + (f" ({line[:100]})" if line else "")


def told_by_us(error: BaseException) -> bool:
    """Whether our own code has raised an error on purpose, so that its message says what is wrong."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return last.filename.startswith(_NOT_THE_USERS[1]) and (last.line or "").startswith("raise ")
