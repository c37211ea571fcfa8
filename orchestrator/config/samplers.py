"""The samplers that a campaign file can name: Optuna's, made with the campaign's seed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

import optuna

from coppice.orchestrator.config.models import SearchSpec

SAMPLERS: dict[str, Callable[..., optuna.samplers.BaseSampler]] = {
    "random": optuna.samplers.RandomSampler,
    "grid": optuna.samplers.RandomSampler,
    "tpe": optuna.samplers.TPESampler,
    "nsga2": optuna.samplers.NSGAIISampler,
}


@functools.lru_cache(maxsize=16)
def sampler_arguments(name: str) -> list[str]:
    """The arguments that the sampler called `name` takes."""
    if name == "grid":
        return []
    return [p for p in inspect.signature(SAMPLERS[name]).parameters if p not in ("self", "seed")]


def make_sampler(search: SearchSpec, seed: int) -> optuna.samplers.BaseSampler:
    """The campaign's sampler with this seed (`grid` only fills in what `coppice.orchestrator.config.grid` has enqueued).

    Raises:
        ValueError: unknown sampler or argument.
    """
    name = search.sampler.name
    if name not in SAMPLERS:
        raise ValueError(f"the sampler must be one of {sorted(SAMPLERS)}, but got {name!r}.")
    unknown = sorted(set(search.sampler.arguments) - set(sampler_arguments(name)))
    if unknown:
        raise ValueError(f"sampler {name} takes {sampler_arguments(name)}, but got {unknown}.")
    return SAMPLERS[name](**search.sampler.arguments, seed=seed % 2**32)
