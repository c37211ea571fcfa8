"""Whose code a file may have run: files come from others, too, and name functions that are called when they are read."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Collection
from types import ModuleType
from typing import Any

from coppice.references import referenced, resolve

RUNNING = "__main__"
"""The program that reads the file, a notebook for instance: it runs already, and calls what it defines itself."""


class Untrusted(ValueError):
    """A file names code that nobody has trusted; nothing of it was imported or called."""


def require_trusted(kind: str, reference: str, ours: str, trust: Collection[str]) -> None:
    """Check that a file may have the callable `reference` called: one of ours, the running program's, or of a trusted package.

    Args:
        kind: what it makes, for messages: network, dataset.
        reference: `package.module:attribute`, as the file says.
        ours: our own package whose callables every file may name.
        trust: packages or modules (`mynets`, `mynets.small`) with all that is below them; or `package.module:attribute`, which
            stands for exactly this callable, wherever it is defined.

    Raises:
        Untrusted: neither. A module that is not trusted is not even imported; what a trusted one only borrows from elsewhere
            (`mynets:os.system`) is not called.
        UnresolvedName: the reference has another form, or a trusted module cannot be imported, or has no such attribute.
    """
    trusted = [ours, RUNNING, *(name for name in trust if ":" not in name)]
    module, _, attribute = str(referenced(kind, reference, {})).partition(":")
    if module.partition(".")[0] not in sys.stdlib_module_names and reference in trust:
        return
    _require_within(kind, reference, module, trusted)
    thing: Any = resolve(kind, reference, {})
    holder: Any = sys.modules[module]
    for part in attribute.split("."):
        holder = getattr(holder, part)
        if isinstance(holder, ModuleType):
            _require_within(kind, reference, holder.__name__, trusted)
    if callable(thing):
        _require_within(kind, reference, _defined_in(thing), trusted)


def _require_within(kind: str, reference: str, module: str, trusted: Collection[str]) -> None:
    package = module.partition(".")[0]
    what = f"the {kind} must be one of ours or of a package that you trust, but the file names {reference!r}"
    if package in sys.stdlib_module_names:
        raise Untrusted(f"{what}, and {package!r} is a part of Python: nothing of it was run; do not use the file.")
    if not any(module == name or module.startswith(f"{name}.") for name in trusted):
        raise Untrusted(
            f"{what}, which is code of {module!r}: nothing of it was run. If you know this code and the file's author, trust it: "
            f"trust=[{package!r}] in Python, --trust {package} on the command line."
        )


def _defined_in(thing: Any) -> str:
    """The module with the code that a call of `thing` runs."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    own = inspect.unwrap(thing) if inspect.isfunction(thing) or inspect.ismethod(thing) else thing
    return str(getattr(own, "__module__", None) or type(own).__module__)
