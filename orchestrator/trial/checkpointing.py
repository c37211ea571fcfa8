"""Checkpoints of a trial: copied at once, written by a thread while training goes on, found again and put back."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coppice.methods.ranks import Ranks
from coppice.methods.record.architecture import record, tensors_of
from coppice.methods.surgery.optimizer_state import load_optimizer_state, optimizer_state
from coppice.orchestrator.folder import attempts, checkpoint
from coppice.orchestrator.folder.checkpoint import AVERAGE, COMPANION, DATA, KEPT_CHECKPOINTS, Checkpoint
from coppice.orchestrator.folder.layout import TrialFolder
from coppice.orchestrator.tasks.dataset import scales
from coppice.orchestrator.trial.events import EventWriter
from coppice.orchestrator.trial.trainer import Trainer

MOMENT = "optimizer/"


class Staging:
    """Memory on the CPU for copies of tensors, used again for every checkpoint: fresh memory is slow to fill and to read."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def copies(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies by name; the next call may overwrite them."""
        copies = {}
        for name, tensor in tensors.items():
            buffer = self._buffers.get(name)
            if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
                buffer = torch.empty(tensor.shape, dtype=tensor.dtype)
            copies[name] = buffer.copy_(tensor.detach())
        self._buffers = dict(copies)
        return copies


def snapshot(trainer: Trainer, state: dict[str, Any], companions: Mapping[str, Tensor], staging: Staging) -> Checkpoint:
    """Everything a checkpoint holds; tensors are copies in `staging`, so that training may go on while they are written."""
    tensors = dict(tensors_of(trainer.network))
    if trainer.ema is not None:
        tensors |= {AVERAGE + k: v for k, v in trainer.ema.state_dict().items()}
    tensors |= {COMPANION + k: v for k, v in companions.items()}
    tensors |= {DATA + k: v for k, v in scales(trainer.dataset).items()}
    optimizer, scalars = optimizer_state(trainer.optimizer, trainer.network.module)
    copies = staging.copies({**tensors, **{MOMENT + k: v for k, v in optimizer.items()}})
    moments = {k: copies.pop(MOMENT + k) for k in optimizer}
    return Checkpoint(record(trainer.network), copies, moments, copy.deepcopy({**state, "optimizer": scalars, "scaled": True}))


def restore(trainer: Trainer, saved: Checkpoint) -> None:
    """Put back the optimizer's state and the moving average; the trainer has the checkpoint's network already."""
    load_optimizer_state(trainer.optimizer, trainer.network.module, saved.optimizer, saved.state["optimizer"])
    if trainer.ema is not None:
        trainer.ema.load_state_dict(checkpoint.under(AVERAGE, saved.tensors))


@dataclass(frozen=True)
class NewestCheckpoint:
    """The newest valid checkpoint of a trial.

    Attributes:
        path: its folder.
        content: what it holds.
        damaged: what is wrong with each newer one.
    """

    path: Path
    content: Checkpoint
    damaged: list[str]


def newest_checkpoint(folder: Path, ranks: Ranks) -> NewestCheckpoint | None:
    """The newest valid checkpoint in `folder`, None where there is none; all ranks take the one that rank 0 finds.

    Raises:
        CheckpointError: there are checkpoints, but none is valid.
    """
    valid = checkpoint.latest(folder) if ranks.rank == 0 else None
    name = ranks.agree(valid[0].name.encode() if valid else b"").decode()
    if ranks.rank and name:
        return NewestCheckpoint(folder / name, checkpoint.read(folder / name), [])
    return NewestCheckpoint(*valid) if valid else None


class CheckpointWriter:
    """Writes the checkpoints of a trial in a thread of its own, one at a time, and keeps the newest `KEPT_CHECKPOINTS`.

    What goes wrong in the thread is raised by the next `write`, `settle` or `close`.
    """

    def __init__(self, folder: TrialFolder, events: EventWriter) -> None:
        self._folder = folder
        self._events = events
        self._thread = ThreadPoolExecutor(1)
        self._staging = Staging()
        self._writing: Future[Path] | None = None

    def write(self, epoch: int, trainer: Trainer, state: dict[str, Any], companions: Mapping[str, Tensor]) -> None:
        """Copy everything now; the copy is written while training goes on.

        Raises:
            CheckpointError: the checkpoint before could not be written.
            Superseded: a newer attempt runs the trial.
        """
        self.settle()
        content = replace(snapshot(trainer, state, companions, self._staging), events=self._events.so_far())
        attempts.check(self._folder.path)
        self._writing = self._thread.submit(self._write, epoch, content)

    def _write(self, epoch: int, content: Checkpoint) -> Path:
        self._events.sync()
        return checkpoint.write(self._folder.checkpoints, epoch, content)

    def settle(self) -> None:
        """Wait for the checkpoint that is being written, if any; delete those too many, and write the event.

        Raises:
            CheckpointError: it could not be written.
        """
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        path = writing.result()
        checkpoint.keep_newest(self._folder.checkpoints, KEPT_CHECKPOINTS)
        self._events.write("checkpoint", epoch=int(path.name), path=path.name)

    def has(self, epoch: int) -> bool:
        """Whether the checkpoint after `epoch` is on disk."""
        return (self._folder.checkpoints / f"{epoch:06d}").exists()

    def close(self) -> None:
        """Wait for the last checkpoint, and end the thread."""
        self.settle()
        self._thread.shutdown()
