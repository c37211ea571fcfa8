"""Caches outside of a network: what a forward without data has put there must not be handed out to a later one."""

from __future__ import annotations

import functools
import gc
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from weakref import ref

from torch import Tensor

from coppice.methods.graph.reach import foreign, installed

_Cached = functools._lru_cache_wrapper
_known: dict[str, tuple[Any, ...]] = {}


@contextmanager
def function_caches() -> Iterator[None]:
    """Clear each `functools.lru_cache` and `functools.cache` that something is added to meanwhile."""
    before = [(cached, cached.cache_info().misses) for cached in _everywhere()]
    try:
        yield
    finally:
        old = {id(cached) for cached, _ in before}
        for cached, misses in (*before, *((c, 0) for c in _everywhere() if id(c) not in old)):
            if cached.cache_info().misses != misses:
                cached.cache_clear()


def _everywhere() -> Iterator[Any]:
    """The cached functions and methods of all Python files but those of Python, torch and this package."""
    for name, file in list(sys.modules.items()):
        if foreign(name) or not isinstance(file, ModuleType):
            continue
        found = _known.get(name)
        if found is None:
            found = tuple(_cached_in(vars(file), name))
            if installed(name):
                _known[name] = found
        yield from found


def _cached_in(table: Any, file: str) -> Iterator[Any]:
    for value in list(table.values()):
        inner = getattr(value, "__func__", value) if isinstance(value, (staticmethod, classmethod)) else value
        inner = inner.fget if isinstance(inner, property) else inner
        if type(inner) is _Cached:
            yield inner
        elif isinstance(value, type) and value.__module__ == file and value is not table:
            yield from _cached_in({k: v for k, v in vars(value).items() if not isinstance(v, type)}, file)


def forget(tensors: Iterable[ref[Tensor]]) -> None:
    """Take tensors that a trace has made out of whatever still holds them: function caches, dictionaries, lists and sets.

    Args:
        tensors: all that it has made; as a rule none of them is left.
    """
    if all(t() is None for t in tensors):
        return
    gc.collect(0)  # those that only a cycle of new objects holds
    if all(t() is None for t in tensors):
        return
    left = {id(t()) for t in tensors} - {id(None)}
    for thing in gc.get_objects():
        if type(thing) is _Cached and _holds(thing, left, 3):
            thing.cache_clear()
    alive = [t for t in (t() for t in tensors) if t is not None]
    for holder in gc.get_referrers(*alive) if alive else ():
        if holder is not alive:
            _remove(holder, left)


def _holds(thing: Any, wanted: set[int], depth: int) -> bool:
    inner = gc.get_referents(thing)
    if any(id(x) in wanted for x in inner):
        return True
    within = [x for x in inner if isinstance(x, (dict, list, tuple, set)) or "lru" in type(x).__name__]
    return depth > 0 and any(_holds(x, wanted, depth - 1) for x in within)


def _remove(holder: Any, tensors: set[int]) -> None:
    if isinstance(holder, dict):
        for key in [k for k, v in holder.items() if id(v) in tensors]:
            del holder[key]
    elif isinstance(holder, (list, deque)):
        kept = [x for x in holder if id(x) not in tensors]
        holder.clear()
        holder.extend(kept)
    elif isinstance(holder, set):
        holder -= {x for x in holder if id(x) in tensors}
