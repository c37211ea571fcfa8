"""What triggers may want to know about a live network beside the metrics of its trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from coppice.methods.adaptation.candidates import Scope, permissible_elements
from coppice.methods.adaptation.reuse import Measured
from coppice.methods.growth.first_order.effective_rank import effective_rank_signals
from coppice.methods.measures.statistics import NonFiniteStatistics, frozen_modes, require_finite
from coppice.methods.method import Context, Measurement, Method
from coppice.methods.selection.values import Permissible

Signal = Callable[[Context, Method, Sequence[Permissible]], Mapping[str, float]]
"""(context, the adaptation's method, elements it could change and by how many units) -> numbers by name."""


def score_signals(context: Context, method: Method, permissible: Sequence[Permissible]) -> dict[str, float]:
    """What the method itself measures.

    `score_best` is the largest score of any unit, `score_worst` the smallest, `score_sum` the largest sum of an element's scores
    (of the units that may be added); they are left out by methods that predict nothing. `signal_<name>` is each of the
    measurement's own signals, `advised` how many units the method itself would change, `offered` of how many elements it says
    something.
    """
    return score_numbers(Measured.measure(context, method, permissible).measurement)


def score_numbers(measurement: Measurement) -> dict[str, float]:
    """The numbers of `score_signals`, of one measurement."""
    scores = [s for s in measurement.scores.values() if len(s)]
    numbers = {f"signal_{name}": float(value) for name, value in measurement.signals.items()}
    numbers |= {"advised": float(sum(measurement.advised.values())), "offered": float(len(measurement.scores))}
    if scores:
        numbers["score_best"] = max(float(s.max()) for s in scores)
        numbers["score_worst"] = min(float(s.min()) for s in scores)
        numbers["score_sum"] = max(float(s.sum()) for s in scores)
    return numbers


@torch.no_grad()
def train_accuracy(context: Context, method: Method, permissible: Sequence[Permissible]) -> dict[str, float]:
    """`train_accuracy` (fraction) of class numbers, `train_r2` of real targets: on training batches, in eval mode.

    Raises:
        ValueError: real targets of another shape than the output.
    """
    hits, errors, targets, ranks = 0.0, 0.0, [], context.ranks
    with frozen_modes(context.network.module):
        for inputs, target in context.shards(ACCURACY_BATCHES):
            output = context.network.module(inputs)
            targets.append(target.detach().double().cpu())
            if not target.is_floating_point():
                hits += float((output.argmax(1) == target).sum())
            elif output.shape == target.shape:
                errors += float((output - target).double().square().sum())
            else:
                shapes = f"{tuple(output.shape)} and {tuple(target.shape)}"
                raise ValueError(f"train_accuracy needs class numbers, or outputs of the targets' shape, but got {shapes}.")
            require_finite("the network's outputs", output, ranks=ranks)
    every = torch.cat(targets)
    if not target.is_floating_point():
        return {"train_accuracy": ranks.number(hits) / ranks.count(every.numel())}
    mean = every.sum(0)
    ranks.sum(mean)
    variance = ranks.number(float((every - mean / ranks.count(len(every))).square().sum()))
    return {"train_r2": 1 - ranks.number(errors) / variance} if variance > 0 else {}


ACCURACY_BATCHES = 8
"""Batches that `train_accuracy` looks at."""

SIGNALS: dict[str, Signal] = {
    "scores": score_signals,
    "train_accuracy": train_accuracy,
    "effective_rank": effective_rank_signals,
}


def measure_signals(context: Context, method: Method, scope: Scope, wants: Sequence[str]) -> dict[str, float]:
    """The signals called `wants`, in one mapping; empty where statistics are not finite or nothing may be changed.

    Raises:
        KeyError: an unknown signal.
    """
    return look(context, method, scope, wants)[0]


def look(context: Context, method: Method, scope: Scope, wants: Sequence[str]) -> tuple[dict[str, float], Measured | None]:
    """`measure_signals`, and what the method measured for it, so that an act in the same state need not measure again.

    Triggers decide by these numbers, so they are rank 0's on all ranks.
    """
    numbers: dict[str, float] = {}
    measured: Measured | None = None
    permissible, _ = permissible_elements(context, method, scope)
    for name in wants if permissible else ():
        try:
            if name == "scores":
                measured = Measured.measure(context, method, permissible)
                numbers |= score_numbers(measured.measurement)
            else:
                numbers |= SIGNALS[name](context, method, permissible)
        except NonFiniteStatistics:
            continue
    return context.ranks.from_rank_0(numbers), measured
