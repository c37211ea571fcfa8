"""Optimizers and learning-rate schedules by name; a schedule is a pure function of progress, so resuming needs no state."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from coppice.orchestrator.config.models import Named

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}
SCHEDULE_POINTS = 64
"""Places in a training at which a schedule is tried."""


def optimizer_arguments(name: str) -> list[str]:
    """The arguments that the optimizer called `name` takes."""
    return [p for p in inspect.signature(OPTIMIZERS[name]).parameters if p not in ("self", "params")]


def build_optimizer(named: Named, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer called `named.name` over `parameters`.

    Raises:
        ValueError: unknown name or argument; the message lists the known ones.
    """
    if named.name not in OPTIMIZERS:
        raise ValueError(f"the optimizer must be one of {sorted(OPTIMIZERS)}, but got {named.name!r}.")
    known = optimizer_arguments(named.name)
    unknown = sorted(set(named.arguments) - set(known))
    if unknown:
        raise ValueError(f"optimizer {named.name} takes the arguments {known}, but got {unknown}.")
    return OPTIMIZERS[named.name](parameters, **named.arguments)


def try_optimizer(named: Named) -> None:
    """Build the optimizer over one parameter and take a step with it, so that what is wrong with its arguments is found.

    Raises:
        ValueError: unknown name or argument, or one out of range.
        Exception: whatever PyTorch says of a value of the wrong kind.
    """
    parameter = nn.Parameter(torch.zeros(2, 2))
    optimizer = build_optimizer(named, [parameter])
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    if not bool(parameter.isfinite().all()):
        raise ValueError(f"a step of {named.name} must stay finite, but with {named.arguments} it does not; see its arguments.")


def constant(progress: float) -> float:
    """The base learning rate throughout."""
    return 1.0


def cosine(progress: float, warmup: float = 0.0, final: float = 0.0) -> float:
    """Linear warm-up over the fraction `warmup`, then half a cosine down to `final` times the base rate."""
    if progress < warmup:
        return progress / warmup
    turned = (progress - warmup) / (1.0 - warmup)
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * min(turned, 1.0)))


def step(progress: float, at: tuple[float, ...] = (0.5, 0.75), factor: float = 0.1) -> float:
    """Multiplied by `factor` at each of the fractions `at`."""
    return factor ** sum(progress >= fraction for fraction in at)


LR_SCHEDULES: dict[str, Callable[..., float]] = {"constant": constant, "cosine": cosine, "step": step}


def lr_at(named: Named, base_lr: float, progress: float) -> float:
    """Learning rate at `progress` in [0, 1) of the training.

    Raises:
        ValueError: unknown schedule or argument.
    """
    if named.name not in LR_SCHEDULES:
        raise ValueError(f"lr_schedule must be one of {sorted(LR_SCHEDULES)}, but got {named.name!r}.")
    schedule = LR_SCHEDULES[named.name]
    arguments: dict[str, Any] = named.arguments
    unknown = sorted(set(arguments) - set(inspect.signature(schedule).parameters))
    if unknown:
        known = [p for p in inspect.signature(schedule).parameters if p != "progress"]
        raise ValueError(f"lr_schedule {named.name} takes {known or 'no arguments'}, but got {unknown}.")
    return base_lr * schedule(progress, **arguments)


def try_schedule(named: Named) -> None:
    """Ask for the learning rate all over the training.

    Raises:
        ValueError: unknown schedule or argument, or a rate that is negative or not finite.
    """
    for at in range(SCHEDULE_POINTS):
        progress = at / SCHEDULE_POINTS
        rate = lr_at(named, 1.0, progress)
        if not (math.isfinite(rate) and rate >= 0):
            raise ValueError(f"lr_schedule {named.name} must give a rate of at least 0, but after {progress:.0%} it is {rate:g}.")
