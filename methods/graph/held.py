"""What mutable objects hold, noted before a forward runs and put back afterwards.

Only what has changed is put back, in place, so that every object keeps its identity.
"""

from __future__ import annotations

import copy
import itertools
import random
import sys
import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from operator import is_
from types import CellType
from typing import Any

import torch

Undo = Callable[[], None]
_MISSING = object()


def _as_before(now: Any, before: Any) -> bool:
    return len(now) == len(before) and all(map(is_, now, before))


def dict_of(table: dict[Any, Any], saved: dict[Any, Any]) -> None:
    """Let a dictionary hold what it held, in the same order."""
    if len(table) == len(saved) and all(map(is_, table.values(), saved.values())) and all(map(is_, table, saved)):
        return
    base: Any = OrderedDict if isinstance(table, OrderedDict) else dict
    if not _as_before(list(table), list(saved)):
        base.clear(table)
    base.update(table, saved)


def list_of(items: list[Any], saved: list[Any]) -> None:
    """Let a list hold what it held."""
    if not _as_before(items, saved):
        list.__setitem__(items, slice(None), saved)


def deque_of(items: deque[Any], saved: list[Any]) -> None:
    """Let a deque hold what it held."""
    if not _as_before(items, saved):
        deque.clear(items)
        deque.extend(items, saved)


def set_of(items: set[Any], saved: set[Any]) -> None:
    """Let a set hold what it held."""
    if {id(x) for x in items} != {id(x) for x in saved}:
        set.clear(items)
        set.update(items, saved)


def cell_of(cell: CellType, saved: Any) -> None:
    """Let the variable of an enclosing function have the value it had."""
    if _content(cell) is saved:
        return
    if saved is _MISSING:
        del cell.cell_contents
    else:
        cell.cell_contents = saved


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _MISSING


def class_of(kind: type, saved: dict[str, Any]) -> None:
    """Let a class have the attributes it had."""
    now = dict(vars(kind))
    for name in now.keys() - saved.keys():
        type.__delattr__(kind, name)
    for name, value in saved.items():
        if now.get(name, _MISSING) is not value:
            type.__setattr__(kind, name, value)


def slots_of(thing: Any, saved: list[tuple[Any, Any]]) -> None:
    """Let an object without a `__dict__` have the attributes it had."""
    for slot, value in saved:
        if value is _MISSING:
            if _slot(slot, thing) is not _MISSING:
                slot.__delete__(thing)
        elif _slot(slot, thing) is not value:
            slot.__set__(thing, value)


def _slot(slot: Any, thing: Any) -> Any:
    try:
        return slot.__get__(thing)
    except AttributeError:
        return _MISSING


def slots(thing: Any) -> list[tuple[Any, Any]]:
    """The slots of an object with what they hold."""
    out = []
    for kind in type(thing).__mro__:
        names = vars(kind).get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            slot = vars(kind).get(name)
            if hasattr(slot, "__set__") and name not in ("__dict__", "__weakref__"):
                out.append((slot, _slot(slot, thing)))
    return out


def note(thing: Any) -> Undo | None:
    """How to bring back what an object holds by itself, for the kinds that are no containers; None for all others."""
    if isinstance(thing, CellType):
        value = _content(thing)
        return lambda: cell_of(thing, value)
    if isinstance(thing, bytearray):
        data = bytes(thing)
        return lambda: thing.__setitem__(slice(None), data)
    if isinstance(thing, torch.Generator):
        generator = thing.get_state()
        return lambda: None if torch.equal(thing.get_state(), generator) else _drop(thing.set_state(generator))
    if isinstance(thing, random.Random):
        state = thing.getstate()
        return lambda: thing.setstate(state)
    return _note_numpy(thing)


def _drop(_: Any) -> None:
    return None


def _note_numpy(thing: Any) -> Undo | None:
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if isinstance(thing, numpy.ndarray):
        if not thing.flags.writeable or thing.dtype.hasobject:
            return None
        data = thing.copy()
        return lambda: numpy.copyto(thing, data)
    if isinstance(thing, numpy.random.Generator):
        bits = thing.bit_generator
        state = bits.state
        return lambda: setattr(bits, "state", state)
    if isinstance(thing, numpy.random.RandomState):
        old = thing.get_state()
        return lambda: thing.set_state(old)
    return None


def twin(thing: Any) -> Any:
    """A copy of an iterator, for the forward to advance in its place; the thing itself where it is none that can be copied."""
    if not isinstance(thing, (itertools.count, itertools.cycle, itertools.repeat)):
        return thing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return copy.copy(thing)
        except TypeError:
            return thing


def generators() -> Iterator[Undo]:
    """How to bring back the random number generators that everybody shares."""
    state, bits = random.getstate(), torch.get_rng_state()
    yield lambda: random.setstate(state)
    yield lambda: torch.set_rng_state(bits)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        devices = torch.cuda.get_rng_state_all()
        yield lambda: torch.cuda.set_rng_state_all(devices)
    if "numpy" in sys.modules:
        numpy = sys.modules["numpy"]
        legacy = numpy.random.get_state()
        yield lambda: numpy.random.set_state(legacy)
