"""One trial, rehearsed: its parts are built, and a batch of real samples goes forward, through loss and metrics, and backward."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import torch

from coppice.methods.network import LossFunction, Network
from coppice.orchestrator.config.models import Campaign, TrialSpec
from coppice.orchestrator.placement.ray_bundles import ranks_of
from coppice.orchestrator.planning.checks import check_factory
from coppice.orchestrator.planning.metrics import COSTS, check_metrics
from coppice.orchestrator.planning.patterns import check_patterns
from coppice.orchestrator.planning.problems import Fault, Faults, Place, fault_of
from coppice.orchestrator.tasks.batches import num_batches
from coppice.orchestrator.tasks.dataset import Dataset
from coppice.orchestrator.tasks.metrics import evaluate
from coppice.orchestrator.tasks.splits import limited
from coppice.orchestrator.trial.adaptation import TrialAdaptation, build_companions
from coppice.orchestrator.trial.baselines import big
from coppice.orchestrator.trial.building import build_dataset, build_loss, build_network, count_flops
from coppice.orchestrator.trial.trainer import Trainer
from coppice.scheduler.triggers.base import Progress

FEW = 32
"""Samples of a rehearsal, at most."""
FIRST_EPOCHS = 20
"""Epochs after which triggers are asked."""


def key_of(trial: TrialSpec) -> str:
    """What is built for a trial, written down: the same for trials that differ in nothing but numbers of the training."""
    acts = [(a.kind, a.how.model_dump(), a.when.model_dump()) for a in trial.adaptations]
    return json.dumps([trial.task.model_dump(mode="json"), trial.training.batch_size, acts], sort_keys=True)


class RehearsedTrial:
    """A trial that is tried out. Call `build`, then `train` where it finds nothing wrong; both give faults of the trial's tree.

    Attributes:
        kind: data, loss and network by name: trials of one kind differ in sizes.
        parameters: of the network.
    """

    def __init__(self, spec: TrialSpec, campaign: Campaign, begun: bool = False) -> None:
        self.spec = spec
        self._begun = begun
        self.parameters = 0
        self._campaign = campaign
        task = spec.task.model_dump(mode="json")
        self.kind = json.dumps([task["dataset"], task["data_dir"], task["dataset_args"], task["loss"], task["network"]])

    def build(self) -> list[Fault]:
        """Build data, loss, network, and what methods keep beside it; the first thing that goes wrong."""
        faults = _first(
            (("task", "dataset"), self._dataset),
            (("task", "loss"), self._loss),
            (("training", "batch_size"), self._fits),
            (("task", "network"), self._count),
            (("adaptations",), lambda: self._adaptations(self._network())),
        )
        return faults if faults or self._begun else self._patterns()

    def _patterns(self) -> list[Fault]:
        network = self._network() if any(a.elements for a in self.spec.adaptations) else None
        return [] if network is None else list(check_patterns(self._adaptations(network), network))

    def train(self) -> list[Fault]:
        """Let one batch through; the first thing that goes wrong."""
        few, loss, network = self._few(), self._loss(), self._network()
        reported: dict[str, float] = {}

        def learn() -> None:
            adaptations = self._adaptations(network)
            companions = [a.companion for a in adaptations if a.companion is not None]
            trainer = Trainer(network, few, loss, self.spec.training, self.spec.seed)
            reported["train_loss"] = trainer.train_epoch(1, companions, lambda: None).loss

        def judge() -> None:
            for split in ("val", "test") if few.test is not None else ("val",):
                found = evaluate(network.module, few, split, loss)
                reported.update({f"{split}_{name}": value for name, value in found.items()})

        faults = _first(
            (("task", "network"), lambda: self._forward(network, few)),
            (("task", "loss"), lambda: self._check_loss(network, few, loss)),
            (("training",), learn),
            (("task",), judge),
        )
        return faults or [*self._metrics(reported), *self._triggers(reported), *self._big(few)]

    def _dataset(self) -> Dataset:
        return build_dataset(self.spec)

    def _few(self) -> Dataset:
        most = min(self.spec.training.batch_size, FEW)
        return limited(self._dataset(), 0, train=most, evaluation=most)

    def _loss(self) -> LossFunction:
        return build_loss(self.spec, self._dataset())

    def _network(self) -> Network:
        return build_network(self.spec, self._dataset())

    def _count(self) -> None:
        network = self._network()
        self.parameters = network.num_parameters()
        empty = [f"{name} {list(p.shape)}" for name, p in network.module.named_parameters() if not p.numel()]
        if empty:
            raise ValueError(f"all parameters must have entries, but {', '.join(empty[:3])} have none: a width is 0.")
        if not self.parameters:
            raise ValueError(f"{self.spec.task.network} must have parameters to train, but has none.")

    def _fits(self) -> None:
        """Raise where the training data makes no batch of this size."""
        size, samples, resources = self.spec.training.batch_size, len(self._dataset().train), self._campaign.resources
        if size > samples and not self._begun and "batch_size" in self.spec.training.model_fields_set:
            raise ValueError(f"must be at most the number of training samples, which is {samples}, but is {size}.")
        num_batches(samples, size, ranks_of(resources))

    def _adaptations(self, network: Network) -> list[TrialAdaptation]:
        """The trial's adaptations, with what their methods keep beside the network."""
        adaptations = [TrialAdaptation.build(i, a) for i, a in enumerate(self.spec.adaptations)]
        build_companions(adaptations, network)
        for companion in {id(a.companion): a.companion for a in adaptations if a.companion is not None}.values():
            companion.begin(network)
        return adaptations

    def _forward(self, network: Network, few: Dataset) -> torch.Tensor:
        """The output for the first samples, in eval mode."""
        network.module.eval()
        with torch.no_grad():
            output = network.module(few.normalise(few.val.inputs))
        if not isinstance(output, torch.Tensor):
            raise TypeError(f"{self.spec.task.network} must return one tensor, but returns a {type(output).__name__}.")
        return output

    def _check_loss(self, network: Network, few: Dataset, loss: LossFunction) -> None:
        output, targets = self._forward(network, few), few.val.targets
        expected = (len(targets), few.num_outputs)
        if self.spec.task.loss is None and tuple(output.shape) != expected:
            raise ValueError(f"the network must return {expected} for {len(targets)} samples, but returns {tuple(output.shape)}.")
        value = loss(output, targets)
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            raise ValueError(f"the loss must be one number for a batch, but is {_shape(value)}.")
        if not bool(torch.isfinite(value)):
            raise ValueError(f"the loss of the untrained network must be finite, but is {float(value)}.")

    def _metrics(self, reported: Mapping[str, float]) -> Faults:
        """Whether the search goes by what such a trial reports."""
        return check_metrics(self._campaign.search, {*COSTS, *(name for name in reported if name.startswith("val_"))})

    def _triggers(self, reported: Mapping[str, float]) -> Faults:
        """Ask triggers that look at reported metrics only."""
        costs = {"lr": 0.0, "seconds": 1.0, "parameters": float(self.parameters), "flops": count_flops(self._network())}
        epochs = self.spec.training.epochs
        history = [{**reported, **costs, "epoch": float(e), "compute": e * costs["flops"]} for e in range(1, epochs + 1)]
        for i, spec in enumerate(self.spec.adaptations):
            trigger = TrialAdaptation.build(i, spec).trigger

            def ask(trigger=trigger, kind=spec.kind) -> None:  # type: ignore[no-untyped-def]
                for epoch in range(1, min(epochs, FIRST_EPOCHS)):
                    trigger.fires(Progress(epoch, epochs, tuple(history[:epoch]), kind=kind))

            if not trigger.wants and not trigger.initially:
                yield from fault_of(("adaptations", i, spec.kind, "when"), ask)

    def _big(self, few: Dataset) -> Faults:
        """Whether the network that the best one is compared with can be built, and runs."""
        changes = self._campaign.compare.big
        if changes is None:
            return
        larger = RehearsedTrial(big(self.spec, changes), self._campaign)

        def run() -> None:
            check_factory(larger.spec.task.network, larger.spec.task.network_args)
            network = larger._network()
            larger._check_loss(network, few, self._loss())

        yield from fault_of(("compare", "big"), run)


def _shape(value: object) -> str:
    return f"of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"


def _first(*steps: tuple[Place, Callable[[], object]]) -> list[Fault]:
    """The fault of the first step that goes wrong; nothing where all go well."""
    for place, step in steps:
        if faults := list(fault_of(place, step)):
            return faults
    return []
