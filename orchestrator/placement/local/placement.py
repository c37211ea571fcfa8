"""PURPOSE"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from coppice.orchestrator.config.models import ResourcesSpec
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.placement.base import LOCAL, OpenPlacement, _known
from coppice.orchestrator.placement.ray_bundles import resources_of
from coppice.orchestrator.placement.ray_session import ray_session


@contextlib.contextmanager
def local(
    arguments: Mapping[str, Any], resources: ResourcesSpec | None = None, folder: CampaignFolder | None = None
) -> Iterator[OpenPlacement]:
    """This machine: trials are workers of a Ray.

    Args:
        arguments: `cpus`, `gpus` (default: all there are), `dashboard` (default: false).
        resources: what a trial gets.
        folder: of the campaign.

    Raises:
        ValueError: an unknown argument, or a trial needs more than there is.
    """
    _known("local", arguments, LOCAL)
    dashboard = bool(arguments.get("dashboard", False))
    with ray_session(folder, num_cpus=arguments.get("cpus"), num_gpus=arguments.get("gpus"), include_dashboard=dashboard):
        from coppice.orchestrator.placement.local.trainable import LocalTrainable

        yield OpenPlacement(LocalTrainable, _capacity(resources or ResourcesSpec()), reuse_workers=True)


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
