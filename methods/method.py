"""What every growth and pruning method is: it measures, then plans. It never changes a network itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from coppice.methods.companion import Companion
from coppice.methods.graph.values import Element, Level
from coppice.methods.network import LossFunction, Network
from coppice.methods.parameters import Parameter, parameter
from coppice.methods.plan import Plan
from coppice.methods.ranks import ALONE, Ranks

Batches = Callable[[int], Iterable[tuple[Tensor, Tensor]]]
"""(number of batches) -> that many (input, target) pairs of training data, the same ones for the same state."""


@dataclass(frozen=True)
class Context:
    """What a method may look at.

    Attributes:
        network: read only for methods.
        batches: training data for statistics.
        loss: mean loss over a batch.
        generator: the only source of randomness (CPU generator).
        optimizer: what trains the network, read only; None outside of training.
        companion: the method's own companion, see `Method.companion`; None when it has none.
        ranks: the processes that train this network; the same `batches` in the same order on all of them.
    """

    network: Network
    batches: Batches
    loss: LossFunction
    generator: torch.Generator
    optimizer: torch.optim.Optimizer | None = None
    companion: Companion | None = None
    ranks: Ranks = ALONE

    def shards(self, count: int) -> Iterable[tuple[Tensor, Tensor]]:
        """What this rank measures of `batches(count)`: its share of the rows of every batch; all of them where it is alone.

        The samples are divided and not the batches: with one batch and eight ranks all have something to do, and all see the
        same modules, so that their sums have the same names and shapes. In eval mode, in which methods measure, samples do not
        depend on each other, and sums over all ranks are those over the whole batches. Each rank has few rows at a time: the
        batch that fills one GPU gives each of eight an eighth of its work, not an eighth of the time.

        Raises:
            ValueError: a batch has fewer rows than there are ranks, or inputs and targets that are not tensors of as many rows.
        """
        return self.batches(count) if self.ranks.size == 1 else (_share(self.ranks, *b) for b in self.batches(count))


def _share(ranks: Ranks, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    rows = [len(t) if isinstance(t, Tensor) and t.dim() else None for t in (inputs, targets)]
    if rows[0] is None or rows[0] != rows[1]:
        raise ValueError(
            f"a batch must be inputs and targets with as many rows, to be divided among {ranks.size} ranks, but has {rows} rows "
            f"({type(inputs).__name__}, {type(targets).__name__}); train on one GPU, or make targets of one row a sample."
        )
    if rows[0] < ranks.size:
        raise ValueError(
            f"a batch must have at least as many rows as there are ranks ({ranks.size}), but has {rows[0]}; raise batch_size or "
            "train on fewer GPUs."
        )
    own = ranks.share(rows[0])
    return inputs[own], targets[own]


@dataclass(frozen=True)
class Measurement:
    """What a method measured.

    Attributes:
        scores: element name -> a score for each unit. Growing: predicted gain of the 1st, 2nd, ... new unit, descending
            (empty when the method predicts none). Pruning: importance of each existing unit, high = keep. An element that is
            left out is offered nothing this time.
        data: element name -> tensors the method needs again in `plan`.
        advised: element name -> how many units the method itself would add or remove (amount `advised`).
        signals: numbers about the whole network that triggers may look at (`signal_<name>` in `Progress.signals`).
    """

    scores: Mapping[str, Tensor]
    data: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    advised: Mapping[str, int] = field(default_factory=dict)
    signals: Mapping[str, float] = field(default_factory=dict)


__all__ = ["Batches", "Context", "Measurement", "Method", "Parameter", "parameter"]


class Method(ABC):
    """How: measures candidates, then plans for the chosen ones. Subclasses are frozen dataclasses of `parameter` fields.

    Class attributes:
        kind: `grow` or `prune`.
        levels: element levels it acts on.
        why: what it optimises, in a sentence.
        paper: where it comes from, with equation or algorithm.
        preserves: whether its plans leave the function unchanged (exactly, up to rounding) with its default parameters.
        batch_norm: what it does when BatchNorm lies between fan-in and fan-out.
        cost: what one event costs beside the surgery, in forward and backward passes.
        when: triggers that its paper uses, by name.
        where: selections that its paper uses, by name.
        advises: whether it says itself how many units to change (`Measurement.advised`).
        companion_key: adaptations of a trial whose methods have the same one share one companion; None: each has its own.
    """

    kind: ClassVar[Literal["grow", "prune"]]
    levels: ClassVar[tuple[Level, ...]]
    why: ClassVar[str] = ""
    paper: ClassVar[str]
    preserves: ClassVar[bool]
    batch_norm: ClassVar[str]
    cost: ClassVar[str] = "nothing is measured"
    when: ClassVar[tuple[str, ...]] = ("periodic",)
    where: ClassVar[tuple[str, ...]] = ("all",)
    advises: ClassVar[bool] = False
    companion_key: ClassVar[str | None] = None

    def promises(self) -> bool:
        """Whether plans of this method, with these parameters, leave the function unchanged; broken promises are rolled back."""
        return self.preserves

    def exchanges(self) -> bool:
        """Whether plans take away as many parameters as they add: then no limit holds them back."""
        return False

    def accepts(self, context: Context, element: Element) -> str | None:
        """None when the method can act on the element, else the reason why not."""
        if not element.permissible:
            return element.reason
        if element.doubt is not None:
            return element.doubt
        if element.level not in self.levels:
            return f"{type(self).__name__} acts on {', '.join(self.levels)}, not on {element.level}"
        if (element.grow if self.kind == "grow" else element.shrink) == "no":
            return f"{element.name} cannot {self.kind}" + (f": {element.fixed}" if element.fixed and self.kind == "grow" else "")
        return None

    @abstractmethod
    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Scores of the units of each element. `most` is the largest number of units that will be asked for, by name."""

    @abstractmethod
    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> Plan:
        """The plan for one element.

        `units` are the positions 0..count-1 of the offered new units when growing, the units to remove when pruning. Where
        what is offered are connections (level weight), positions and units count the masked ones (growing) or those that are
        not masked (pruning), as the method's scores do.

        Raises:
            PlanError: the method can do nothing with these units; the element is skipped and the message told.
            NonFiniteStatistics: what had to be measured is not finite; likewise.
        """

    def companion(self, network: Network) -> Companion | None:
        """What must live beside the network while it trains (a penalty, gates, sums over steps); None for most methods."""
        return None
