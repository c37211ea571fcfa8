"""One epoch of training of a network whose shape may change between epochs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.companion import Companion
from methods.network import LossFunction, Network
from methods.surgery.changes import Follower
from methods.surgery.followers import EmaFollower, OptimizerFollower
from methods.surgery.masks import apply_masks, mask_gradients
from orchestrator.config import TrainingSpec
from orchestrator.optimizers import build_optimizer, lr_at
from orchestrator.seeds import derive
from orchestrator.tasks.batches import num_batches, train_batches
from orchestrator.tasks.dataset import Dataset


class NonFiniteLoss(RuntimeError):
    """The training loss became NaN or infinite."""


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
        followers: what `apply` must resize with the network.
    """

    def __init__(self, network: Network, dataset: Dataset, loss: LossFunction, spec: TrainingSpec, seed: int) -> None:
        self.network = network
        self.dataset = dataset
        self.loss = loss
        self.spec = spec
        self.seed = seed
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
        torch.manual_seed(derive(self.seed, "epoch", epoch))
        module = self.network.module
        module.train()
        total = torch.zeros((), device=self.network.device(), dtype=torch.float64)
        samples = steps = 0
        seed = derive(self.seed, "batches")
        batches = train_batches(self.dataset, self.spec.batch_size, seed, epoch, augment=self.spec.augment)
        total_steps = num_batches(len(self.dataset.train), self.spec.batch_size)
        lr = 0.0
        for inputs, targets in batches:
            lr = self._set_lr((epoch - 1 + steps / total_steps) / self.spec.epochs)
            loss = self._step(inputs, targets, companions)
            after_step()
            total += loss.detach() * len(targets)
            samples += len(targets)
            steps += 1
            if steps % 50 == 0:
                self._check(total, epoch, steps)
        self._check(total, epoch, steps)
        return EpochResult(float(total) / max(samples, 1), steps, samples, lr)

    def _step(self, inputs: Tensor, targets: Tensor, companions: Sequence[Companion]) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.network.module(inputs), targets)
        loss.backward()
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
        for average_buffer, buffer in zip(ema.buffers(), self.network.module.buffers(), strict=True):
            average_buffer.copy_(buffer)

    def _set_lr(self, progress: float) -> float:
        lr = 0.0
        for group, base in zip(self.optimizer.param_groups, self._base_lrs, strict=True):
            group["lr"] = lr = lr_at(self.spec.lr_schedule, base, progress)
        return lr

    def _check(self, total: Tensor, epoch: int, steps: int) -> None:
        if not math.isfinite(float(total)):
            raise NonFiniteLoss(
                f"the training loss must stay finite, but it became {float(total)} in epoch {epoch} by step {steps}; "
                "lower the learning rate, clip gradients (training.gradient_clip) or grow by less."
            )
