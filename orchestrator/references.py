"""Turns names into things: first a table of ours, then `package.module:attribute` of the user's."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any


def resolve(kind: str, name: str, table: Mapping[str, str]) -> Any:
    """The object that `name` stands for.

    Args:
        kind: what is looked for, for messages: "dataset".
        name: a key of `table`, or `package.module:attribute`.
        table: name -> `package.module:attribute`.

    Raises:
        KeyError: the name is neither known nor a reference; the message lists the known ones.
        ImportError: the module does not import, or has no such attribute.
    """
    reference = table.get(name, name)
    module_name, colon, attribute = reference.partition(":")
    if not colon:
        near = difflib.get_close_matches(name, table, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise KeyError(f"unknown {kind} {name!r}{hint}; known are {sorted(table)}, or give package.module:attribute.")
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise ImportError(f"{kind} {reference!r}: module {module_name!r} must be importable, but is not: {error}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ImportError(f"{kind} {reference!r}: {module_name!r} must have the attribute {attribute!r}, but has not.")
        found = getattr(found, part)
    return found
