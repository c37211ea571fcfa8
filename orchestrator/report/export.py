"""Copies a network out of a campaign: its record and its tensors, or a `torch.export` program that needs no code of ours."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from coppice.methods.record.architecture import rebuild
from coppice.methods.record.factory import OURS
from coppice.orchestrator.folder import checkpoint as checkpoints
from coppice.orchestrator.folder.files import write_atomic
from coppice.orchestrator.folder.layout import CHECKPOINTS

PROGRAM, README = "model.pt2", "README.md"
TEXT = """# {name}

From `{source}`: {summary}

`architecture.json` says what the network is, `model.safetensors` holds its tensors. With Coppice and the code of the network
(`{factory}`) importable:

    import coppice
    network = coppice.load_network("."{trust})  # this folder
    model = network.module.eval()  # a plain torch.nn.Module
{program}"""
PROGRAM_TEXT = """
`model.pt2` is the same network, in eval mode, as a program for any batch size; it needs PyTorch only:

    import torch
    model = torch.export.load("model.pt2").module()
"""


@dataclass(frozen=True)
class Exported:
    """What was written: of which trial, how good it is in a sentence, the folder, and its files."""

    trial: str
    summary: str
    folder: Path
    files: tuple[str, ...]


def export(
    trial: Path, target: Path, summary: str, *, input_shape: tuple[int, ...] | None = None, trust: Collection[str] = ()
) -> Exported:
    """Copy the newest valid checkpoint's network of a trial into `target`.

    Where the trial kept an exponential moving average of the network, that is what is copied: its metrics are the trial's.

    Args:
        trial: folder of the trial.
        target: folder to write into; files of an earlier export there are replaced.
        summary: how good the network is, in a sentence, for the README.
        input_shape: shape of one sample; when given, a `torch.export` program is written as well.
        trust: packages whose functions may be called to build the network for that.

    Raises:
        Untrusted: the program needs the network, which is built by code that is neither ours nor trusted.
        ValueError: the trial has no checkpoint, or its forward cannot be exported by `torch.export`.
        CheckpointError: its checkpoints are damaged.
    """
    newest = checkpoints.latest(trial / CHECKPOINTS)
    if newest is None:
        raise ValueError(f"{trial} must have a checkpoint to copy the network from, but has none yet.")
    checkpoint = newest[1]
    tensors = evaluated_tensors(checkpoint.tensors)
    target.mkdir(parents=True, exist_ok=True)
    files = [checkpoints.ARCHITECTURE, checkpoints.MODEL]
    if input_shape is not None:
        _write_program(checkpoint.architecture, tensors, input_shape, target / PROGRAM, trust)
        files.append(PROGRAM)
    write_atomic(target / checkpoints.ARCHITECTURE, json.dumps(checkpoint.architecture, indent=1).encode())
    write_atomic(target / checkpoints.MODEL, save(tensors))
    program = PROGRAM_TEXT if input_shape is not None else ""
    factory = checkpoint.architecture["factory"]["reference"]
    package = "" if factory.startswith(OURS) else f', trust=["{factory.partition(".")[0].partition(":")[0]}"]'
    text = TEXT.format(name=trial.name, source=newest[0], summary=summary, factory=factory, program=program, trust=package)
    write_atomic(target / README, text.encode())
    return Exported(trial.name, summary, target, (*files, README))


def evaluated_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the network that is evaluated: averages in the place of what they are averages of."""
    averages = checkpoints.under(checkpoints.AVERAGE, tensors)
    return {name: averages.get(name, tensor) for name, tensor in checkpoints.own_tensors(tensors).items()}


def _write_program(
    architecture: dict[str, Any], tensors: dict[str, Tensor], input_shape: tuple[int, ...], path: Path, trust: Collection[str]
) -> None:
    example = torch.zeros(2, *input_shape)
    module = rebuild(architecture, tensors, example_inputs=(example,), trust=trust).module.eval()
    try:
        program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    except (RuntimeError, torch._dynamo.exc.TorchDynamoException) as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(f"the forward of the network must be one that torch.export can trace, but: {first}") from error
    temporary = path.with_name(f".{path.name}.tmp.pt2")
    torch.export.save(program, temporary)
    temporary.replace(path)
