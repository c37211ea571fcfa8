"""Copies a network out of a campaign: its record and its tensors, or a `torch.export` program that needs no code of ours."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from coppice.methods.record.factory import OURS
from coppice.orchestrator.folder import checkpoint as checkpoints
from coppice.orchestrator.folder.checkpoint import Checkpoint
from coppice.orchestrator.folder.files import write_atomic
from coppice.orchestrator.folder.layout import CHECKPOINTS
from coppice.orchestrator.plain_text import plain
from coppice.orchestrator.report.checksums import SUMS, write_sums
from coppice.orchestrator.report.program import write_program

PROGRAM, README = "model.pt2", "README.md"
TEXT = """# {name}

From `{source}`: {summary}
{damaged}
`architecture.json` says what the network is, `model.safetensors` holds its tensors. With Coppice and the code of the network
(`{factory}`) importable:

    import coppice
    network = coppice.load_network("."{trust})  # this folder
    model = network.module.eval()  # a plain torch.nn.Module
{data}{program}"""
PROGRAM_TEXT = """
`model.pt2` is the same network, in eval mode, as a program for any batch size; it needs PyTorch only{does}:

    import torch
    model = torch.export.load("model.pt2").module()
"""
SCALED_TEXT = """
The network was trained on normalised values. {which} `architecture.json` holds mean and std under `data`:

    import json, torch
    data = json.load(open("architecture.json"))["data"]
    scale = {{k: torch.tensor(v, dtype=torch.float64) for k, v in data["{of}"].items()}}
    {code}
"""
WHICH = {
    "inputs": "It takes (x - mean) / std of the data set's inputs x.",
    "targets": "Its outputs times std plus mean are in the data set's own unit.",
}
CODE = {"inputs": 'inputs = ((inputs - scale["mean"]) / scale["std"]).float()  # before model(inputs)',
        "targets": 'outputs = outputs * scale["std"] + scale["mean"]  # after outputs = model(inputs)'}
UNKNOWN_TEXT = """
How the data set's inputs are normalised is not known: the checkpoint is of an earlier version, and the data cannot be loaded.
"""


@dataclass(frozen=True)
class Source:
    """What is copied: a trial's newest valid checkpoint, its folder, and what is wrong with newer ones."""

    trial: str
    path: Path
    checkpoint: Checkpoint
    damaged: tuple[str, ...]

    @property
    def metrics(self) -> dict[str, float]:
        """Those of the checkpoint's own epoch; empty where its writer keeps no history."""
        history = self.checkpoint.state.get("history") or [{}]
        return dict(history[-1])

    @property
    def scales(self) -> dict[str, Tensor] | None:
        """See `coppice.orchestrator.tasks.dataset.scales`; None where the checkpoint does not know."""
        known = self.checkpoint.state.get("scaled")
        return checkpoints.under(checkpoints.DATA, self.checkpoint.tensors) if known else None


@dataclass(frozen=True)
class Exported:
    """What was written: of which trial, how good it is in a sentence, the folder, its files, and what was damaged."""

    trial: str
    summary: str
    folder: Path
    files: tuple[str, ...]
    damaged: tuple[str, ...] = ()


class NoNetwork(ValueError):
    """A trial keeps no checkpoint of ours: it has written none yet, or its body keeps what it trains in its own way."""


def source_of(trial: Path) -> Source:
    """What would be copied of the trial in a folder.

    Raises:
        NoNetwork: the trial has no checkpoint.
        CheckpointError: its checkpoints are damaged.
    """
    newest = checkpoints.latest(trial / CHECKPOINTS)
    if newest is None:
        raise NoNetwork(f"{trial} must have a checkpoint to copy the network from, but has none yet.")
    return Source(trial.name, newest[0], newest[1], tuple(newest[2]))


def export(
    source: Path | Source, target: Path, summary: str, *,
    input_shape: tuple[int, ...] | None = None, scales: Mapping[str, Tensor] | None = None, trust: Collection[str] = (),
) -> Exported:  # fmt: skip
    """Copy the newest valid checkpoint's network of a trial into `target`.

    Where the trial kept an exponential moving average of the network, that is what is copied: its metrics are the trial's.

    Args:
        source: folder of the trial, or what `source_of` found there.
        target: folder to write into; files of an earlier export there are replaced.
        summary: how good the network is, in a sentence, for the README.
        input_shape: shape of one sample; when given, a `torch.export` program is written as well.
        scales: how the data is normalised, where the checkpoint, of an earlier version, does not say it.
        trust: packages whose functions may be called to build the network for that.

    Raises:
        Untrusted: the program needs the network, which is built by code that is neither ours nor trusted.
        ValueError: the trial has no checkpoint, or its forward cannot be exported by `torch.export`.
        CheckpointError: its checkpoints are damaged.
    """
    source = source_of(source) if isinstance(source, Path) else source
    scales = source.scales if source.scales is not None else scales
    architecture, tensors = source.checkpoint.architecture, evaluated_tensors(source.checkpoint.tensors)
    target.mkdir(parents=True, exist_ok=True)
    for name in (SUMS, PROGRAM):
        (target / name).unlink(missing_ok=True)
    files = [checkpoints.ARCHITECTURE, checkpoints.MODEL]
    if input_shape is not None:
        write_program(architecture, tensors, scales or {}, input_shape, target / PROGRAM, trust)
        files.append(PROGRAM)
    data = {} if scales is None else {"data": _as_json(scales)}
    write_atomic(target / checkpoints.ARCHITECTURE, json.dumps({**architecture, **data}, indent=1).encode())
    write_atomic(target / checkpoints.MODEL, save(tensors))
    write_atomic(target / README, plain(_readme(source, summary, scales, input_shape is not None)).encode())
    write_sums(target, files)
    return Exported(source.trial, summary, target, (*files, README, SUMS), source.damaged)


def _readme(source: Source, summary: str, scales: Mapping[str, Tensor] | None, program: bool) -> str:
    of = [of for of in WHICH if f"{of}.mean" in (scales or {})]
    data = UNKNOWN_TEXT if scales is None else "".join(SCALED_TEXT.format(which=WHICH[o], of=o, code=CODE[o]) for o in of)
    does = f" and does the normalisation of {' and '.join(of)} itself" if of else ""
    damaged = "".join(f"\nA newer checkpoint is damaged and was not used: {problem}\n" for problem in source.damaged)
    factory = source.checkpoint.architecture["factory"]["reference"]
    package = "" if factory.startswith(OURS) else f', trust=["{factory.partition(".")[0].partition(":")[0]}"]'
    return TEXT.format(
        name=source.trial, source=source.path, summary=summary, damaged=damaged, data=data, factory=factory, trust=package,
        program=PROGRAM_TEXT.format(does=does) if program else "",
    )


def _as_json(scales: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, values in scales.items():
        of, _, key = name.partition(".")
        found.setdefault(of, {})[key] = values.tolist()
    return found


def evaluated_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the network that is evaluated: averages in the place of what they are averages of."""
    averages = checkpoints.under(checkpoints.AVERAGE, tensors)
    return {name: averages.get(name, tensor) for name, tensor in checkpoints.own_tensors(tensors).items()}
