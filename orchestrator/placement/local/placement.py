"""Placement `local`: trials are processes of this machine, packed onto its cores and GPUs by Ray."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from coppice.orchestrator.config.models import ResourcesSpec
from coppice.orchestrator.config.placement import LocalPlacement
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.placement.open_placement import OpenPlacement
from coppice.orchestrator.placement.ray_bundles import resources_of
from coppice.orchestrator.placement.ray_session import ray_session


@contextlib.contextmanager
def local(
    placement: LocalPlacement, resources: ResourcesSpec | None = None, folder: CampaignFolder | None = None
) -> Iterator[OpenPlacement]:
    """This machine: trials are workers of a Ray.

    Args:
        placement: how much of the machine they get.
        resources: what a trial gets.
        folder: of the campaign.

    Raises:
        ValueError: a trial needs more than there is.
    """
    with ray_session(folder, num_cpus=placement.cpus, num_gpus=placement.gpus, dashboard=placement.dashboard) as lost:
        from coppice.orchestrator.placement.local.trainable import LocalTrainable

        yield OpenPlacement(LocalTrainable, _capacity(resources or ResourcesSpec()), reuse_workers=True, lost=lost)


def _capacity(resources: ResourcesSpec) -> int:
    """How many trials fit into this Ray at a time."""
    import ray

    there, wanted = ray.cluster_resources(), resources_of(resources)
    for name, amount in wanted.items():
        if amount > there.get(name, 0.0):
            raise ValueError(
                f"a trial must fit into the placement, but resources ask for {amount:g} {name} and there are "
                f"{there.get(name, 0.0):g}; lower resources or choose another placement."
            )
    return min(int(there[name] // amount) for name, amount in wanted.items())
