"""The user's function that builds the unchanged network: finding and calling it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn


class ArchitectureError(ValueError):
    """A record does not fit its factory or its tensors; the message names what differs."""


def import_factory(reference: str) -> Callable[..., nn.Module]:
    """The callable that `package.module:attribute` names.

    Raises:
        ArchitectureError: it has another form, does not import, does not exist or cannot be called.
    """
    module_name, colon, attribute = reference.partition(":")
    if not colon or not module_name or not attribute:
        raise ArchitectureError(f"a factory must be named package.module:attribute, but got {reference!r}.")
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        wrong = f"factory {reference!r}: {module_name} must be importable, but {error}; check PYTHONPATH."
        raise ArchitectureError(wrong) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = [n for n in vars(found) if not n.startswith("_")][:20]
            raise ArchitectureError(f"factory {reference!r}: {module_name} has no {part!r}; it has {near}.")
        found = getattr(found, part)
    if not callable(found):
        raise ArchitectureError(f"factory {reference!r} must be callable, but is a {type(found).__name__}.")
    return found


def build(reference: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The factory's module.

    Raises:
        ArchitectureError: the factory refuses its arguments or returns something else than a module.
    """
    factory = import_factory(reference)
    try:
        made = factory(**arguments)
    except TypeError as error:
        raise ArchitectureError(f"factory {reference!r} must accept {dict(arguments)}, but: {error}.") from error
    if not isinstance(made, nn.Module):
        raise ArchitectureError(f"factory {reference!r} must return a torch.nn.Module, but returned a {type(made).__name__}.")
    return made
