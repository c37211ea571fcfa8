"""Operators that deal out channels: to pixels, from pixels, and among groups."""

from __future__ import annotations

from typing import Any

from coppice.methods.graph.rules.common import Args, Kwargs, fixed, run
from coppice.methods.graph.terms import Fix, Mul, norm
from coppice.methods.graph.watch import Handler, Watch


def pixel_shuffle(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Channels become pixels: (N, C r r, H, W) -> (N, C, H r, W r)."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    channels = out.shape[-3]
    parts = watch.algebra.reshape([x.dims[-3]], [channels, args[1] ** 2])
    watch.algebra.freeze(parts[1], "pixels of a pixel shuffle")
    watch.put(out, [*x.dims[:-3], parts[0], *fixed(out.shape[-2:])], (x,), x.zero)
    return out


def pixel_unshuffle(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Pixels become channels: (N, C, H r, W r) -> (N, C r r, H, W)."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    watch.put(out, [*x.dims[:-3], norm(Mul([x.dims[-3], Fix(args[1] ** 2)])), *fixed(out.shape[-2:])], (x,), x.zero)
    return out


def channel_shuffle(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Groups of channels are dealt out in turn: (N, groups * C, ...) -> (N, C * groups, ...)."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    groups = args[1]
    parts = watch.algebra.reshape([x.dims[1]], [groups, out.shape[1] // groups])
    watch.algebra.freeze(parts[0], f"the {groups} groups of a channel shuffle")
    watch.put(out, [x.dims[0], norm(Mul(parts[::-1])), *x.dims[2:]], (x,), x.zero)
    return out


RULES: dict[str, Handler] = {
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), channel_shuffle),
}
