"""Everything that a forward can reach and change in Python: attributes, containers, closures, classes, globals of its files."""

from __future__ import annotations

import functools
import sys
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from coppice.methods.graph import held
from coppice.methods.graph.given import watched, watched_items

Standing = Mapping[int, Tensor]
_ATOMS = (str, int, float, bool, bytes, complex, type(None), range, slice, torch.dtype, torch.device, torch.Size)
_ATOMIC = frozenset((*_ATOMS, ModuleType, BuiltinFunctionType, CodeType, type(Ellipsis), type(NotImplemented)))
_MANY = 20_000
"""The entries of a container that has more are not looked into; the container itself is put back all the same."""
_PLAIN = frozenset(("argparse", "types", "collections", "dataclasses", "enum", "functools", "weakref", "_thread"))
"""Modules of Python whose objects may hold what a forward remembers."""
_WRAPPERS = (staticmethod, classmethod, functools.cached_property, functools.partialmethod)


@functools.lru_cache(maxsize=4096)
def foreign(module: str) -> bool:
    """Whether a Python module is one of torch, of Python itself or of this package: their objects are left alone."""
    top = module.partition(".")[0]
    if top in _PLAIN:
        return False
    return top in ("torch", "numpy", "builtins") or (top in sys.stdlib_module_names and top != "__main__") or _ours(module)


def _ours(module: str) -> bool:
    return module.startswith(__name__.rpartition(".")[0] + ".")


@functools.lru_cache(maxsize=4096)
def installed(module: str) -> bool:
    """Whether a Python module belongs to an installed package."""
    path = getattr(sys.modules.get(module), "__file__", None) or ""
    return "site-packages" in path


