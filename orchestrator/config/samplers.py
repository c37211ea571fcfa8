"""The samplers that a campaign file can name: Optuna's, made with the campaign's seed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import optuna

from coppice.orchestrator.config.models import SearchSpec

SAMPLERS: dict[str, Callable[..., optuna.samplers.BaseSampler]] = {
    "random": optuna.samplers.RandomSampler,
    "grid": optuna.samplers.RandomSampler,
    "tpe": optuna.samplers.TPESampler,
    "nsga2": optuna.samplers.NSGAIISampler,
}
RANGES: dict[str, tuple[float, float]] = {
    "n_startup_trials": (0, 1e6), "n_ei_candidates": (1, 1e6), "population_size": (2, 1e6), "prior_weight": (1e-9, 1e9),
    "mutation_prob": (0, 1), "crossover_prob": (0, 1), "swapping_prob": (0, 1),
}  # fmt: skip
"""Smallest and largest value of the arguments that are numbers."""
KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}


@functools.lru_cache(maxsize=16)
def sampler_arguments(name: str) -> list[str]:
    """The arguments of the sampler called `name` that a file can give: numbers and truth values, not functions."""
    if name == "grid":
        return []
    parameters = inspect.signature(SAMPLERS[name]).parameters.values()
    return [p.name for p in parameters if p.name not in ("self", "seed") and _kind(p) in KINDS]


def _kind(parameter: inspect.Parameter) -> str:
    """`int`, `float` or `bool`, or the annotation of anything else."""
    return str(parameter.annotation).partition(" | ")[0]


def check_sampler(name: str, arguments: dict[str, Any]) -> None:
    """Raise where a sampler is given arguments of the wrong kind or size, at which it may fail only after many trials.

    Raises:
        ValueError: the first that is wrong, and what must hold.
    """
    if name not in SAMPLERS:
        return
    parameters = inspect.signature(SAMPLERS[name]).parameters
    for key, value in arguments.items():
        if key not in sampler_arguments(name):
            function = f", as {key} is a function or an object of Python" if key in parameters else ""
            raise ValueError(f"sampler {name} takes {sampler_arguments(name)} in a file, but got {key}: {value!r}{function}.")
        kind, (low, high) = _kind(parameters[key]), RANGES.get(key, (float("-inf"), float("inf")))
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        fine = {"int": number and int(value) == value, "float": number, "bool": isinstance(value, bool)}[kind]
        if not fine or (kind != "bool" and not low <= value <= high):
            between = "" if kind == "bool" else f" from {low:g} to {high:g}"
            raise ValueError(f"sampler {name}: {key} must be {KINDS[kind]}{between}, but is {value!r}.")


def make_sampler(search: SearchSpec, seed: int) -> optuna.samplers.BaseSampler:
    """The campaign's sampler with this seed (`grid` only fills in what `coppice.orchestrator.config.grid` has enqueued).

    Raises:
        ValueError: unknown sampler or argument.
    """
    name = search.sampler.name
    if name not in SAMPLERS:
        raise ValueError(f"the sampler must be one of {sorted(SAMPLERS)}, but got {name!r}.")
    known = [p for p in inspect.signature(SAMPLERS[name]).parameters if p not in ("self", "seed") and name != "grid"]
    unknown = sorted(set(search.sampler.arguments) - set(known))
    if unknown:
        raise ValueError(f"sampler {name} takes {sampler_arguments(name)}, but got {unknown}.")
    return SAMPLERS[name](**search.sampler.arguments, seed=seed % 2**32)
