"""PURPOSE"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from coppice.methods.record.architecture import record, tensors_of
from coppice.methods.surgery.optimizer_state import optimizer_state
from coppice.orchestrator.folder.checkpoint import AVERAGE, COMPANION, Checkpoint
from coppice.orchestrator.trial.trainer import Trainer

MOMENT = "optimizer/"


class Staging:
    """Memory on the CPU for copies of tensors, used again for every checkpoint: fresh memory is slow to fill and to read."""

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def copies(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies by name; the next call may overwrite them."""
        found = {}
        for name, tensor in tensors.items():
            held = self._held.get(name)
            if held is None or held.shape != tensor.shape or held.dtype != tensor.dtype:
                held = torch.empty(tensor.shape, dtype=tensor.dtype)
            found[name] = held.copy_(tensor.detach())
        self._held = dict(found)
        return found


def capture(trainer: Trainer, state: dict[str, Any], companions: Mapping[str, Tensor], staging: Staging) -> Checkpoint:
    """Everything a checkpoint holds; tensors are copies in `staging`, so that training may go on while they are written."""
    tensors = dict(tensors_of(trainer.network))
    if trainer.ema is not None:
        tensors |= {AVERAGE + k: v for k, v in trainer.ema.state_dict().items()}
    tensors |= {COMPANION + k: v for k, v in companions.items()}
    optimizer, scalars = optimizer_state(trainer.optimizer, trainer.network.module)
    copies = staging.copies({**tensors, **{MOMENT + k: v for k, v in optimizer.items()}})
    moments = {k: copies.pop(MOMENT + k) for k in optimizer}
    return Checkpoint(record(trainer.network), copies, moments, copy.deepcopy({**state, "optimizer": scalars}))
