"""Builds what a trial works on from its spec or from a checkpoint, and captures it again."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from methods.architecture import import_factory, rebuild, record, tensors_of
from methods.cost import flops
from methods.network import LossFunction, Network
from methods.networks.catalog import arguments_for, network_reference
from methods.surgery.optimizer_state import optimizer_state
from orchestrator.checkpoint import AVERAGE, COMPANION, Checkpoint, own_tensors, read
from orchestrator.compare import reinitialise
from orchestrator.config import TrialSpec
from orchestrator.seeds import derive
from orchestrator.tasks.catalog import load_dataset
from orchestrator.tasks.dataset import Dataset
from orchestrator.tasks.losses import loss_for
from orchestrator.training import Trainer

MOMENT = "optimizer/"


def device_of(spec: TrialSpec) -> torch.device:
    """The device that `training.device` asks for."""
    wanted = spec.training.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("training.device: cuda needs a GPU that PyTorch can see, but there is none; use auto or cpu.")
    return torch.device(wanted)


@functools.lru_cache(maxsize=2)
def _dataset(name: str, data_dir: Path | None, arguments: str, device: str) -> Dataset:
    return load_dataset(name, data_dir, **json.loads(arguments)).to(device)


def build_task(spec: TrialSpec) -> tuple[Dataset, LossFunction]:
    """The data set, on the trial's device (kept in memory for the next trial of the process), and the loss.

    The split into training and validation data is the same for all trials of a campaign: it does not depend on the trial's seed.
    """
    task = spec.task
    dataset = _dataset(task.dataset, task.data_dir, json.dumps(task.dataset_args, sort_keys=True), str(device_of(spec)))
    return dataset, loss_for(dataset, None if task.loss is None else {task.loss.name: task.loss.arguments})


def build_network(spec: TrialSpec, dataset: Dataset) -> Network:
    """A freshly initialised network: the task's, or one of the architecture in the checkpoint `spec.architecture`."""
    torch.manual_seed(derive(spec.seed, "network"))
    if spec.architecture is not None:
        network = restore_network(read(spec.architecture), dataset, spec)
        reinitialise(network, derive(spec.seed, "network"))
    else:
        reference = network_reference(spec.task.network)
        given = arguments_for(spec.task.network, dataset.input_shape, dataset.num_outputs, dict(spec.task.network_args))
        network = Network(import_factory(reference)(**given), reference, given, _examples(dataset))
    network.module.to(device_of(spec))
    return network


def _examples(dataset: Dataset) -> tuple[torch.Tensor, ...]:
    return (torch.zeros(2, *dataset.input_shape, device=dataset.train.targets.device),)


def restore_network(checkpoint: Checkpoint, dataset: Dataset, spec: TrialSpec) -> Network:
    """The network of a checkpoint, on the trial's device."""
    tensors = own_tensors(checkpoint.tensors)
    return rebuild(checkpoint.architecture, tensors, example_inputs=_examples(dataset), device=device_of(spec))


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


def count_flops(network: Network) -> float:
    """FLOPs of one forward of one sample."""
    return flops(network.module, network.example_inputs)
