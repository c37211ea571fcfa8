"""The head of a pool's Ray cluster: a child of the driver that runs no trials."""

from __future__ import annotations

import contextlib
import logging
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import ray

from coppice.orchestrator.folder.dashboard_address import announced
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.placement.pool.workers import HEAD
from coppice.orchestrator.placement.ray_session import job_config
from coppice.orchestrator.placement.ray_token import use_token
from coppice.slurm.ray.node import HEAD_FILE
from coppice.slurm.ray.process import Start, running

HEALTH = {
    "RAY_health_check_period_ms": "3000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "4",
}
"""A node that has fallen silent is given up after half a minute; what the user has set stays."""


@dataclass(frozen=True)
class Head:
    """A head that is up, with this process connected to it.

    Attributes:
        address: that nodes join.
        environment: of everything that takes part.
        lost: what of it has ended; empty while all is well.
    """

    address: str
    environment: dict[str, str]
    lost: Callable[[], str]


@contextlib.contextmanager
def head(folder: CampaignFolder, ip: str, dashboard: bool) -> Iterator[Head]:
    """Within: this process is connected to a Ray of its own that others may join, if they know the campaign's secret.

    Args:
        folder: of the campaign.
        ip: of this machine, as the nodes see it.
        dashboard: whether there is one, on this machine's loopback; and metrics, for whoever asks.

    Raises:
        ValueError: a Ray is up in this process, or its authentication is switched off.
        RayFailed: it does not start.
    """
    _refuse_what_is_open()
    token = use_token(folder)
    environment = {
        "RAY_AUTH_MODE": "token", **({"RAY_AUTH_TOKEN_PATH": str(token)} if token else {}),
        "RAY_enable_metrics_collection": str(int(dashboard)),
    }  # fmt: skip
    with running(_start(folder, ip, dashboard, environment)) as process:
        assert process is not None, "a head is always wanted"
        address = f"{ip}:{process.ports[0]}"
        # the authenticated check: without the secret this is refused
        context = ray.init(
            address=address, _node_ip_address=ip, log_to_driver=False, logging_level=logging.WARNING, job_config=job_config()
        )
        try:
            listening = {**context.address_info, **({} if dashboard else {"metrics_export_port": None})}
            with announced(folder, listening, token):
                yield Head(address, environment, lambda: "" if process.running else "the end of the pool's head")
        finally:
            ray.shutdown()


def _refuse_what_is_open() -> None:
    """Neither a Ray that is up nor one that lets everybody in can be the pool's."""
    if ray.is_initialized():
        raise ValueError("placement pool starts a Ray of its own, but one is up in this process; call ray.shutdown() before.")
    if os.environ.get("RAY_AUTH_MODE", "token") != "token":
        raise ValueError(
            "placement pool opens ports on the network, so RAY_AUTH_MODE must be token, but is "
            f"{os.environ['RAY_AUTH_MODE']!r}; unset it."
        )


def _start(folder: CampaignFolder, ip: str, dashboard: bool, environment: dict[str, str]) -> Start:
    options = {
        "node-name": HEAD, "node-ip-address": ip, "num-cpus": "0", "num-gpus": "0", "include-dashboard": str(dashboard).lower(),
        "dashboard-host": "127.0.0.1",
    }  # fmt: skip
    health = {name: os.environ.get(name, value) for name, value in HEALTH.items()}
    seed = zlib.crc32(str(folder.path).encode())
    further = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0", **health}
    return Start(options, {**environment, **further}, head=True, seed=seed)


def own_folder(folder: CampaignFolder) -> Path:
    """A new folder for this run of the pool; nodes of earlier runs find that their clusters are gone."""
    base = folder.pool
    base.mkdir(parents=True, exist_ok=True)
    runs = [int(p.name) for p in base.iterdir() if p.name.isdigit()]
    for number in runs:
        (base / str(number) / HEAD_FILE).unlink(missing_ok=True)
    own = base / str(max(runs, default=0) + 1)
    own.mkdir()
    return own
