"""How the ranks of a trial find each other: rank 0 listens on a free port, and writes down where and with what secret.

The file is their user's alone. Who has not read it is not let in, on this machine and on others.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import secrets
import socket
import struct
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from coppice.orchestrator.folder.files import read_private, write_atomic
from coppice.orchestrator.trial.rank_store import Board, Gate, Peer, RankStore

MEET_S = 900.0
"""How long a rank waits for the others at the start: the tasks of a job may start minutes apart."""
SECRET = 32
"""Bytes."""
SIOCGIFADDR = 0x8915


@contextlib.contextmanager
def rendezvous(place: Path, token: str, rank: int, size: int, address: str) -> Iterator[tuple[RankStore, str]]:
    """Within: the store that rank 0 keeps, and its address; arguments as those of `process_group.joined`.

    Raises:
        TimeoutError: rank 0 did not come.
        PermissionError: somebody else may read or write the file in which it says where it is.
    """
    within = timedelta(seconds=MEET_S)
    if rank:
        peer, address = _peer(place, token, rank, size)
        yield RankStore(peer, within), address
        return
    board, secret = Board(), secrets.token_bytes(SECRET)
    gate = Gate(board, address, secret)
    try:
        told = {"token": token, "address": address, "port": gate.port, "secret": secret.hex()}
        write_atomic(place, json.dumps(told).encode(), private=True)
        read_private(place)  # a file system without modes would tell everybody
        yield RankStore(board, within), address
    finally:
        gate.close()
        place.unlink(missing_ok=True)


def _peer(place: Path, token: str, rank: int, size: int) -> tuple[Peer, str]:
    end, problem = time.monotonic() + MEET_S, "it has not come"
    while time.monotonic() < end:
        try:
            written: dict[str, Any] = json.loads(read_private(place))
            if written["token"] == token:
                return Peer(written["address"], written["port"], bytes.fromhex(written["secret"]), MEET_S), written["address"]
        except FileNotFoundError:
            pass
        except PermissionError:
            raise
        except OSError as error:  # it is being started, or busy with strangers
            problem = str(error)
        time.sleep(0.1)
    raise TimeoutError(f"rank {rank} of {size} waited {MEET_S:g} s in vain for rank 0 to tell in {place} where it is: {problem}.")


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
