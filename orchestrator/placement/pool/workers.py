"""Ray, as a pool uses it: tasks that run trials, and the nodes that they run on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from coppice.orchestrator.folder.attempts import Token
from coppice.orchestrator.placement.pool.trial_task import run_trial

HEAD = "head"
"""Name of the node that runs no trials."""


@dataclass(frozen=True)
class EndedAttempt:
    """An attempt at a trial that has ended.

    Attributes:
        key: of the trial.
        outcome: what `run_trial` says; empty where it was lost.
        problem: how it was lost.
    """

    key: str
    outcome: str
    problem: str


@dataclass(frozen=True)
class Fleet:
    """Names of the nodes that have ever joined, of those that are up, and of those among them that run nothing."""

    joined: frozenset[str]
    up: frozenset[str]
    idle: frozenset[str]


class Workers:
    """Runs trials on whatever nodes there are; those that find no room wait.

    Args:
        bundles: what each rank of a trial asks of Ray.
        together: whether the ranks of a trial share a node.
    """

    def __init__(self, bundles: Sequence[Mapping[str, float]], together: bool) -> None:
        self._strategy = "STRICT_PACK" if together else "PACK"
        self._bundles = [dict(b) for b in bundles]
        # a process that has used a GPU keeps a part of its memory, and cannot change to another one
        self._run = ray.remote(max_retries=0, max_calls=1 if bundles[0].get("GPU") else 0)(run_trial)
        self._keys: dict[Any, str] = {}
        self._groups: dict[str, Any] = {}

    def start(self, key: str, task: dict[str, Any], token: Token) -> None:
        """Run an attempt at a trial as soon as there is room."""
        options: dict[str, Any] = {"num_cpus": self._bundles[0]["CPU"], "num_gpus": self._bundles[0].get("GPU", 0)}
        if len(self._bundles) > 1:
            group = self._groups[key] = placement_group(self._bundles, strategy=self._strategy)
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
        self._keys[self._run.options(name=key, **options).remote(task, token, self._bundles)] = key

    def ended(self) -> list[EndedAttempt]:
        """Attempts that have ended since this was called last; does not wait."""
        if not self._keys:
            return []
        done, _ = ray.wait(list(self._keys), num_returns=len(self._keys), timeout=0, fetch_local=False)
        return [self._outcome(self._forget(ref), ref) for ref in done]

    def _outcome(self, key: str, ref: Any) -> EndedAttempt:
        try:
            return EndedAttempt(key, str(ray.get(ref)), "")
        except ray.exceptions.RayError as error:
            lines = str(error).strip().split("\n")
            telling = lines[-1 if isinstance(error, ray.exceptions.RayTaskError) else 0]
            return EndedAttempt(key, "", f"{type(error).__name__}: {telling}")

    def _forget(self, ref: Any) -> str:
        key = self._keys.pop(ref)
        if (group := self._groups.pop(key, None)) is not None:
            remove_placement_group(group)
        return key

    def stop(self, key: str) -> None:
        """End the attempt at a trial at once; `ended` says nothing of it any more."""
        for ref in [r for r, k in self._keys.items() if k == key]:
            ray.cancel(ref, force=True)
            self._forget(ref)

    def busy(self) -> set[str]:
        """Trials with an attempt that `ended` has not returned."""
        return set(self._keys.values())


def fleet() -> Fleet:
    """The nodes, the head left aside."""
    joined = [n for n in ray.nodes() if n["NodeName"] != HEAD]
    up = [n for n in joined if n["Alive"]]
    free = ray._private.state.available_resources_per_node()
    idle = [n for n in up if _whole(n["Resources"], free.get(n["NodeID"], {}))]
    names = [frozenset(str(n["NodeName"]) for n in some) for some in (joined, up, idle)]
    return Fleet(*names)


def _whole(total: Mapping[str, float], free: Mapping[str, float]) -> bool:
    return all(free.get(name, 0.0) >= total.get(name, 0.0) for name in ("CPU", "GPU"))
