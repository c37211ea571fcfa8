"""Everything that can be reached from a module, as text: to compare before and after."""

import functools
import hashlib
import inspect
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

_PLAIN = (int, float, complex, str, bytes, bool, type(None), torch.dtype, torch.device, torch.Size)
_NOT_FOLLOWED = (type, types.ModuleType, types.BuiltinFunctionType, torch._ops.OpOverload)
MOST = 1000
"""Entries of a global container that are looked at."""


def object_graph(module: nn.Module) -> dict[str, str]:
    """Path -> what is there: attributes, containers, tensors bit by bit, hooks, closures, caches of functions, globals, the RNG.

    Counts of a cache's hits are left out; what it holds is counted.
    """
    found: dict[str, str] = {"rng": hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest()}
    seen: dict[int, str] = {}
    keep: list[Any] = []
    _visit(module, "module", found, seen, keep)
    for path, held in _surroundings(module):
        _visit(held, path, found, seen, keep)
    return found


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Paths that came, went or hold something else."""
    return sorted(p for p in before.keys() | after.keys() if before.get(p) != after.get(p))


def _surroundings(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Attributes of the classes, and what their files hold at the top: containers, tensors and caches of functions."""
    classes = {c for m in module.modules() for c in type(m).__mro__ if not c.__module__.startswith(("torch.nn", "builtins"))}
    for cls in sorted(classes, key=lambda c: f"{c.__module__}.{c.__qualname__}"):
        yield from ((f"{cls.__qualname__}.{n}", v) for n, v in vars(cls).items() if _holds_state(v))
    for name in sorted({c.__module__ for c in classes}):
        values = vars(sys.modules.get(name, types)).items()
        yield from ((f"{name}:{n}", v) for n, v in values if not n.startswith("__") and _holds_state(v))


def _holds_state(value: Any) -> bool:
    if isinstance(value, (dict, list, set)):
        return len(value) <= MOST
    return isinstance(value, (Tensor, functools._lru_cache_wrapper))


def _visit(value: Any, path: str, found: dict[str, str], seen: dict[int, str], keep: list[Any]) -> None:
    if isinstance(value, _PLAIN):
        found[path] = repr(value)
        return
    if id(value) in seen:
        found[path] = f"the same as {seen[id(value)]}"
        return
    seen[id(value)] = path
    keep.append(value)
    found[path] = _described(value)
    if isinstance(value, _NOT_FOLLOWED):
        return
    for name, part in _parts(value):
        _visit(part, f"{path}.{name}", found, seen, keep)


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        bits = "" if value.is_meta else hashlib.sha256(repr(value.detach().cpu().tolist()).encode()).hexdigest()
        return f"{type(value).__name__} {value.dtype} {tuple(value.shape)} {value.device} {value.requires_grad} {bits}"
    if isinstance(value, functools._lru_cache_wrapper):
        return _cache(value)
    if isinstance(value, (dict, list, tuple, set, frozenset)):
        return f"{type(value).__name__} of {len(value)}"
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _cache(function: Any) -> str:
    """How much a cache of a function holds; what a function without arguments found out of its surroundings is no state."""
    size = function.cache_info().currsize
    known = bool(size) and not inspect.signature(function).parameters
    return "cache" if not size or (known and not isinstance(function(), Tensor)) else f"cache of {size}"


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Tensor):
        yield "grad", value.grad
    elif isinstance(value, dict):
        yield from ((f"[{k if isinstance(k, (str, int)) else type(k).__name__}]", v) for k, v in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{i}]", v) for i, v in enumerate(value))
    elif isinstance(value, (set, frozenset)):
        yield "{}", tuple(sorted(repr(v) if isinstance(v, _PLAIN) else type(v).__name__ for v in value))
    elif isinstance(value, types.FunctionType):
        cells = value.__closure__ or ()
        yield from ((f"cell{i}", c.cell_contents) for i, c in enumerate(cells) if _filled(c))
    elif isinstance(value, types.MethodType):
        yield "self", value.__self__
    elif isinstance(value, functools.partial):
        yield from (("func", value.func), ("args", value.args), ("keywords", value.keywords))
    elif hasattr(value, "__dict__"):
        yield from vars(value).items()


def _filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