class Reach:
    """Walks from modules over everything they hold, and notes it.

    Args:
        modules: a module and all its submodules.
        standing: by id, what takes the place of a parameter or buffer while the forward runs, wherever it is held.
    """

    def __init__(self, modules: Iterable[nn.Module], standing: Standing) -> None:
        self._standing = standing
        self._seen: set[int] = set()
        self._noted: set[int] = set()
        self._undo: list[tuple[Any, ...]] = []
        self._globals: list[Any] = []
        self._modules = list(modules)

    def enter(self) -> None:
        """Note everything, and let the forward find the stand-ins."""
        self._seen.update(map(id, self._modules))
        for m in self._modules:
            self._table(m.__dict__, inside=True, owner=m)
            self._class(type(m), inside=True)
        while self._globals:
            self._file(self._globals.pop())

    def restore(self) -> None:
        """Put everything back."""
        for undo, *arguments in reversed(self._undo):
            undo(*arguments)
        self._undo.clear()

    def _visit(self, thing: Any, inside: bool) -> None:
        kind = type(thing)
        if kind in _ATOMIC or id(thing) in self._seen:
            return
        self._seen.add(id(thing))
        if isinstance(thing, (dict, list, deque, set, tuple, frozenset)):
            self._container(thing, inside)
        elif isinstance(thing, type):
            self._class(thing, inside)
        elif isinstance(thing, Tensor):
            if getattr(thing, "__dict__", None):
                self._table(vars(thing), inside)
        elif isinstance(thing, (FunctionType, MethodType, functools.partial, *_WRAPPERS, property)):
            self._callable(thing, inside)
        else:
            self._object(thing, inside)

    def _container(self, thing: Any, inside: bool) -> None:
        if isinstance(thing, dict):
            self._table(thing, inside)
            if type(thing) is not dict and hasattr(thing, "__dict__"):
                self._table(vars(thing), inside)
        elif isinstance(thing, (list, deque)):
            saved = list(thing)
            self._undo.append((held.list_of if isinstance(thing, list) else held.deque_of, thing, saved))
            for i, item in enumerate(saved if len(saved) < _MANY else ()):
                new = self._stand_in(item, inside)
                if new is not item:
                    thing[i] = new
        elif isinstance(thing, set):
            self._undo.append((held.set_of, thing, set(thing)))
            self._all(thing, inside)
        else:
            self._all(thing, inside)

    def _all(self, things: Any, inside: bool) -> None:
        if len(things) < _MANY:
            for item in list(things):
                self._visit(item, inside)

    def _table(self, table: dict[Any, Any], inside: bool, owner: Any = None) -> None:
        """A dictionary or, of an `owner`, the attributes; whole numbers among these remember where they were read."""
        base: Any = OrderedDict if isinstance(table, OrderedDict) else dict
        saved = table.copy() if type(table) is dict else dict(base.items(table))
        self._undo.append((held.dict_of, table, saved))
        if len(saved) >= _MANY:
            return
        for key, item in saved.items():
            if type(item) is int and owner is not None:
                table[key] = watched(owner, key, item)
            if type(item) in _ATOMIC:
                continue
            new = self._stand_in(item, inside)
            if new is not item:
                table[key] = new
            elif owner is not None and type(item) is tuple:
                table[key] = watched_items(owner, key, item)
            elif owner is not None and type(item) is list:
                item[:] = watched_items(owner, key, item)

    def _stand_in(self, item: Any, inside: bool) -> Any:
        """Look into an entry; what stands in its place while the forward runs."""
        if inside:
            if isinstance(item, Tensor):
                return self._standing.get(id(item), item)
            if type(item) is tuple and any(id(x) in self._standing for x in item):
                return tuple(self._stand_in(x, inside) for x in item)
        self._visit(item, inside)
        return held.twin(item)

    def _callable(self, thing: Any, inside: bool) -> None:
        if isinstance(thing, FunctionType):
            if foreign(thing.__module__ or ""):
                return
            for cell in thing.__closure__ or ():
                self._cell(cell, inside)
            self._all([*(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()], inside)
            if thing.__dict__:
                self._table(thing.__dict__, inside)
            self._file_of(thing.__module__, inside)
        elif isinstance(thing, MethodType):
            self._all((thing.__func__, thing.__self__), inside)
        elif isinstance(thing, property):
            self._all((thing.fget,), inside)
        elif isinstance(thing, (functools.partial, functools.partialmethod)):
            self._all((thing.func, thing.args, thing.keywords), inside)
        else:
            self._visit(getattr(thing, "__func__", None) or getattr(thing, "func", None), inside)

    def _cell(self, cell: CellType, inside: bool) -> None:
        undo = None if id(cell) in self._seen else held.note(cell)
        if undo is None:
            return
        self._seen.add(id(cell))
        self._undo.append((undo,))
        try:
            content = cell.cell_contents
        except ValueError:
            return
        new = self._stand_in(content, inside)
        if new is not content:
            cell.cell_contents = new

    def _object(self, thing: Any, inside: bool) -> None:
        undo = held.note(thing)
        if undo is not None:
            self._undo.append((undo,))
            return
        kind = type(thing)
        if foreign(kind.__module__) and not isinstance(thing, nn.Module) and not kind.__module__.startswith("torch.nn."):
            return
        if not inside and (isinstance(thing, nn.Module) or self._elsewhere(kind.__module__)):
            return
        try:
            table = object.__getattribute__(thing, "__dict__")
        except AttributeError:
            table = None
        if isinstance(table, dict):
            self._table(table, inside, owner=thing if inside else None)
        saved = held.slots(thing)
        if saved:
            self._undo.append((held.slots_of, thing, saved))
            self._all([value for _, value in saved], inside)
        self._class(kind, inside)

    def _class(self, kind: type, inside: bool) -> None:
        """The attributes of a class and of those that it inherits from."""
        for base in kind.__mro__:
            if id(base) in self._noted or base is object or foreign(base.__module__):
                continue
            self._noted.add(id(base))
            saved = dict(vars(base))
            self._undo.append((held.class_of, base, saved))
            for value in saved.values():
                self._visit(value, inside=False)
            self._file_of(base.__module__, inside)

    def _file_of(self, module: str | None, inside: bool) -> None:
        file = sys.modules.get(module or "")
        if file is None or id(file) in self._seen or foreign(module or ""):
            return
        if inside or not installed(module or ""):
            self._seen.add(id(file))
            self._globals.append(file)

    def _file(self, file: ModuleType) -> None:
        """The globals of a Python file; of what is installed, only the files that the modules' classes are in."""
        saved = dict(vars(file))
        self._undo.append((held.dict_of, vars(file), saved))
        for value in saved.values():
            kind = type(value)
            if kind in _ATOMIC:
                continue
            if not isinstance(value, (FunctionType, type)) or not self._elsewhere(value.__module__):
                self._visit(value, inside=False)

    def _elsewhere(self, module: object) -> bool:
        """Whether a Python module is installed, and none that is walked."""
        return not isinstance(module, str) or (installed(module) and id(sys.modules.get(module)) not in self._seen)
