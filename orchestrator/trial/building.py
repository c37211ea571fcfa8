"""Builds what a trial works on, data, loss and network, from its spec or from a checkpoint."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import torch

from coppice.methods.measures.cost import flops
from coppice.methods.network import LossFunction, Network
from coppice.methods.networks.catalog import arguments_for, network_reference
from coppice.methods.record.architecture import import_factory, rebuild
from coppice.orchestrator.config.models import TrialSpec
from coppice.orchestrator.folder.checkpoint import Checkpoint, own_tensors, read
from coppice.orchestrator.seeds import derive
from coppice.orchestrator.tasks.catalog import load_dataset
from coppice.orchestrator.tasks.dataset import Dataset
from coppice.orchestrator.tasks.losses import loss_for
from coppice.orchestrator.trial.baselines import reinitialise


def device_of(spec: TrialSpec) -> torch.device:
    """The device that `training.device` asks for."""
    device = spec.training.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("training.device: cuda needs a GPU that PyTorch can see, but there is none; use auto or cpu.")
    return torch.device(device)


@functools.lru_cache(maxsize=2)
def _dataset(name: str, data_dir: Path | None, arguments: str, device: str) -> Dataset:
    return load_dataset(name, data_dir, **json.loads(arguments)).to(device)


def build_dataset(spec: TrialSpec) -> Dataset:
    """The data set, on the trial's device; kept in memory for the next trial of the process.

    The split into training and validation data is the same for all trials of a campaign: it does not depend on the trial's seed.
    """
    task = spec.task
    return _dataset(task.dataset, task.data_dir, json.dumps(task.dataset_args, sort_keys=True), str(device_of(spec)))


def forget_datasets() -> None:
    """Let go of the data that was kept in memory."""
    _dataset.cache_clear()


def build_loss(spec: TrialSpec, dataset: Dataset) -> LossFunction:
    """The loss of a batch."""
    return loss_for(dataset, spec.task.loss)


def build_task(spec: TrialSpec) -> tuple[Dataset, LossFunction]:
    """The data set and the loss."""
    dataset = build_dataset(spec)
    return dataset, build_loss(spec, dataset)


def build_network(spec: TrialSpec, dataset: Dataset, folder: Path = Path()) -> Network:
    """A freshly initialised network: the task's, or one of the architecture in the checkpoint `spec.architecture`.

    Args:
        spec: the trial.
        dataset: of its task.
        folder: of the trial, from which the checkpoint's path is seen.
    """
    torch.manual_seed(derive(spec.seed, "network"))
    if spec.architecture is not None:
        network = restore_network(read(folder / spec.architecture), dataset, spec)
        reinitialise(network, derive(spec.seed, "network"))
    else:
        reference = network_reference(spec.task.network)
        arguments = arguments_for(spec.task.network, dataset.input_shape, dataset.num_outputs, dict(spec.task.network_args))
        network = Network(import_factory(reference)(**arguments), reference, arguments, _examples(dataset))
    network.module.to(device_of(spec))
    return network


def _examples(dataset: Dataset) -> tuple[torch.Tensor, ...]:
    return (torch.zeros(2, *dataset.input_shape, device=dataset.train.targets.device),)


def restore_network(checkpoint: Checkpoint, dataset: Dataset, spec: TrialSpec) -> Network:
    """The network of a checkpoint, on the trial's device."""
    tensors, trust = own_tensors(checkpoint.tensors), [network_reference(spec.task.network)]
    return rebuild(checkpoint.architecture, tensors, example_inputs=_examples(dataset), device=device_of(spec), trust=trust)


def count_flops(network: Network) -> float:
    """FLOPs of one forward of one sample."""
    return flops(network.module, network.example_inputs)
