"""The search space of a campaign: any value may be a distribution, and a choice may hold sub-trees with their own.

A distribution is a mapping with one key: `choice: [a, b]`, `uniform: [low, high]`, `loguniform: [low, high]`,
`int: [low, high]`, `logint: [low, high]`; `uniform` and `int` take a step as a third value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

RANGES = ("uniform", "loguniform", "int", "logint")
DISTRIBUTIONS = ("choice", *RANGES)
TreePath = tuple[Any, ...]
"""Keys and indices from the root of a tree to something in it."""


class Suggests(Protocol):
    """What sampling needs of an Optuna trial."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number from `low` to `high`."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float:
        """A number from `low` to `high`."""


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
        if not isinstance(content, list) or not content:
            return f"choice needs a list of at least one option, but got {content!r}"
        twice = next((option for i, option in enumerate(content) if any(_same(option, o) for o in content[:i])), None)
        return None if twice is None else f"the options of a choice must differ, but {twice!r} is there twice; delete one"
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
    if len(content) == 3 and not 0 < content[2] <= max(high - low, 0):
        return f"0 < step <= high - low must hold, but got step={content[2]}, low={low}, high={high}"
    return None


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


def labels(options: Sequence[Any]) -> list[Any]:
    """A short name for each option of a choice: a plain value names itself, `{name: ...}` its name; otherwise `#index`."""
    own = [_own_label(option) for option in options]
    return [f"#{i}" if label is None or own.count(label) > 1 else label for i, label in enumerate(own)]


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

    def variants(self) -> Iterator[tuple[Any, dict[TreePath, TreePath]]]:
        """Resolved trees in which every option of every choice and both ends of every range occur, one varied at a time.

        With each tree comes, for every path in it, the path in the unresolved one.
        """
        waiting: list[dict[TreePath, int]] = [{}]
        seen: set[tuple[TreePath, int]] = set()
        while waiting:
            variant = _Variant(waiting.pop(0))
            yield variant.resolved(self.tree, (), ()), variant.sources
            for path, count in variant.options:
                for option in range(1, count):
                    if (path, option) not in seen:
                        seen.add((path, option))
                        above = {p: o for p, o in variant.picks.items() if path[: len(p)] == p}
                        waiting.append({**above, path: option})


def largest(tree: Any, key: str) -> float | None:
    """The largest number that `key` of the mapping `tree` may become; None where it is none."""
    values = [v.get(key) for v, _ in Space(tree).variants() if isinstance(v, dict)]
    return max((v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)), default=None)


class _Variant:
    """One way through a tree: at each distribution the option that `picks` has for its path, or the first one.

    Attributes:
        picks: options by the paths of their distributions in the unresolved tree.
        sources: for every path in the resolved tree, the path in the unresolved one.
        options: the distributions on the way, and how many options each has.
    """

    def __init__(self, picks: dict[TreePath, int]) -> None:
        self.picks = picks
        self.sources: dict[TreePath, TreePath] = {}
        self.options: list[tuple[TreePath, int]] = []

    def resolved(self, tree: Any, source: TreePath, target: TreePath) -> Any:
        """What stands at `target` of the resolved tree, where `tree` stands at `source` of the unresolved one."""
        self.sources[target] = source
        kind = distribution(tree)
        if kind is not None and problem_of(kind, tree[kind]) is None:
            content = tree[kind]
            self.options.append((source, len(content) if kind == "choice" else 2))
            pick = self.picks.get(source, 0)
            chosen = float(content[pick]) if kind in ("uniform", "loguniform") else content[pick]
            return self.resolved(chosen, (*source, kind, pick), target)
        if kind is not None:
            return None
        if isinstance(tree, dict):
            return {k: self.resolved(v, (*source, k), (*target, k)) for k, v in tree.items()}
        if isinstance(tree, list):
            return [self.resolved(v, (*source, i), (*target, i)) for i, v in enumerate(tree)]
        return tree


def _suggest(kind: str, content: Sequence[Any], name: str, trial: Suggests) -> float:
    log = kind.startswith("log")
    step = content[2] if len(content) == 3 else None
    if kind in ("int", "logint"):
        return trial.suggest_int(name, int(content[0]), int(content[1]), step=int(step or 1), log=log)
    return trial.suggest_float(name, float(content[0]), float(content[1]), step=step, log=log)
