"""What the best grown-and-pruned network is compared with: the static one of its final size, and the big one.

`static` has the best trial's final architecture from its first epoch on and trains from a fresh initialisation with the
same training settings; `big` is the task's network with other arguments. Neither grows nor prunes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from coppice.methods.network import Network
from coppice.orchestrator.config.models import TrialSpec


def static(best: TrialSpec, checkpoint: Path, name: str | None = None) -> TrialSpec:
    """The trial that trains the architecture of `checkpoint`, one of the best trial's, from scratch; `name`: that trial's."""
    return best.model_copy(update={"adaptations": (), "architecture": checkpoint, "label": "static", "compared_with": name})


def big(best: TrialSpec, network_args: Mapping[str, Any], name: str | None = None) -> TrialSpec:
    """The trial that trains the task's network with these arguments changed; `name`: the best trial's."""
    task = best.task.model_copy(update={"network_args": {**best.task.network_args, **network_args}})
    return best.model_copy(update={"adaptations": (), "task": task, "label": "big", "compared_with": name})


def reinitialise(network: Network, seed: int) -> None:
    """Give every parameter a fresh value, at the shape it has.

    Modules draw through their own `reset_parameters`, the outermost last, so that a network's own initialisation has the last
    word; parameters that no such module owns are
    drawn from a normal distribution with the mean and deviation of their present values. Masks are dropped.
    """
    network.masks.clear()
    torch.manual_seed(seed)
    drawn: set[int] = set()
    for module in reversed(list(network.module.modules())):
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
            drawn.update(id(p) for p in module.parameters(recurse=False))
    with torch.no_grad():
        for parameter in network.module.parameters():
            if id(parameter) not in drawn and parameter.numel() > 1:
                nn.init.normal_(parameter, float(parameter.mean()), float(parameter.std()))
