"""A Ray of this process alone, with the settings that campaigns need."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from coppice.orchestrator.folder.dashboard_address import announced
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.placement.ray_start import own_ray
from coppice.orchestrator.placement.ray_token import use_token
from coppice.orchestrator.usable import usable_cpus
from coppice.orchestrator.user import make_up_for_no_home
from coppice.slurm.ray.process import NO_METRICS

LOOPBACK = "127.0.0.1"
Lost = Callable[[], str]
RAY_SETTINGS = {
    **NO_METRICS,
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

    Ray is used with its token authentication; whose token, says `coppice.orchestrator.placement.ray_token`.
    """
    make_up_for_no_home()
    for name, value in RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    if "ray" not in sys.modules:  # an imported Ray has read the mode already; its own default is the same
        os.environ.setdefault("RAY_AUTH_MODE", "token")


@contextlib.contextmanager
def ray_session(folder: CampaignFolder | None = None, *, dashboard: bool = False, **arguments: Any) -> Iterator[Lost]:
    """A Ray of our own for as long as the campaign in `folder` runs, or the one that is up in this process.

    Nobody else on this machine can enter it: it asks for the campaign's secret, its sockets are in a folder of this user's alone,
    and metrics, for which Ray asks no secret, are there only with a dashboard. Gives a function that tells what of it has been
    lost; empty while all is well.

    Raises:
        RayFailed: it does not start.
    """
    prepare_environment()
    import ray

    if ray.is_initialized():
        yield lambda: ""
        return
    token = use_token(folder)
    if arguments.get("num_cpus") is None:
        arguments["num_cpus"] = usable_cpus()
    settings = {
        "address": "local", "include_dashboard": dashboard, "_node_ip_address": LOOPBACK, "log_to_driver": False,
        "_system_config": {"enable_metrics_collection": dashboard}, "logging_level": logging.WARNING,
    }  # fmt: skip
    with contextlib.ExitStack() as held:
        own = held.enter_context(own_ray(**settings, job_config=job_config(), **arguments))
        if folder is not None:
            listening = {**own.address_info, **({} if dashboard else {"metrics_export_port": None})}
            held.enter_context(announced(folder, listening, token))
        yield own.lost


def job_config() -> Any:
    """How this process presents itself to its Ray: like a remote client, whose working directory workers do not search first."""
    from ray.job_config import JobConfig

    return JobConfig(_client_job=True)
