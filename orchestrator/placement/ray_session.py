"""A Ray of this process alone, with the settings that campaigns need."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

from coppice.orchestrator.folder.dashboard_address import announced
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.placement.ray_token import use_token
from coppice.slurm.ray.private_folder import private_folder

LOOPBACK = "127.0.0.1"
RAY_SETTINGS = {
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
    for name, value in RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    if "ray" not in sys.modules:  # an imported Ray has read the mode already; its own default is the same
        os.environ.setdefault("RAY_AUTH_MODE", "token")


@contextlib.contextmanager
def ray_session(folder: CampaignFolder | None = None, *, dashboard: bool = False, **arguments: Any) -> Iterator[None]:
    """A Ray of our own for as long as the campaign in `folder` runs, or the one that is up in this process.

    Nobody else on this machine can enter it: it asks for the campaign's secret, its sockets are in a folder of this user's alone,
    and metrics, for which Ray asks no secret, are there only with a dashboard.
    """
    prepare_environment()
    import ray

    if ray.is_initialized():
        yield
        return
    token = use_token(folder)
    with contextlib.ExitStack() as held:
        temporary = held.enter_context(private_folder(os.environ.get("RAY_TMPDIR")))
        with _on_loopback():
            context = ray.init(
                address="local",
                include_dashboard=dashboard,
                _node_ip_address=LOOPBACK,
                _temp_dir=str(temporary / "r"),
                _system_config={"enable_metrics_collection": dashboard},
                log_to_driver=False,
                logging_level=logging.WARNING,
                job_config=job_config(),
                **arguments,
            )
        held.callback(ray.shutdown)
        if folder is not None:
            listening = {**context.address_info, **({} if dashboard else {"metrics_export_port": None})}
            held.enter_context(announced(folder, listening, token))
        yield


def job_config() -> Any:
    """How this process presents itself to its Ray: like a remote client, whose working directory workers do not search first."""
    from ray.job_config import JobConfig

    return JobConfig(_client_job=True)


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
