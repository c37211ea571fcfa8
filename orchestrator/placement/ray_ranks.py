"""The other ranks of a trial that is a Ray actor: actors in the further bundles of its placement group."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.util import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from coppice.orchestrator.folder.layout import TrialFolder
from coppice.orchestrator.placement.process_state import ProcessState
from coppice.orchestrator.placement.runner import accompany

if TYPE_CHECKING:
    from coppice.orchestrator.trial.process_group import ProcessRanks

LEAVE_S = 10.0
"""How long the others may take to end by themselves."""


class Peer:
    """One of the other ranks."""

    def accompany(self, task: dict[str, Any], token: str, rank: int, size: int) -> None:
        """Do what rank 0 does until it ends."""
        from coppice.orchestrator.trial.process_group import joined

        with joined(TrialFolder(Path(task["folder"])).meeting, token, rank, size) as ranks:
            assert ranks is not None, "there is more than one rank"
            accompany(task, ranks, ProcessState().seed)


class RankActors:
    """Starts the others and joins them as rank 0.

    Args:
        task: of the trial, see `coppice.orchestrator.placement.runner.Runner`.
        bundles: what each rank gets; one bundle needs nobody else.
    """

    def __init__(self, task: dict[str, Any], bundles: list[dict[str, float]]) -> None:
        self._held = contextlib.ExitStack()
        self._others: list[Any] = []
        self._ends: list[Any] = []
        self.ranks: ProcessRanks | None = None
        if len(bundles) == 1:
            return
        from coppice.orchestrator.trial.process_group import joined

        token, group = uuid.uuid4().hex, get_current_placement_group()
        for rank, bundle in list(enumerate(bundles))[1:]:
            place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
            kind = ray.remote(Peer).options(
                num_cpus=bundle["CPU"], num_gpus=bundle.get("GPU", 0), scheduling_strategy=place, max_restarts=0
            )
            self._others.append(kind.remote())
            self._ends.append(self._others[-1].accompany.remote(task, token, rank, len(bundles)))
        address = ray.util.get_node_ip_address()
        try:
            meeting = TrialFolder(Path(task["folder"])).meeting
            self.ranks = self._held.enter_context(joined(meeting, token, 0, len(bundles), address))
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Let the others go; rank 0 has said that they may."""
        self._held.close()
        if self._ends:
            ray.wait(self._ends, num_returns=len(self._ends), timeout=LEAVE_S)
        for other in self._others:
            ray.kill(other)
        self._others, self._ends = [], []
