"""A Ray node as a child of this process: brought up with ports and folders of its own, ended by its process id.

`ray stop` is never used: it ends every Ray of the user on the machine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from coppice.slurm.ray.ports import reserved
from coppice.slurm.ray.private_folder import private_folder

TRIES = 3
READY_S = 120.0
"""How long one try may take."""
STARTED = "Ray runtime started"
"""What Ray's command prints once everything runs."""
STOP_S = 20.0
"""How long a Ray may take to end before it is killed."""
OBJECT_STORE = 100 * 2**20
"""Bytes. Trials keep what they have in their folders and hand nothing over."""
EVERY_NODE = ("object-manager-port", "node-manager-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port",
              "runtime-env-agent-port", "metrics-export-port")  # fmt: skip
HEAD = ("port", "dashboard-port")
LOGS = ("start.log", "raylet.out", "raylet.err", "gcs_server.out", "dashboard_agent.log")
"""The first is what `ray start` prints, the others tell why a Ray does not start."""
NO_METRICS = {"AUTOSCALER_METRIC_PORT": "-1", "DASHBOARD_METRIC_PORT": "-1"}
"""The numbers of ports that Ray's helpers would open to everybody, the same on every machine; with these none is opened."""
ENVIRONMENT = {
    **NO_METRICS,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_START_HOOK": "coppice.slurm.ray.start.without_client_server",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_scheduler_spread_threshold": "1.0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "60",
}
"""No workers before there is work; nodes are filled one after the other; Slurm, not Ray, watches over a job's memory; no port
that answers everyone, which that of the metrics would.
"""


class RayFailed(RuntimeError):
    """A Ray does not start; the message holds the ends of its logs."""


@dataclass(frozen=True)
class Start:
    """What to start.

    Attributes:
        options: of `ray start`, by long name; ports and folders are added.
        environment: of the process, besides this one's.
        head: whether it is the first node of a cluster.
        workers: how many processes of Ray's may run there.
        seed: which ports are tried first.
        folder: where its temporary folder is made; None for the machine's.
    """

    options: Mapping[str, str]
    environment: Mapping[str, str]
    head: bool = False
    workers: int = 16
    seed: int = 0
    folder: str | None = None

    def command(self, ports: range, temporary: Path) -> list[str]:
        """The command line that starts Ray on these ports, with its files in `temporary`."""
        names = (*HEAD, *EVERY_NODE) if self.head else EVERY_NODE
        fixed = dict(zip(names, map(str, ports), strict=False))
        fixed |= {"min-worker-port": str(ports[len(names)]), "max-worker-port": str(ports[-1])}
        fixed |= {"temp-dir": str(temporary), "object-store-memory": str(OBJECT_STORE), "include-log-monitor": "false"}
        options = [f"--{name}={value}" for name, value in {**fixed, **self.options}.items()]
        flags = ["--block", "--disable-usage-stats", *(["--head", "--no-monitor"] if self.head else [])]
        return [sys.executable, "-P", "-m", "coppice.slurm.ray.start", "start", *flags, *options]

    @property
    def width(self) -> int:
        """How many ports it needs."""
        return len(HEAD) + len(EVERY_NODE) + self.workers


@dataclass
class RayProcess:
    """A Ray that runs.

    Attributes:
        ports: that it may use.
        folder: that only its owner may enter; everything that it writes.
    """

    process: subprocess.Popen[bytes]
    ports: range
    folder: Path

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def stop(self, patience_s: float = STOP_S) -> None:
        """Ask it to end; what is left after `patience_s` seconds is killed."""
        if self.running:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(patience_s)
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it leads a group with all processes that it started
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def log_ends(self) -> str:
        """The ends of its logs."""
        return log_ends(self.folder)


def log_ends(folder: Path, lines: int = 12) -> str:
    """The ends of the logs of the Ray in a private folder."""
    logs = [folder / LOGS[0], *sorted(folder.glob("r/session_2*/logs/*"))]
    ends = []
    for path in logs:
        text = path.read_text(errors="replace").strip() if path.name in LOGS and path.is_file() else ""
        if text:
            ends.append(f"  {path.name}:\n" + "\n".join("    " + line for line in text.split("\n")[-lines:]))
    return "\n".join(ends) or "  (its logs are empty)"


@contextlib.contextmanager
def running(start: Start, wanted: Callable[[], bool] = lambda: True) -> Iterator[RayProcess | None]:
    """Within: a Ray, which ends with the block and leaves nothing behind. None where it stopped being wanted before it was up.

    Raises:
        RayFailed: it does not start, in several tries with other ports each.
    """
    problem = ""
    for number in range(TRIES):
        with contextlib.ExitStack() as held:
            ports = held.enter_context(reserved(start.width, start.seed + number))
            folder = held.enter_context(private_folder(start.folder))
            ray = _spawn(start, ports, folder)
            held.callback(ray.stop)
            problem = _problem(ray, wanted)
            if not problem:
                yield ray if wanted() else None
                return
    raise RayFailed(f"Ray must start, but did not in {TRIES} tries; the last one {problem}")


def _spawn(start: Start, ports: range, folder: Path) -> RayProcess:
    environment = {**os.environ, **ENVIRONMENT, **start.environment}
    with open(folder / "start.log", "ab") as log:
        process = subprocess.Popen(
            start.command(ports, folder / "r"), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
            start_new_session=True,
        )  # fmt: skip
    return RayProcess(process, ports, folder)


def _problem(ray: RayProcess, wanted: Callable[[], bool]) -> str:
    """Why it is not up; empty once it is, or is not wanted any more."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and wanted():
        if not ray.running:
            return f"ended with {ray.process.returncode}:\n{ray.log_ends()}"
        if STARTED in (ray.folder / "start.log").read_text(errors="replace"):
            return ""
        time.sleep(0.1)
    return "" if not wanted() else f"took more than {READY_S:g} s:\n{ray.log_ends()}"
