"""Where trials run. A placement is a context in which Ray is up; `local` is this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from orchestrator.config import Named

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


@contextlib.contextmanager
def local(arguments: Mapping[str, Any]) -> Iterator[None]:
    """This machine: a Ray of our own for as long as the campaign runs, or the one that is up in this process.

    Args:
        arguments: `cpus`, `gpus` (default: all there are), `dashboard` (default: false).
    """
    known = {"cpus", "gpus", "dashboard"}
    if unknown := sorted(set(arguments) - known):
        raise ValueError(f"placement local takes {sorted(known)}, but got {unknown}.")
    prepare_environment()
    import ray

    if ray.is_initialized():
        yield
        return
    ray.init(
        address="local",
        num_cpus=arguments.get("cpus"),
        num_gpus=arguments.get("gpus"),
        include_dashboard=bool(arguments.get("dashboard", False)),
        log_to_driver=False,
        logging_level=logging.WARNING,
    )
    try:
        yield
    finally:
        ray.shutdown()


PLACEMENTS: dict[str, Callable[[Mapping[str, Any]], AbstractContextManager[None]]] = {"local": local}


def placed(placement: Named) -> AbstractContextManager[None]:
    """The placement called `placement.name`.

    Raises:
        ValueError: there is none of that name.
    """
    if placement.name not in PLACEMENTS:
        raise ValueError(f"placement must be one of {sorted(PLACEMENTS)}, but got {placement.name!r}.")
    return PLACEMENTS[placement.name](placement.arguments)
