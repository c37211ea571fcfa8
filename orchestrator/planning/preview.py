"""What a campaign would run and what it would cost, without starting it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coppice.orchestrator.campaign.sampler import Sampler
from coppice.orchestrator.config.models import Campaign, TrialSpec
from coppice.orchestrator.planning.rehearsal import on_cpu
from coppice.orchestrator.trial.building import build_network, build_task, count_flops


@dataclass(frozen=True)
class Preview:
    """One sampled trial before any change of its network.

    Attributes:
        params: the sampled values, by their path in the campaign file.
        parameters: of the seed network.
        flops: of one forward of one sample.
        epochs: of the trial.
        compute: training FLOPs of all epochs if the network kept its size (3 x forward x samples x epochs).
    """

    params: dict[str, Any]
    parameters: int
    flops: float
    epochs: int
    compute: float


def previews(spec: Campaign, count: int = 5) -> list[Preview]:
    """The first `count` trials that the sampler would try while it knows of no results.

    Raises:
        ValueError: the task cannot be built; nothing was started.
    """
    sampler = Sampler(spec)
    sampled = []
    for number in range(min(count, spec.search.trials)):
        sample = sampler.ask(number)
        if sample is None:
            break
        trial = on_cpu(TrialSpec.model_validate({**sample.tree, "seed": spec.seed + number}))
        sampled.append(_preview(trial, sample.params))
    return sampled


def _preview(trial: TrialSpec, params: dict[str, Any]) -> Preview:
    """Build the trial's network and count what it has and costs."""
    dataset, _ = build_task(trial)
    network = build_network(trial, dataset)
    flops = count_flops(network)
    compute = 3.0 * flops * len(dataset.train) * trial.training.epochs
    return Preview(params, network.num_parameters(), flops, trial.training.epochs, compute)


def total_compute(spec: Campaign, sampled: Sequence[Preview]) -> float:
    """Training FLOPs of the whole campaign, if all trials were like the sampled ones and none ended early."""
    return spec.search.trials * sum(p.compute for p in sampled) / max(len(sampled), 1)
