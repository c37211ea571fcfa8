"""The jobs that are the nodes of a pool: as many as the trials can use, another one for each that ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from coppice.orchestrator.placement.ended_jobs import BLAMELESS, DEAD_ON_ARRIVAL, NODE_STATES, JobsKeepDying, last_lines
from coppice.orchestrator.placement.pool.workers import Fleet
from coppice.slurm.broker.bad_nodes import BadNodes
from coppice.slurm.broker.broker import Broker
from coppice.slurm.broker.work import REFUSED, TrackedWork, Work
from coppice.slurm.client import Job
from coppice.slurm.ray.node import leave_file

LINES = 30
"""How much of a job's log an error shows."""

@dataclass
class Nodes:
    """The nodes of one run of a campaign.

    Attributes:
        broker: of their jobs.
        make: the work that is a node with some key.
        folder: where nodes are told to end.
        fleet: the nodes that Ray knows.
        clock: seconds.
    """

    broker: Broker
    make: Callable[[str], Work]
    folder: Path
    fleet: Callable[[], Fleet]
    clock: Callable[[], float] = time.monotonic
    _keys: list[str] = field(default_factory=list)
    _made: int = 0
    _dead: int = 0
    _parting: set[str] = field(default_factory=set)
    _bad: BadNodes = field(default_factory=BadNodes)

    def poll(self, wanted: int) -> bool:
        """Bring the pool to `wanted` nodes; whether Slurm was asked. Nodes that run trials are never taken from them.

        Raises:
            JobsKeepDying: node after node ends before it joins.
            SlurmError: Slurm refuses the job.
        """
        while len(self._staying) < wanted:
            key = f"node{self._made}"
            self._made += 1
            self._keys.append(key)
            self.broker.add(self.make(key))
        if not self.broker.poll():
            return False
        fleet = self.fleet()
        for key in [k for k in self._keys if self.broker.tracked(k).over]:
            self._ended(key, fleet, wanted)
        self._give_back(len(self._staying) - wanted, fleet)
        return True

    @property
    def _staying(self) -> list[str]:
        return [k for k in self._keys if k not in self._parting]

    def _ended(self, key: str, fleet: Fleet, wanted: int) -> None:
        tracked = self.broker.tracked(key)
        job = tracked.job
        assert job is not None
        number = tracked.attempt.number if tracked.attempt else 0
        died = not any(name.startswith(f"{key}.{number}.") for name in fleet.joined) and job.state not in BLAMELESS
        if died or job.state in NODE_STATES:
            self._bad.add(job.nodes, self.clock())
        if died and key not in self._parting:
            self._died(tracked, job, fleet)
        elif not died:
            self._dead = 0
        if key in self._parting or len(self._staying) > wanted:
            self._forget(key)
        else:
            self.broker.resubmit(key, self._options(key))

    def _died(self, tracked: TrackedWork, job: Job, fleet: Fleet) -> None:
        self._dead += 1
        if fleet.up or self._dead < DEAD_ON_ARRIVAL:
            return
        if job.state == REFUSED:
            raise JobsKeepDying(f"Slurm does not take the nodes of this pool:\n  {job.reason}")
        log = last_lines(self.broker.folder, tracked, LINES)
        raise JobsKeepDying(
            f"{self._dead} nodes of the pool in a row ended before they joined, so no more are handed in. The last one, {job.id} "
            f"on {job.nodes or 'no node'}, ended as {job.state} and wrote:\n{log}"
        )

    def _give_back(self, count: int, fleet: Fleet) -> None:
        """Let go of nodes that are not needed: first those that still wait in the queue, then those that run nothing."""
        for key in self._staying:
            if count <= 0:
                return
            tracked = self.broker.tracked(key)
            if tracked.job is None or tracked.job.state == "PENDING":
                self._forget(key)
                count -= 1
        for name in sorted(fleet.idle):
            key = name.split(".", 1)[0]
            if count > 0 and key in self._staying:
                leave_file(self.folder, name).touch()
                self._parting.add(key)
                count -= 1

    def _forget(self, key: str) -> None:
        self._keys.remove(key)
        self._parting.discard(key)
        self.broker.drop(key)

    def _options(self, key: str) -> dict[str, str]:
        options, avoided = dict(self.make(key).options), self._bad.listed(self.clock())
        return {**options, "exclude": avoided} if avoided else options
