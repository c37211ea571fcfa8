"""How the ranks of a trial find each other: rank 0 listens on a free port and writes down which, the others read it."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from coppice.orchestrator.folder.files import read_json, write_json

MEET_S = 900.0
"""How long a rank waits for the others at the start: the tasks of a job may start minutes apart."""
SIOCGIFADDR = 0x8915


def rendezvous(place: Path, token: str, rank: int, size: int, address: str) -> tuple[Any, str]:
    """The store that rank 0 keeps, and its address; arguments as those of `process_group.joined`.

    Raises:
        TimeoutError: rank 0 did not come.
    """
    if rank == 0:
        store = _store(address, 0, main=True)
        write_json(place, {"token": token, "address": address, "port": store.port})
        return store, address
    end = time.monotonic() + MEET_S
    while time.monotonic() < end:
        if place.exists() and (written := read_json(place))["token"] == token:
            return _store(written["address"], written["port"], main=False), written["address"]
        time.sleep(0.1)
    raise TimeoutError(f"rank {rank} of {size} waited {MEET_S:g} s for rank 0 to say in {place} where it listens, in vain.")


def _store(address: str, port: int, main: bool) -> Any:
    limit = timedelta(seconds=MEET_S)
    return dist.TCPStore(address, port, is_master=main, wait_for_workers=False, timeout=limit)  # type: ignore[attr-defined]


def interface_towards(address: str) -> str:
    """The network interface over which this machine reaches `address`; a host's own name may stand for another one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        own = probe.getsockname()[0]
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                answer = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                if socket.inet_ntoa(answer[20:24]) == own:
                    return name
    return "lo"
