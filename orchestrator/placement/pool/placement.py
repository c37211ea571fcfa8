"""Placement `pool`: nodes come and go with the queue and their time limits, trials are packed onto those that are there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.config.placement import PoolPlacement
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.trials import TrialRecords
from coppice.orchestrator.placement.job_names import pool_jobs_name, trial_jobs_name
from coppice.orchestrator.placement.open_placement import OpenPlacement
from coppice.orchestrator.placement.pool.nodes import Nodes
from coppice.orchestrator.placement.pool.ray_head import head, own_folder
from coppice.orchestrator.placement.pool.sizing import PoolShape
from coppice.orchestrator.placement.pool.supervisor import PoolSupervisor
from coppice.orchestrator.placement.pool.workers import Workers, fleet
from coppice.orchestrator.placement.ray_bundles import bundles_of
from coppice.orchestrator.placement.ray_inprocess import in_process_trials
from coppice.orchestrator.placement.ray_session import RAY_SETTINGS
from coppice.orchestrator.placement.remote_trainable import RemoteTrainable
from coppice.slurm.broker.broker import Broker
from coppice.slurm.broker.journal import JOURNAL, Journal
from coppice.slurm.broker.work import Work
from coppice.slurm.client import Client
from coppice.slurm.ray.node import Cluster, NodeJob, controller_address, own_address
from coppice.slurm.submission import SIGNAL_DELAY_S, notice_s

SPARE_S, LEAST_DRAIN_S = 30.0, 5.0
"""Of the time between a node's signal and its end, this is kept for Ray to end; trials have the rest to finish their epochs."""


@contextlib.contextmanager
def pool(
    spec: Campaign, placement: PoolPlacement, folder: CampaignFolder, leaving: Callable[[], bool]
) -> Iterator[OpenPlacement]:
    """Trials run on nodes that Slurm jobs bring. Jobs of an earlier driver are cancelled: their cluster is gone.

    Raises:
        RayFailed: the head does not start.
        ValueError: this machine's address cannot be found, or a Ray is up in this process.
        SlurmError: Slurm is not there.
    """
    shape = PoolShape.of(placement, spec.resources)
    client = Client()
    own = own_folder(folder)
    _cancel(client, trial_jobs_name(spec, folder))
    broker = Broker(pool_jobs_name(spec, folder), own, shape.site, Journal(own / JOURNAL), client=client)
    ip = placement.address or _own_address(client)
    cluster = Cluster(own)
    with contextlib.ExitStack() as held:
        ray_head = held.enter_context(head(folder, ip, placement.dashboard))
        cluster.announce(ray_head.address)
        held.callback(_end, broker, cluster)
        nodes = Nodes(broker, lambda key: _work(key, shape, own, ray_head.environment), own, fleet)
        supervisor = PoolSupervisor(
            Workers(bundles_of(spec.resources), shape.together),
            nodes.poll,
            _nodes_for(spec, shape),
            _left(spec, folder),
            ours=lambda: cluster.address() is not None,
            leaving=leaving,
        )
        held.callback(supervisor.close)
        RemoteTrainable.supervisor = supervisor
        with in_process_trials(shape.capacity):
            yield OpenPlacement(RemoteTrainable, shape.capacity, lost=ray_head.lost)


def _work(key: str, shape: PoolShape, own: Path, environment: dict[str, str]) -> Work:
    drain_s = max(LEAST_DRAIN_S, notice_s(shape.request.time_min, SIGNAL_DELAY_S) - SPARE_S)
    return Work(key, NodeJob(key, own, {**RAY_SETTINGS, **environment}, shape.site.local_disk, drain_s), shape.options)


def _own_address(client: Client) -> str:
    try:
        return own_address(controller_address(client))
    except OSError as error:
        raise ValueError(
            f"nodes must reach this machine, but its address towards Slurm's controller cannot be found ({error}); give it to "
            "placement pool as address."
        ) from None


def _nodes_for(spec: Campaign, shape: PoolShape) -> Callable[[int], int]:
    most = spec.search.max_concurrent or shape.capacity
    return lambda trials: shape.nodes_for(min(trials, most))


def _end(broker: Broker, cluster: Cluster) -> None:
    cluster.close()
    broker.end()


def _cancel(client: Client, name: str) -> None:
    """Jobs of trials that an earlier driver has left, when the campaign was placed in jobs."""
    client.cancel(j.id for j in client.live().values() if j.name == name and not j.ended)


def _left(spec: Campaign, folder: CampaignFolder) -> int:
    """Trials that have not ended, those that are not known yet among them; a search may turn out to have fewer."""
    ended = sum(entry.ended for entry in TrialRecords(folder).entries())
    return max(1, spec.search.trials + spec.compare.static + (spec.compare.big is not None) - ended)
