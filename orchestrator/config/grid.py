"""Every point of a search space whose values are finitely many, also where a choice holds a sub-tree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from coppice.orchestrator.config.space import Space


class _Walk:
    """Stands for an Optuna trial: takes the given options first, then the first ones, and notes how many there were."""

    def __init__(self, given: Sequence[int]) -> None:
        self._given = given
        self.taken: list[tuple[int, int]] = []
        self.params: dict[str, Any] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        if name not in self.params:
            depth = len(self.taken)
            taken = self._given[depth] if depth < len(self._given) else 0
            self.taken.append((taken, len(choices)))
            self.params[name] = choices[taken]
        return self.params[name]

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return int(self.suggest_categorical(name, range(low, high + 1, step)))

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float:
        if step is not None:
            return float(self.suggest_categorical(name, [low + i * step for i in range(int((high - low) / step + 1e-9) + 1)]))
        raise ValueError(f"a grid needs finitely many values, but {name} is any number in [{low}, {high}]; use choice or a step.")


def grid(space: Space) -> Iterator[dict[str, Any]]:
    """The sampled values of each point, in the order of the options, the last one changing fastest.

    Raises:
        ValueError: a value of the space is continuous.
    """
    given: list[int] | None = []
    while given is not None:
        walk = _Walk(given)
        space.sample(walk)
        yield walk.params
        given = _following(walk.taken)


def _following(taken: list[tuple[int, int]]) -> list[int] | None:
    while taken and taken[-1][0] + 1 >= taken[-1][1]:
        taken = taken[:-1]
    return [t for t, _ in taken[:-1]] + [taken[-1][0] + 1] if taken else None
