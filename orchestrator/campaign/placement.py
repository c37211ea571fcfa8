"""Where trials run: `local` is this machine, `job` gives each trial a Slurm job of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from orchestrator.config import CampaignSpec, Named, ResourcesSpec
from orchestrator.store import CampaignFolder

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
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
    """Settings that Ray reads when it is imported or started; what the user has set stays.

    Ray is used with its token authentication. Without a token of the user's there is one for this process and its children.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if "ray" not in sys.modules:  # an imported Ray has read the mode already; its own default is the same
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


@dataclass(frozen=True)
class Placed:
    """Where trials run.

    Attributes:
        trainable: what Ray Tune runs for each trial.
        capacity: how many trials may be under way at a time.
    """

    trainable: type
    capacity: int


def resources_of(resources: ResourcesSpec) -> dict[str, float]:
    """What one trial asks of Ray."""
    cpus = max(resources.cpus, resources.gpus * resources.cpus_per_gpu)
    return {"CPU": float(cpus), **({"GPU": float(resources.gpus)} if resources.gpus else {})}


@contextlib.contextmanager
def a_ray(**arguments: Any) -> Iterator[None]:
    """A Ray of our own for as long as the campaign runs, or the one that is up in this process."""
    prepare_environment()
    import ray

    if ray.is_initialized():
        yield
        return
    ray.init(address="local", log_to_driver=False, logging_level=logging.WARNING, **arguments)
    try:
        yield
    finally:
        ray.shutdown()


LOCAL = ("cpus", "gpus", "dashboard")


@contextlib.contextmanager
def local(arguments: Mapping[str, Any], resources: ResourcesSpec | None = None) -> Iterator[Placed]:
    """This machine: trials are workers of a Ray.

    Args:
        arguments: `cpus`, `gpus` (default: all there are), `dashboard` (default: false).
        resources: what a trial gets.

    Raises:
        ValueError: an unknown argument, or a trial needs more than there is.
    """
    _known("local", arguments, LOCAL)
    dashboard = bool(arguments.get("dashboard", False))
    with a_ray(num_cpus=arguments.get("cpus"), num_gpus=arguments.get("gpus"), include_dashboard=dashboard):
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


JOB = ("site", "account", "gpu_type", "memory_gb", "poll_s", "parallel", "cpus", "dashboard")
PLACEMENTS: dict[str, Sequence[str]] = {"local": LOCAL, "job": JOB}


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
        return local(spec.placement.arguments, spec.resources)
    from orchestrator.campaign.jobs.placement import jobs

    return jobs(spec, folder, leaving)
