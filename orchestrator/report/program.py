"""A trained network as a `torch.export` program: from the data set's own inputs to its own unit, with PyTorch only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coppice.methods.record.architecture import rebuild


class Normalised(nn.Module):
    """A network with the normalisation of its data: what it is given and returns are values of the source.

    Args:
        network: takes normalised inputs.
        scales: see `coppice.orchestrator.tasks.dataset.scales`; what is not in them is left as it is.
    """

    inputs_mean: Tensor
    inputs_std: Tensor
    targets_mean: Tensor
    targets_std: Tensor

    def __init__(self, network: nn.Module, scales: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.network = network
        self.normalises, self.restores = "inputs.mean" in scales, "targets.mean" in scales
        for name, values in scales.items():
            self.register_buffer(name.replace(".", "_"), values)

    def forward(self, inputs: Tensor) -> Any:
        """(N, *input_shape) of the data set as it is stored, to what the network returns, in the unit of the targets."""
        if self.normalises:
            inputs = ((inputs - self.inputs_mean) / self.inputs_std).to(torch.float32)
        outputs = self.network(inputs)
        return outputs * self.targets_std.float() + self.targets_mean.float() if self.restores else outputs


def write_program(
    architecture: Mapping[str, Any], tensors: Mapping[str, Tensor], scales: Mapping[str, Tensor],
    input_shape: tuple[int, ...], path: Path, trust: Collection[str] = (),
) -> None:  # fmt: skip
    """Write the program of a network, for any batch size.

    Args:
        architecture: its record.
        tensors: its tensors.
        scales: how its data is normalised, see `coppice.orchestrator.tasks.dataset.scales`.
        input_shape: shape of one sample.
        path: the file to write.
        trust: see `rebuild`.

    Raises:
        Untrusted: it is built by code that is neither ours nor trusted.
        ValueError: its forward cannot be exported by `torch.export`.
    """
    example = torch.zeros(2, *input_shape)
    module = rebuild(architecture, tensors, example_inputs=(example,), trust=trust).module
    module = (Normalised(module, scales) if scales else module).eval()
    try:
        program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    except (RuntimeError, torch._dynamo.exc.TorchDynamoException) as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(f"the forward of the network must be one that torch.export can trace, but: {first}") from error
    temporary = path.with_name(f".{path.name}.tmp.pt2")
    torch.export.save(program, temporary)
    temporary.replace(path)
