"""Turns a name of a campaign file or a record into the thing itself: a name of a table, or `package.module:attribute`."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

from coppice.moved_references import MOVED
from coppice.user_code import what_went_wrong


class UnresolvedName(ValueError):
    """A name stands for nothing that can be imported, or for something of the wrong kind; the message says what to do."""


def moved(reference: str) -> str:
    """The place of today, where `reference` is exactly one of our own places of before; any other reference as it is."""
    return MOVED.get(reference, reference)


def referenced(kind: str, name: str, table: Mapping[str, Any]) -> Any:
    """What the table has under this name, or the reference that the name is, at its place of today.

    Raises:
        UnresolvedName: neither; the message lists the known names.
    """
    if name in table:
        return table[name]
    module, colon, attribute = name.partition(":")
    if module and colon and attribute:
        return moved(name)
    if not table:
        raise UnresolvedName(f"a {kind} must be named package.module:attribute, but got {name!r}.")
    near = difflib.get_close_matches(name, table, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise UnresolvedName(f"unknown {kind} {name!r}{hint}; known are {sorted(table)}, or give package.module:attribute.")


def resolve(kind: str, name: str, table: Mapping[str, Any], base: type | None = None) -> Any:
    """The object that `name` stands for.

    Args:
        kind: what is looked for, for messages: body, dataset, loss, network, trigger, method or selection.
        name: a key of `table`, or `package.module:attribute` (the attribute may be one of a class: `Class.attribute`).
        table: name -> the object, or the `package.module:attribute` where it is.
        base: the object must be a subclass of this class.

    Raises:
        UnresolvedName: the name is neither known nor a reference, its module does not import or has no such attribute, or the
            object is no subclass of `base`.
    """
    target = referenced(kind, name, table)
    thing = _imported(kind, target) if isinstance(target, str) else target
    if base is not None and not (isinstance(thing, type) and issubclass(thing, base)):
        must = "a class" if base is object else f"a subclass of {base.__module__}.{base.__name__}"
        raise UnresolvedName(f"{kind} {name!r} must be {must}, but is {thing!r}.")
    return thing


def _imported(kind: str, reference: str) -> Any:
    module, _, attribute = reference.partition(":")
    try:
        thing: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UnresolvedName(f"{kind} {reference!r}: {module} must be importable, but {error}; check PYTHONPATH.") from error
    except (Exception, SystemExit) as error:  # a module of the user's may do anything
        raise UnresolvedName(
            f"{kind} {reference!r}: {module} must be importable, but raised {what_went_wrong(error)}; mend it there."
        ) from error
    for part in attribute.split("."):
        if not hasattr(thing, part):
            near = [n for n in vars(thing) if not n.startswith("_")][:20]
            raise UnresolvedName(f"{kind} {reference!r}: {module} has no {part!r}; it has {near}.")
        thing = getattr(thing, part)
    return thing
