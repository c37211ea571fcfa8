"""One epoch of training of a network whose shape may change between epochs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from coppice.methods.companion import Companion
from coppice.methods.network import LossFunction, Network
from coppice.methods.ranks import ALONE, Ranks
from coppice.methods.surgery.changes import Follower
from coppice.methods.surgery.followers import EmaFollower, OptimizerFollower
from coppice.methods.surgery.masks import apply_masks, mask_gradients
from coppice.orchestrator.config.models import TrainingSpec
from coppice.orchestrator.seeds import derive
from coppice.orchestrator.tasks.batches import num_batches, train_batches
from coppice.orchestrator.tasks.dataset import Dataset
from coppice.orchestrator.trial.data_parallel import TrainingModule, average_buffers
from coppice.orchestrator.trial.errors import NonFiniteLoss
from coppice.orchestrator.trial.optimizers import build_optimizer, lr_at


@dataclass(frozen=True)
class EpochResult:
    """What one epoch of training did: mean loss, optimizer steps taken, samples seen, learning rate of its last step."""

    loss: float
    steps: int
    samples: int
    lr: float


class Trainer:
    """Holds what is trained and steps it.

    Attributes:
        network: the network.
        optimizer: its optimizer; the same object for the trainer's life, resized as the network changes.
        ema: exponential moving average of the network, or None.
        ranks: the processes that train the network together.
        followers: what `apply` must resize with the network.
    """

    def __init__(
        self, network: Network, dataset: Dataset, loss: LossFunction, spec: TrainingSpec, seed: int, ranks: Ranks = ALONE
    ) -> None:
        self.network = network
        self.dataset = dataset
        self.loss = loss
        self.spec = spec
        self.seed = seed
        self.ranks = ranks
        self._training_module = TrainingModule(network, ranks, spec.compile)
        self.optimizer = build_optimizer(spec.optimizer, network.module.parameters())
        self.ema: nn.Module | None = copy.deepcopy(network.module) if spec.ema is not None else None
        self._base_lrs = [group["lr"] for group in self.optimizer.param_groups]
        self.followers: list[Follower] = [OptimizerFollower(self.optimizer, network.module)]
        if self.ema is not None:
            self.followers.append(EmaFollower(self.ema, network.module))

    @property
    def evaluated(self) -> nn.Module:
        """The module whose metrics count: the average where there is one."""
        return self.network.module if self.ema is None else self.ema

    def train_epoch(self, epoch: int, companions: Sequence[Companion], after_step: Callable[[], None]) -> EpochResult:
        """Train for one epoch (numbered from 1).

        Args:
            epoch: which one; data order, augmentation and dropout depend on it and on the seed only.
            companions: called around each optimizer step.
            after_step: called after each optimizer step (removals spread over steps).

        Raises:
            NonFiniteLoss: the loss is NaN or infinite.
        """
        rank, ranks = self.ranks.rank, self.ranks.size
        torch.manual_seed(derive(self.seed, "epoch", epoch, *([rank] if rank else [])))
        self.network.module.train()
        sums = torch.zeros(2, device=self.network.device(), dtype=torch.float64)
        seed, size, num = derive(self.seed, "batches"), self.spec.batch_size, len(self.dataset.train)
        steps, total_steps, lr = 0, num_batches(num, size, ranks), 0.0
        for inputs, targets in train_batches(self.dataset, size, seed, epoch, self.spec.augment, (rank, ranks)):
            lr = self._set_lr((epoch - 1 + steps / total_steps) / self.spec.epochs)
            whole = min(size, num - steps * size)
            loss = self._step(inputs, targets, ranks * len(targets) / whole, companions)
            after_step()
            sums += torch.stack([loss.detach().double() * len(targets), torch.full_like(sums[0], len(targets))])
            steps += 1
            if steps % 50 == 0:
                self._check(sums, epoch, steps)
        self._training_module.unwrap()
        average_buffers(self.ranks, self.network.module)
        self._follow_buffers()
        total, samples = self._check(sums, epoch, steps)
        return EpochResult(total / max(samples, 1), steps, int(samples), lr)

    def _step(self, inputs: Tensor, targets: Tensor, weight: float, companions: Sequence[Companion]) -> Tensor:
        """One step; `weight` makes up for ranks that have a sample more than others, as gradients are averaged over ranks."""
        self.optimizer.zero_grad(set_to_none=True)
        with precision(self.spec, inputs.device):
            loss = self.loss(self._training_module.module()(inputs), targets)
        (loss if weight == 1 else loss * weight).backward()
        for companion in companions:
            companion.after_backward(self.network)
        mask_gradients(self.network)
        if self.spec.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.network.module.parameters(), self.spec.gradient_clip)
        for companion in companions:
            companion.before_step(self.network, self.optimizer)
        self.optimizer.step()
        for companion in companions:
            companion.after_step(self.network, self.optimizer)
        apply_masks(self.network)
        if self.ema is not None and self.spec.ema is not None:
            self._average(self.ema, self.spec.ema)
        return loss

    @torch.no_grad()
    def _average(self, ema: nn.Module, decay: float) -> None:
        for average, parameter in zip(ema.parameters(), self.network.module.parameters(), strict=True):
            average.lerp_(parameter, 1 - decay)
        self._follow_buffers()

    @torch.no_grad()
    def _follow_buffers(self) -> None:
        """The average has the network's own buffers."""
        if self.ema is None:
            return
        for average_buffer, buffer in zip(self.ema.buffers(), self.network.module.buffers(), strict=True):
            average_buffer.copy_(buffer)

    def _set_lr(self, progress: float) -> float:
        lr = 0.0
        for group, base in zip(self.optimizer.param_groups, self._base_lrs, strict=True):
            group["lr"] = lr = lr_at(self.spec.lr_schedule, base, progress)
        return lr

    def _check(self, sums: Tensor, epoch: int, steps: int) -> tuple[float, float]:
        """Summed loss and number of samples, over all ranks.

        Raises:
            NonFiniteLoss: see `train_epoch`; on all ranks at once.
        """
        whole = sums.clone()
        self.ranks.sum(whole)
        total, samples = whole.tolist()
        if not math.isfinite(total):
            raise NonFiniteLoss(
                f"the training loss must stay finite, but it became {total} in epoch {epoch} by step {steps}; "
                "lower the learning rate, clip gradients (training.gradient_clip) or grow by less."
            )
        return total, samples


def precision(spec: TrainingSpec, device: torch.device) -> AbstractContextManager[Any]:
    """The precision of forward passes; weights and optimizer stay in float32."""
    if spec.precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
