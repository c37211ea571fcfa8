"""Where the Ray of a campaign listens, written down by the process that runs it for whoever wants to watch."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coppice.orchestrator.folder.files import read_json, write_json
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.user import user_name


@dataclass(frozen=True)
class Address:
    """Where to watch a campaign.

    Attributes:
        host: that the driver runs on, as it calls itself.
        user: whose process it is.
        pid: of the driver.
        job: Slurm's id of the driver's job; empty where it is none.
        port: of the dashboard, on the loopback of `host`; None where there is no dashboard.
        metrics_port: where Prometheus finds the metrics; None where there are none.
        token: file with the secret that the dashboard asks for; empty where the user's environment holds it.
        since: when Ray was started, seconds since the epoch.
    """

    host: str
    user: str
    pid: int
    job: str
    port: int | None
    metrics_port: int | None
    token: str
    since: float


@contextlib.contextmanager
def announced(folder: CampaignFolder, ray_says: Mapping[str, Any], token: Path | None) -> Iterator[None]:
    """Within: the campaign's folder tells where its Ray listens.

    Args:
        folder: of the campaign.
        ray_says: `address_info` of what `ray.init` returns.
        token: file with Ray's secret; None where the user's environment holds it.
    """
    job = os.environ.get("SLURM_JOB_ID", "")
    dashboard, metrics = str(ray_says.get("webui_url") or ""), int(ray_says.get("metrics_export_port") or 0)
    port = int(dashboard.rpartition(":")[2]) if dashboard else None
    address = Address(
        socket.gethostname(), user_name(), os.getpid(), job, port, metrics if metrics > 0 else None,
        "" if token is None else str(token), time.time(),
    )  # fmt: skip
    write_json(folder.dashboard, asdict(address))
    try:
        yield
    finally:
        folder.dashboard.unlink(missing_ok=True)


def read_address(folder: CampaignFolder) -> Address | None:
    """Where the Ray of a campaign listens; None where none does, as far as can be told from here."""
    if not folder.dashboard.exists():
        return None
    address = Address(**read_json(folder.dashboard))
    gone = address.host == socket.gethostname() and not Path(f"/proc/{address.pid}").exists() and Path("/proc/self").exists()
    return None if gone else address
