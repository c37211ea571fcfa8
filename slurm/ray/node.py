"""Nodes that join a Ray cluster from Slurm jobs, for as long as their jobs last."""

from __future__ import annotations

import json
import os
import socket
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coppice.slurm.client import Client
from coppice.slurm.job.signals import EndSignals
from coppice.slurm.ray.process import STOP_S, RayFailed, RayProcess, Start, running

LEAVING = "COPPICE_LEAVING"
"""Environment variable of everything that runs on a node: a file that is there once the node is about to end."""
CHECK_EVERY_S = 0.5
GONE_S = 1.0
"""How long a Ray may take to end that has nobody to say goodbye to."""
WORKERS_A_CPU = 3
"""Processes of Ray's: those at work, those that end and those that start."""


def own_address(towards: str) -> str:
    """The address of this machine as `towards` sees it. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((towards, 9))
        return str(probe.getsockname()[0])


def controller_address(client: Client) -> str:
    """Name or address of the machine with Slurm's controller: whoever reaches it is reached by the nodes, too.

    Raises:
        SlurmError: Slurm is not there, or does not answer.
    """
    for line in client.run("scontrol", "show", "config").splitlines():
        name, _, value = line.partition("=")
        if name.strip().startswith("SlurmctldHost"):
            host, _, address = value.strip().partition("(")
            return address.rstrip(")") or host
    return "localhost"


@dataclass(frozen=True)
class Allocation:
    """What Slurm gave to this job on this node.

    Attributes:
        memory: bytes; None where Slurm does not say.
    """

    cpus: int
    gpus: int
    memory: int | None

    @staticmethod
    def of(environment: Mapping[str, str]) -> Allocation:
        """As a job's environment tells."""
        cpus = int(environment.get("SLURM_CPUS_PER_TASK") or environment.get("SLURM_CPUS_ON_NODE") or 1)
        visible = [d for d in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if d]
        gpus = int(environment.get("SLURM_GPUS_ON_NODE") or len(visible))
        each = int(environment.get("SLURM_MEM_PER_CPU") or 0) * cpus or int(environment.get("SLURM_MEM_PER_GPU") or 0) * gpus
        megabytes = int(environment.get("SLURM_MEM_PER_NODE") or 0) or each
        return Allocation(cpus, gpus, megabytes * 2**20 or None)


HEAD_FILE = "head.json"
"""Name of the file, in the folder of a cluster, that says where its head is."""


class Cluster:
    """The file that tells nodes where the head of their cluster is, and that it is still there.

    Args:
        folder: of this cluster, shared by the head and its nodes.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / HEAD_FILE
        self._last: str | None = None

    def announce(self, address: str) -> None:
        """Tell waiting nodes the head's address, `host:port`: they may join."""
        temporary = self._path.with_suffix(".new")
        temporary.write_text(json.dumps({"address": address}))
        temporary.replace(self._path)

    def close(self) -> None:
        """Nodes must end, wherever they are."""
        self._path.unlink(missing_ok=True)

    def address(self) -> str | None:
        """Where the head is; None once the cluster is gone."""
        try:
            announced = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):  # a file system that stutters ends no node
            return self._last
        self._last = str(announced["address"])
        return self._last


@dataclass(frozen=True)
class NodeJob:
    """The call of a node's job: a Ray node of the cluster that a file tells of.

    Attributes:
        key: of the work.
        folder: of the cluster: its file, and those of nodes that are about to end.
        environment: of Ray.
        local_disk: environment variable or path of the node's own disk.
        drain_s: how long trials may take to end their epoch once the node must end.
    """

    key: str
    folder: Path
    environment: Mapping[str, str]
    local_disk: str | None = None
    drain_s: float = 60.0

    def __call__(self, number: int) -> str:
        """Attempt `number`; returns why it ended.

        Raises:
            RayFailed: the node did not come up, or its Ray ended by itself.
        """
        signals = EndSignals()
        name = node_name(self.key, number, int(os.environ.get("SLURM_RESTART_COUNT") or 0))
        leave = leave_file(self.folder, name)
        cluster = Cluster(self.folder)
        address = cluster.address()
        if address is None:
            return "the cluster that it was meant for is gone"
        with running(self._start(name, address, leave), lambda: not signals.last and cluster.address() == address) as ray:
            if ray is None:
                return "not wanted any more"
            print(f"joined {address} as {name}", flush=True)
            return _stay(ray, cluster, leave, signals, self.drain_s)

    def _start(self, name: str, address: str, leave: Path) -> Start:
        given = Allocation.of(os.environ)
        options = {
            "address": address, "node-name": name, "node-ip-address": own_address(address.rpartition(":")[0]),
            "num-cpus": str(given.cpus), "num-gpus": str(given.gpus), **({"memory": str(given.memory)} if given.memory else {}),
        }  # fmt: skip
        drain = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(self.drain_s), LEAVING: str(leave)}
        disk = self.local_disk and (os.environ.get(self.local_disk.lstrip("$")) or self.local_disk)
        job = os.environ.get("SLURM_JOB_ID", "")
        seed = zlib.crc32(f"{job}.{name}".encode())
        return Start(options, {**self.environment, **drain}, False, WORKERS_A_CPU * given.cpus + 10, seed, disk)


def _stay(ray: RayProcess, cluster: Cluster, leave: Path, signals: EndSignals, drain_s: float) -> str:
    address = cluster.address()
    while ray.running:
        if signals.last:
            leave.touch()
        if leave.exists():
            ray.stop(drain_s + STOP_S)  # it takes no more work, and ends when nothing runs any more
            return f"left ({signals.last or 'not needed any more'})"
        if address is None or cluster.address() != address:
            ray.stop(GONE_S)
            return "the cluster is gone"
        time.sleep(CHECK_EVERY_S)
    raise RayFailed(f"the Ray of this node ended by itself with {ray.process.returncode}:\n{ray.log_ends()}")


def node_name(key: str, number: int, restarts: int) -> str:
    """Of the Ray node that attempt `number` at some work is."""
    return f"{key}.{number}.{restarts}"


def leave_file(folder: Path, name: str) -> Path:
    """A file that is there once a node is about to end, or must."""
    return folder / f"{name}.leave"

