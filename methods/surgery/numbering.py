"""Numbers that layers hold of themselves: where one is taken out, those behind it move up, so that a cache has no gap.

A cache of keys and values is a list, and what asks it for its length asks its first entry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from coppice.methods.graph.blocks import numbers
from coppice.methods.network import Network
from coppice.methods.surgery.ends import placed_inputs

_CANNOT_RUN = (RuntimeError, TypeError, ValueError, AttributeError, AssertionError, LookupError)


def close_gap(network: Network, at: str, old: nn.Module) -> None:
    """Move up the numbers behind a module that was taken out, unless the network computes with them.

    Args:
        network: without the module; its `attributes` say the new numbers.
        at: name of what was taken out.
        old: the module itself.
    """
    gone = {key: getattr(m, key) for m in old.modules() for key in numbers(m)}
    later = dict(_later(network.module, at, gone)) if gone else {}
    if not later:
        return
    before = _outputs(network)
    _move(network.module, later, -1)
    after = _outputs(network)
    if before is None or after is None or not _same(before, after):
        _move(network.module, later, 1)
        return
    modules = dict(network.module.named_modules())
    for path, keys in later.items():
        network.attributes |= {f"{path}|{key}": getattr(modules[path], key) for key in keys}


def _later(module: nn.Module, at: str, gone: Mapping[str, int]) -> Iterator[tuple[str, list[str]]]:
    """The modules with higher numbers in the same list of layers; none where a module beside it keeps the number."""
    parts = at.split(".")
    depth = next((i for i, part in reversed(list(enumerate(parts))) if part.isdecimal()), None)
    if depth is None:
        return
    layers, mine = ".".join(parts[:depth]), ".".join(parts[: depth + 1])
    found: dict[str, list[str]] = {}
    for path, m in module.named_modules(prefix=""):
        if not path.startswith(f"{layers}." if layers else ""):
            continue
        keys = [key for key in numbers(m) if key in gone]
        if (path == mine or path.startswith(f"{mine}.")) and any(getattr(m, key) == gone[key] for key in keys):
            return
        found[path] = [key for key in keys if getattr(m, key) > gone[key]]
    yield from ((path, keys) for path, keys in found.items() if keys)


def _move(module: nn.Module, places: Mapping[str, list[str]], by: int) -> None:
    modules = dict(module.named_modules())
    for path, keys in places.items():
        for key in keys:
            setattr(modules[path], key, getattr(modules[path], key) + by)


@torch.no_grad()
def _outputs(network: Network) -> list[Tensor] | None:
    """What the network returns for its example inputs in eval mode; None where it does not run."""
    modes = [(m, m.training) for m in network.module.modules()]
    network.module.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            return [t.clone() for t in tree_leaves(network.module(*placed_inputs(network))) if isinstance(t, Tensor)]
    except _CANNOT_RUN:
        return None
    finally:
        for m, training in modes:
            m.training = training


def _same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(x.shape == y.shape and bool((x == y).all()) for x, y in zip(a, b, strict=True))
