"""Where trials run: `local` is this machine, `job` gives each trial a Slurm job, `pool` packs them onto nodes of Slurm's."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from orchestrator.campaign.address import announced
from orchestrator.campaign.resources import resources_of
from orchestrator.campaign.token import use_token
from orchestrator.config import CampaignSpec, Named, ResourcesSpec
from orchestrator.store import CampaignFolder

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "600",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_WARN_THRESHOLD_S": "60",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "5",
}


def prepare_environment() -> None:
    """Settings that Ray, and PyTorch in trials, read when they are imported; what the user has set stays.

    Ray is used with its token authentication; whose token, says `orchestrator.campaign.token`.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if "ray" not in sys.modules:  # an imported Ray has read the mode already; its own default is the same
        os.environ.setdefault("RAY_AUTH_MODE", "token")


@dataclass(frozen=True)
class Placed:
    """Where trials run.

    Attributes:
        trainable: what Ray Tune runs for each trial.
        capacity: how many trials may be under way at a time.
    """

    trainable: type
    capacity: int


@contextlib.contextmanager
def a_ray(folder: CampaignFolder | None = None, **arguments: Any) -> Iterator[None]:
    """A Ray of our own for as long as the campaign in `folder` runs, or the one that is up in this process."""
    prepare_environment()
    import ray

    if ray.is_initialized():
        yield
        return
    token = use_token(folder)
    with _on_loopback():
        context = ray.init(
            address="local", _node_ip_address=LOOPBACK, log_to_driver=False, logging_level=logging.WARNING, **arguments
        )
    try:
        with announced(folder, context.address_info, token) if folder else contextlib.nullcontext():
            yield
    finally:
        ray.shutdown()


LOOPBACK = "127.0.0.1"


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Within: a Ray that is given the loopback address takes it, so that nothing of it can be reached from other machines.

    Ray would put an outer address in its place, and then metrics, which ask for no secret, would be open to the network.
    """
    from ray._private import services

    before = services.resolve_ip_for_localhost
    services.resolve_ip_for_localhost = lambda host: host
    try:
        yield
    finally:
        services.resolve_ip_for_localhost = before


LOCAL = ("cpus", "gpus", "dashboard")


@contextlib.contextmanager
def local(
    arguments: Mapping[str, Any], resources: ResourcesSpec | None = None, folder: CampaignFolder | None = None
) -> Iterator[Placed]:
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
    with a_ray(folder, num_cpus=arguments.get("cpus"), num_gpus=arguments.get("gpus"), include_dashboard=dashboard):
        from orchestrator.campaign.trainable import BodyTrainable

        yield Placed(BodyTrainable, _fitting(resources or ResourcesSpec()))


def _fitting(resources: ResourcesSpec) -> int:
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


def _known(name: str, arguments: Mapping[str, Any], known: Sequence[str]) -> None:
    if unknown := sorted(set(arguments) - set(known)):
        raise ValueError(f"placement {name} takes {sorted(known)}, but got {unknown}.")


def check_placement(placement: Named, resources: ResourcesSpec) -> None:
    """Raise what is wrong with a placement, without starting anything.

    Raises:
        ValueError: unknown placement or argument, or a job that the site does not take.
    """
    if placement.name not in PLACEMENTS:
        raise ValueError(f"placement must be one of {list(PLACEMENTS)}, but got {placement.name!r}.")
    _known(placement.name, placement.arguments, PLACEMENTS[placement.name])
    if placement.name == "job":
        from orchestrator.campaign.jobs.placement import request_of
        from slurm.request import options
        from slurm.site import load_site

        options(load_site(placement.arguments.get("site", "generic")), request_of(placement.arguments, resources))
    if placement.name == "pool":
        from orchestrator.campaign.pool.shape import shape_of

        shape_of(placement.arguments, resources)


JOB = ("site", "account", "gpu_type", "memory_gb", "poll_s", "parallel", "cpus", "dashboard")
POOL = ("site", "account", "gpu_type", "memory_gb", "nodes", "gpus", "cpus", "hours", "poll_s", "dashboard", "address")
PLACEMENTS: dict[str, Sequence[str]] = {"local": LOCAL, "job": JOB, "pool": POOL}


def placed(
    spec: CampaignSpec, folder: CampaignFolder, leaving: Callable[[], bool] = lambda: False
) -> AbstractContextManager[Placed]:
    """The placement of a campaign.

    Args:
        spec: the campaign.
        folder: its folder.
        leaving: whether this process must end before the campaign does.

    Raises:
        ValueError: see `check_placement`.
    """
    check_placement(spec.placement, spec.resources)
    if spec.placement.name == "local":
        return local(spec.placement.arguments, spec.resources, folder)
    if spec.placement.name == "pool":
        from orchestrator.campaign.pool.placement import pool

        return pool(spec, folder, leaving)
    from orchestrator.campaign.jobs.placement import jobs

    return jobs(spec, folder, leaving)
