"""Lists, tuples and dictionaries of an optimizer's state as JSON, with their tensors beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Size, Tensor


def packed(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """What JSON can hold of a value; its tensors are put into `tensors` under `path`.

    Raises:
        ValueError: there is something that is neither a tensor, nor a number, text or collection of such.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        tensors[path] = value
        return {"tensor": path}
    if isinstance(value, Mapping):
        pairs = [[_key(k, path), packed(v, f"{path}/{k}", tensors)] for k, v in value.items()]
        return {"dict": pairs}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "size" if isinstance(value, Size) else "tuple"
        return {kind: [packed(v, f"{path}/{i}", tensors) for i, v in enumerate(value)]}
    raise ValueError(
        f"an optimizer's state must be made of tensors, numbers, text and collections of them, but {path} has a "
        f"{type(value).__name__}."
    )


def _key(key: Any, path: str) -> str | int:
    if isinstance(key, (str, int)):
        return key
    raise ValueError(f"the keys of a dictionary in an optimizer's state must be text or whole numbers, but {path} has {key!r}.")


def unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `packed` was given."""
    if not isinstance(value, Mapping):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: unpacked(v, tensors) for key, v in content}
    items = [unpacked(v, tensors) for v in content]
    return items if kind == "list" else Size(items) if kind == "size" else tuple(items)
