"""What a record says of a network's example inputs: enough to make inputs on which its elements can be found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from coppice.methods.record.factory import ArchitectureError

DTYPES = {
    str(d).removeprefix("torch."): d
    for d in (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
              torch.uint8, torch.bool, torch.complex64, torch.complex128)
}


def described(inputs: Sequence[Any]) -> list[dict[str, Any]]:
    """Shape and dtype of each; empty where some are no tensors, or have a dtype that is not for inputs."""
    if not all(isinstance(x, Tensor) and x.dtype in DTYPES.values() for x in inputs):
        return []
    return [{"shape": list(x.shape), "dtype": str(x.dtype).removeprefix("torch.")} for x in inputs]


def zeros(inputs: Any, device: torch.device | str) -> tuple[Tensor, ...]:
    """Tensors as `described`.

    Raises:
        ArchitectureError: `inputs` is not what `described` makes.
    """
    try:
        sizes = [(x["shape"], DTYPES[x["dtype"]]) for x in inputs]
        if not all(isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape) for shape, _ in sizes):
            raise TypeError
    except (KeyError, TypeError):
        raise ArchitectureError(
            f"the record's example_inputs must be a list of {{shape, dtype}} with sizes >= 0 and a dtype of {sorted(DTYPES)}, "
            f"but are {str(inputs)[:200]}; correct them, or leave them out and give rebuild example_inputs."
        ) from None
    return tuple(torch.zeros(shape, dtype=dtype, device=device) for shape, dtype in sizes)
