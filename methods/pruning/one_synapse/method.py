"""One synapse at a time: trials without the smallest ones, retrained; the best is kept (Shemyakova and Khashin 2021)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from coppice.methods.apply import apply
from coppice.methods.graph.values import Element
from coppice.methods.measures.statistics import mean_loss, require_finite
from coppice.methods.method import Context, Measurement, Method, parameter
from coppice.methods.network import Network
from coppice.methods.plan import MaskPlan
from coppice.methods.pruning.one_synapse.retraining import retrain
from coppice.methods.ranks import ALONE
from coppice.methods.surgery.masks import mask_of
from coppice.methods.surgery.tensors import get_tensor

Place = tuple[str, int]
"""A tensor and a position in it, flat."""


@dataclass(frozen=True)
class OneSynapse(Method):
    """Removes the synapse without which a briefly retrained copy of the network is best.

    The weights that go into each neuron (a row of a tensor) are divided by its largest. The `candidates` smallest of all are
    zeroed in turn; for the `trials` with the smallest loss a copy without it is retrained (masked weights stay zero). The best
    copy is taken over, weights and all, if its loss is at most (1 + `tolerance`) times the loss before the event; otherwise
    nothing is offered. With `most` above 1 this repeats on the copy, against the same loss before.

    What a trial removed goes together, whatever the amount asks: the event is offered as one unit of the tensor that loses the
    first synapse, and the plan masks all tensors that lose one.
    """

    kind = "prune"
    levels = ("weight",)
    why = "each synapse that goes is tried, not estimated: the loss after retraining decides"
    paper = "Shemyakova and Khashin 2021 (arXiv 2108.02231), with N1 = 8, N2 = 3, epsilon = 0.002"
    preserves = False
    batch_norm = "eval mode in trials: statistics stay; scales and shifts are retrained"
    cost = "for each synapse candidates x forward, trials x steps x forward and backward"
    where = ("global",)
    advises = True

    candidates: int = parameter(8, "smallest relative weights whose removal is measured (N1)", low=1, high=10000, log=True)
    trials: int = parameter(3, "of these, how many are retrained (N2)", low=1, high=1000, log=True)
    tolerance: float = parameter(0.002, "the loss may grow by this fraction in an event (epsilon)", low=0.0, high=10.0)
    most: int = parameter(1, "synapses an event removes", low=1, high=10000, log=True)
    optimizer: str = parameter("lbfgs", "retrains trials", choices=("lbfgs", "adam"))
    steps: int = parameter(10, "steps of a trial", low=0, high=10000)
    rate: float = parameter(0.01, "learning rate of adam", low=1e-6, high=1.0, log=True)
    num_batches: int = parameter(8, "batches that losses are taken over and trials are retrained on", low=1, high=10000)

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """The best trial. Only the element that loses the first synapse gets scores: 0 for it, at least 1 for others."""
        if not elements:
            return Measurement({})
        for element in elements:
            require_finite(element.name, get_tensor(context.network.module, element.name))
        before = float(mean_loss(context, self.num_batches))
        names = [e.name for e in elements]
        gone: list[Place] = []
        trial, after = context, before
        while len(gone) < self.most:
            best = self._best(trial, names)
            if best is None or best[2] > before * (1 + self.tolerance):
                break
            trial, place, after = best
            gone.append(place)
        if not gone:
            return Measurement({}, signals={"loss": before})
        first, position = gone[0]
        scores = 1 + get_tensor(context.network.module, first).detach().abs().double().flatten().cpu()
        scores[position] = 0.0
        kept = scores[mask_of(context.network, first).flatten().cpu()]
        return Measurement({first: kept}, {first: _plan_data(context, trial, gone, after - before)}, {first: 1}, {"loss": before})

    def _best(self, context: Context, names: Sequence[str]) -> tuple[Context, Place, float] | None:
        """The best retrained copy without one more synapse, which one, and its loss; None where none is left."""
        tried = sorted((_loss_without(context, place, self.num_batches), place) for place in self._smallest(context, names))
        best: tuple[Context, Place, float] | None = None
        for _, (name, position) in tried[: self.trials]:
            trial = _copy(context)
            mask = mask_of(trial.network, name).cpu()
            mask.view(-1)[position] = False
            apply(trial.network, MaskPlan({name: mask}))
            retrain(trial, self.optimizer, self.steps, self.rate, self.num_batches)
            loss = float(mean_loss(trial, self.num_batches))
            if best is None or loss < best[2]:
                best = (trial, (name, position), loss)
        return best

    def _smallest(self, context: Context, names: Sequence[str]) -> list[Place]:
        """The candidates: synapses that are smallest beside the largest of their neuron."""
        ranked: list[tuple[float, Place]] = []
        for name in names:
            size, mask = (
                get_tensor(context.network.module, name).detach().abs().double().cpu(),
                mask_of(context.network, name).cpu(),
            )
            rows = size.flatten(1)
            relative = (rows / rows.amax(1, keepdim=True).clamp(min=1e-300)).flatten()
            places = mask.flatten().nonzero().flatten()
            chosen = places[relative[places].argsort(stable=True)[: self.candidates]]
            ranked += [(float(relative[p]), (name, p)) for p in chosen.tolist()]
        return [place for _, place in sorted(ranked)[: self.candidates]]

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> MaskPlan:
        """See `Method.plan`."""
        data = measurement.data[element.name]
        masks = {n.removeprefix("mask/"): t for n, t in data.items() if n.startswith("mask/")}
        adjust = {n.removeprefix("adjust/"): t for n, t in data.items() if n.startswith("adjust/")}
        return MaskPlan(masks, predicted_loss=float(data["increase"]), adjust=adjust)


def _copy(context: Context) -> Context:
    """A copy of the network, which every rank retrains by itself on whole batches."""
    old = context.network
    network = Network(copy.deepcopy(old.module), old.factory, old.arguments, old.example_inputs, masks=dict(old.masks))
    return replace(context, network=network, ranks=ALONE)


def _loss_without(context: Context, place: Place, num_batches: int) -> float:
    """Mean loss of a copy with this weight at zero."""
    trial = _copy(context)
    with torch.no_grad():
        get_tensor(trial.network.module, place[0]).view(-1)[place[1]] = 0.0
    return float(mean_loss(trial, num_batches))


def _plan_data(context: Context, trial: Context, gone: Sequence[Place], increase: float) -> dict[str, Tensor]:
    """What the plan needs: masks, and by how much each parameter moved."""
    data = {"increase": torch.tensor(increase, dtype=torch.float64)}
    for name in dict.fromkeys(name for name, _ in gone):
        data[f"mask/{name}"] = mask_of(trial.network, name).cpu()
    for name, parameter_now in context.network.module.named_parameters():
        moved = get_tensor(trial.network.module, name).detach() - parameter_now.detach()
        if bool(moved.any()):
            require_finite(f"the retrained {name}", moved)
            data[f"adjust/{name}"] = moved.cpu()
    return data
