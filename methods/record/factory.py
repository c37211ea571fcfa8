"""The user's function that builds the unchanged network: finding and calling it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import nn

from coppice.references import UnresolvedName, resolve
from coppice.trust import require_trusted

OURS = "coppice.methods.networks"
"""The package whose factories every record may name."""


class ArchitectureError(ValueError):
    """A record does not fit its factory or its tensors; the message names what differs."""


def import_factory(reference: str) -> Callable[..., nn.Module]:
    """The callable that `package.module:attribute` names.

    Raises:
        ArchitectureError: it has another form, does not import, does not exist or cannot be called.
    """
    try:
        factory = resolve("factory", reference, {})
    except UnresolvedName as error:
        raise ArchitectureError(str(error)) from error
    if not callable(factory):
        raise ArchitectureError(f"factory {reference!r} must be callable, but is a {type(factory).__name__}.")
    return factory


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


def require_trusted_factory(reference: str, trust: Collection[str]) -> None:
    """Check that a record may have this factory called; nothing is imported before that is certain.

    Args:
        reference: `package.module:attribute`, as the record says.
        trust: see `coppice.trust.require_trusted`.

    Raises:
        Untrusted: it may not.
        ArchitectureError: it may, but it is not there.
    """
    try:
        require_trusted("network", reference, OURS, trust)
    except UnresolvedName as error:
        raise ArchitectureError(str(error)) from error
