"""The search space of a campaign: any value may be a distribution, and a choice may hold sub-trees with their own.

A distribution is a mapping with one key: `choice: [a, b]`, `uniform: [low, high]`, `loguniform: [low, high]`,
`int: [low, high]`, `logint: [low, high]`; `uniform` and `int` take a step as a third value.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import optuna

from coppice.orchestrator.config.models import SearchSpec

RANGES = ("uniform", "loguniform", "int", "logint")
DISTRIBUTIONS = ("choice", *RANGES)
SAMPLERS: dict[str, Callable[..., optuna.samplers.BaseSampler]] = {
    "random": optuna.samplers.RandomSampler,
    "grid": optuna.samplers.RandomSampler,
    "tpe": optuna.samplers.TPESampler,
    "nsga2": optuna.samplers.NSGAIISampler,
}


class Suggests(Protocol):
    """What sampling needs of an Optuna trial."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float:
        """A number."""


def distribution(tree: Any) -> str | None:
    """The kind of distribution that `tree` is, or None."""
    if isinstance(tree, dict) and len(tree) == 1:
        (key,) = tree
        if key in DISTRIBUTIONS:
            return str(key)
    return None


def problem_of(kind: str, content: Any) -> str | None:
    """What is wrong with a distribution's content, or None."""
    if kind == "choice":
        fine = isinstance(content, list) and content
        return None if fine else f"choice needs a list of at least one option, but got {content!r}"
    sizes = (2, 3) if kind in ("uniform", "int") else (2,)
    if not isinstance(content, list) or len(content) not in sizes:
        return f"{kind} needs [low, high]{' or [low, high, step]' if 3 in sizes else ''}, but got {content!r}"
    if any(isinstance(v, bool) or not isinstance(v, (int, float)) or not math.isfinite(v) for v in content):
        return f"{kind} needs finite numbers, but got {content!r}"
    if kind in ("int", "logint") and any(int(v) != v for v in content):
        return f"{kind} needs whole numbers, but got {content!r}"
    low, high = content[:2]
    if low > high:
        return f"low <= high must hold, but got low={low}, high={high}"
    if kind.startswith("log") and low <= 0:
        return f"{kind} needs low > 0, but got low={low}"
    if len(content) == 3 and content[2] <= 0:
        return f"step > 0 must hold, but got step={content[2]}"
    return None


def labels(options: Sequence[Any]) -> list[Any]:
    """A short name for each option of a choice: a plain value names itself, `{name: ...}` its name; otherwise `#index`."""
    found = [_own_label(option) for option in options]
    return [f"#{i}" if f is None or found.count(f) > 1 else f for i, f in enumerate(found)]


def _own_label(option: Any) -> Any:
    if isinstance(option, dict) and len(option) == 1:
        return next(iter(option))
    return None if isinstance(option, (dict, list)) else option


class Space:
    """A tree of plain values and distributions."""

    def __init__(self, tree: Any) -> None:
        self.tree = tree

    def sample(self, trial: Suggests) -> Any:
        """The tree with every distribution replaced by a value; parameter names are paths in the tree."""
        return self._resolve(self.tree, (), trial)

    def _resolve(self, tree: Any, path: tuple[str, ...], trial: Suggests) -> Any:
        kind = distribution(tree)
        if kind == "choice":
            options = tree["choice"]
            names = labels(options)
            picked = trial.suggest_categorical("/".join(path), names)
            return self._resolve(options[names.index(picked)], (*path, str(picked)), trial)
        if kind is not None:
            return _suggest(kind, tree[kind], "/".join(path), trial)
        if isinstance(tree, dict):
            return {k: self._resolve(v, (*path, str(k)), trial) for k, v in tree.items()}
        if isinstance(tree, list):
            return [self._resolve(v, (*path, str(i)), trial) for i, v in enumerate(tree)]
        return tree

    def variants(self) -> Iterator[tuple[Any, dict[tuple[Any, ...], tuple[Any, ...]]]]:
        """Resolved trees in which every option of every choice and both ends of every range occur, one varied at a time.

        With each tree comes, for every path in it, the path in the unresolved one.
        """
        waiting: list[dict[tuple[Any, ...], int]] = [{}]
        seen: set[tuple[tuple[Any, ...], int]] = set()
        while waiting:
            picks = waiting.pop(0)
            places: dict[tuple[Any, ...], tuple[Any, ...]] = {}
            met: list[tuple[tuple[Any, ...], int]] = []
            yield _vary(self.tree, (), (), picks, places, met), places
            for path, number in met:
                for option in range(1, number):
                    if (path, option) not in seen:
                        seen.add((path, option))
                        kept = {p: o for p, o in picks.items() if path[: len(p)] == p}
                        waiting.append({**kept, path: option})


def _suggest(kind: str, content: Sequence[Any], name: str, trial: Suggests) -> float:
    log = kind.startswith("log")
    step = content[2] if len(content) == 3 else None
    if kind in ("int", "logint"):
        return trial.suggest_int(name, int(content[0]), int(content[1]), step=int(step or 1), log=log)
    return trial.suggest_float(name, float(content[0]), float(content[1]), step=step, log=log)


def _vary(
    tree: Any,
    source: tuple[Any, ...],
    target: tuple[Any, ...],
    picks: dict[tuple[Any, ...], int],
    places: dict[tuple[Any, ...], tuple[Any, ...]],
    met: list[tuple[tuple[Any, ...], int]],
) -> Any:
    places[target] = source
    kind = distribution(tree)
    if kind is not None and problem_of(kind, tree[kind]) is None:
        content = tree[kind]
        number = len(content) if kind == "choice" else 2
        met.append((source, number))
        pick = picks.get(source, 0)
        chosen = float(content[pick]) if kind in ("uniform", "loguniform") else content[pick]
        return _vary(chosen, (*source, kind, pick), target, picks, places, met)
    if kind is not None:
        return None
    if isinstance(tree, dict):
        return {k: _vary(v, (*source, k), (*target, k), picks, places, met) for k, v in tree.items()}
    if isinstance(tree, list):
        return [_vary(v, (*source, i), (*target, i), picks, places, met) for i, v in enumerate(tree)]
    return tree


@functools.lru_cache(maxsize=16)
def sampler_arguments(name: str) -> list[str]:
    """The arguments that the sampler called `name` takes."""
    if name == "grid":
        return []
    return [p for p in inspect.signature(SAMPLERS[name]).parameters if p not in ("self", "seed")]


def make_sampler(search: SearchSpec, space: Space, seed: int) -> optuna.samplers.BaseSampler:
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
