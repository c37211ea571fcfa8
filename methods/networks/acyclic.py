"""Directed acyclic graphs as bool matrices: entry [i, j] says that neuron j feeds neuron i."""

from __future__ import annotations

import torch
from torch import Tensor

Sides = list[tuple[Tensor | None, Tensor | None]]
"""Incoming and outgoing connections that a new neuron may have, [H] bool each."""


def levels(feeds: Tensor) -> list[Tensor] | None:
    """Neurons by topological level (longest path from a neuron that no other feeds), or None where there is a cycle.

    Args:
        feeds: [H, H] bool.

    Returns:
        Neuron numbers of each level, ascending; on the device of `feeds`.
    """
    waiting = feeds.float()
    left = torch.ones(len(feeds), device=feeds.device)
    neurons = []
    while bool(left.any()):
        ready = (left > 0) & (waiting @ left == 0)
        if not bool(ready.any()):
            return None
        neurons.append(ready.nonzero().flatten())
        left = left.masked_fill(ready, 0.0)
    return neurons


def reached(feeds: Tensor) -> Tensor:
    """[H, H] bool: entry [i, j] says that a path leads from i to j (a neuron always reaches itself)."""
    paths = (feeds.T | torch.eye(len(feeds), dtype=torch.bool, device=feeds.device)).float()
    for _ in range(max(len(feeds) - 1, 1).bit_length()):
        paths = (paths @ paths > 0).float()
    return paths > 0


def possible(feeds: Tensor) -> Tensor:
    """[H, H] bool: connections that are absent and each of which, alone, could be added without closing a cycle."""
    return ~feeds & ~reached(feeds)


def admit(feeds: Tensor, wanted: Tensor) -> Tensor:
    """Add connections to an acyclic graph, row by row, leaving out each one that would close a cycle.

    Args:
        feeds: [H, H] bool, acyclic.
        wanted: [H, H] bool.

    Returns:
        [H, H] bool, acyclic; holds all of `feeds`.
    """
    feeds, paths = feeds.clone(), reached(feeds)
    for i, j in (wanted & ~feeds).nonzero().tolist():
        if not paths[i, j]:
            feeds[i, j] = True
            paths |= paths[:, j, None] & paths[i]
    return feeds


def placed(feeds: Tensor, wanted: Tensor, used: Tensor, old: int) -> Tensor:
    """Where new neurons go whose connections with the old ones were all asked for, so that the graph stays acyclic.

    Connections that have a weight are kept if they close no cycle (those of copies never do). Otherwise, and for those that have
    none: a new neuron whose weights to the old ones are all zero is fed by them (it comes last); one whose weights from them are
    all zero feeds them (it comes first); one with both keeps what has a weight, or comes last where that closes a cycle.

    Args:
        feeds: [H, H] bool, acyclic; nothing of the new neurons.
        wanted: [H, H] bool.
        used: [H, H] bool, which connections have a weight that is not zero.
        old: the first new neuron.
    """
    within = torch.arange(len(feeds), device=feeds.device) < old
    whole = feeds | (wanted & used)
    feeds = whole if levels(whole) is not None else feeds.clone()
    for u in range(old, len(feeds)):
        fan_in, fan_out = wanted[u] & within, wanted[:, u] & within
        used_in, used_out = fan_in & used[u], fan_out & used[:, u]
        if not bool(used_out.any()):
            sides: Sides = [(fan_in, None)]
        elif not bool(used_in.any()):
            sides = [(None, fan_out)]
        else:
            sides = [(used_in, used_out), (fan_in, None)]
        feeds = _joined(feeds, u, sides)
    return feeds


def _joined(feeds: Tensor, u: int, sides: Sides) -> Tensor:
    """Neuron `u` with the first of these sets of incoming and outgoing connections that closes no cycle."""
    for fan_in, fan_out in sides:
        tried = feeds.clone()
        if fan_in is not None:
            tried[u] |= fan_in
        if fan_out is not None:
            tried[:, u] |= fan_out
        if levels(tried) is not None:
            return tried
    return feeds
