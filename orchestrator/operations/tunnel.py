"""How to see a dashboard from elsewhere: a tunnel through ssh, since nothing may listen on the network without a secret."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from coppice.orchestrator.folder.dashboard_address import Address
from coppice.orchestrator.user import user_name


@dataclass(frozen=True)
class Tunnel:
    """What to type and where to look.

    Attributes:
        command: for the machine with the browser; one that a shell takes as it is.
        url: of the dashboard, once the tunnel stands; empty where there is no dashboard.
        metrics: where Prometheus finds the metrics, once the tunnel stands; empty where there are none.
    """

    command: str
    url: str
    metrics: str


def tunnel(address: Address, here: str | None = None, login: str | None = None) -> Tunnel:
    """The tunnel to where a campaign's Ray listens.

    Args:
        address: of the campaign.
        here: host on which this is asked; None for this one. Compute nodes are reached through it.
        login: name under which the user's machine knows that host; None for its own full name.
    """
    here = here or socket.gethostname()
    ports = [p for p in (address.port, address.metrics_port) if p is not None]
    return Tunnel(
        shlex.join(_command(address, here, login or _own_name(), ports)),
        f"http://127.0.0.1:{address.port}" if address.port is not None else "",
        f"http://127.0.0.1:{address.metrics_port}/metrics" if address.metrics_port is not None else "",
    )


def _own_name() -> str:
    """Full name of this machine; where it calls itself by its loopback, the short one."""
    full = socket.getfqdn()
    return socket.gethostname() if full.startswith("localhost") else full


def _command(address: Address, here: str, login: str, ports: Sequence[int]) -> list[str]:
    user = address.user or user_name()
    forwards = [word for port in ports for word in ("-L", f"{port}:127.0.0.1:{port}")]
    if address.host == here:
        return ["ssh", "-N", *forwards, f"{user}@{login}"]
    return ["ssh", "-N", *forwards, "-J", f"{user}@{login}", f"{user}@{address.host}"]
