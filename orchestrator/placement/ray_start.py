"""Brings up a Ray of this process's own: patient on a busy machine, within a limit, and nothing is left of what did not start.

It relies on internals of Ray, whose own limits cannot be set: the supported range is pinned.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coppice.slurm.ray.private_folder import private_folder
from coppice.slurm.ray.process import TRIES, RayFailed, log_ends

READY_S = 300.0
"""How long one try may take. Ray itself gives its first node half a minute, which a machine with other work exceeds."""
VITAL = ("raylet", "gcs_server")
"""Processes of Ray's without which nothing goes on."""
PATIENCE = {
    "RAY_gcs_server_port_wait_time_s": str(int(READY_S)),
    "RAY_gcs_rpc_server_connect_timeout_s": str(int(READY_S)),
    "RAY_agent_register_timeout_ms": str(int(1000 * READY_S)),
    "RAY_worker_register_timeout_seconds": str(int(READY_S)),
    "RAY_health_check_failure_threshold": "60",
}
"""Its processes are children of this one, which sees it when one has ended; what the user has set stays."""
NOT_THEIRS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals to every process of a terminal or a job: what this process does about them must not be anticipated by Ray's."""


class _Ended(Exception):
    """A process of Ray's has ended before Ray was up."""


@dataclass
class OwnRay:
    """The processes of a Ray that this process has started.

    Attributes:
        folder: with everything that it writes; only its owner may enter.
        address_info: where it listens, as `ray.init` says.
    """

    folder: Path
    address_info: Mapping[str, Any] = field(default_factory=dict)
    _processes: list[tuple[str, subprocess.Popen[bytes]]] = field(default_factory=list)

    def note(self, kind: str, process: subprocess.Popen[bytes]) -> None:
        """A process of it was started."""
        self._processes.append((kind, process))

    def lost(self) -> str:
        """What has ended that it cannot do without, and how; empty while all is well."""
        ended = [(k, p.returncode) for k, p in self._processes if k in VITAL and p.poll() is not None]
        return "; ".join(f"the end of Ray's {kind} ({_how(code)})" for kind, code in ended)

    def kill(self) -> None:
        """End what is left of it."""
        for _, process in self._processes:
            if process.poll() is None:
                process.kill()
        for _, process in self._processes:
            process.wait()


def _how(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    return f"{signal.Signals(-code).name}{', perhaps for want of memory' if code == -signal.SIGKILL else ''}"


@contextlib.contextmanager
def own_ray(**arguments: Any) -> Iterator[OwnRay]:
    """Within: a Ray that was started by `ray.init` with these arguments, in a folder of its own.

    Raises:
        RayFailed: it does not start, in several tries.
    """
    import ray

    problem = ""
    for _ in range(TRIES):
        with contextlib.ExitStack() as held:
            own = OwnRay(held.enter_context(private_folder(os.environ.get("RAY_TMPDIR"))))
            held.callback(own.kill)
            held.callback(ray.shutdown)
            problem = _init(own, arguments)
            if not problem:
                yield own
                return
            if limit := _memory_limit():
                raise RayFailed(f"Ray must start, but was ended by {problem}; {limit}")
            problem += f":\n{log_ends(own.folder, lines=4)}"
    raise RayFailed(f"Ray must start, but did not in {TRIES} tries; the last one was ended by {problem}")


def _init(own: OwnRay, arguments: Mapping[str, Any]) -> str:
    """Start it; what went wrong, empty where nothing did."""
    import ray

    began = time.monotonic()
    late = threading.Timer(READY_S, own.kill)  # what waits for an answer of its processes gets an error, then
    late.daemon = True
    late.start()
    try:
        with _signals_kept(), _environment(), _noted(own):
            own.address_info = ray.init(_temp_dir=str(own.folder / "r"), **arguments).address_info
    except Exception as error:  # Ray raises Exception itself
        slow = time.monotonic() - began >= READY_S
        return f"its limit of {READY_S:g} s" if slow else own.lost() or f"{type(error).__name__}: {error}"
    finally:
        late.cancel()
    return ""


def _memory_limit() -> str:
    """What to do where memory is limited in a way that Ray does not bear; empty where it is not."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return ""
    return f"each process may have an address space of {limit / 2**30:.1f} GiB here, and Ray needs more: ulimit -v unlimited."


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Within: Ray's processes inherit that some signals do not end them, and what receives signals here stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, NOT_THEIRS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for number, receiver in before.items():
            signal.signal(number, receiver or signal.SIG_DFL)


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    added = {name: value for name, value in PATIENCE.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _noted(own: OwnRay) -> Iterator[None]:
    """Within: Ray takes the loopback address, its processes are noted, and its first node is waited for as long as they live.

    Ray would put an outer address in the loopback's place, and then metrics, which ask for no secret, would be open to the
    network.
    """
    from ray._private import services

    spawn, get_node, resolve = services.start_ray_process, services.get_node, services.resolve_ip_for_localhost
    deadline = time.monotonic() + READY_S

    def noted(command: Any, process_type: str, *further: Any, **named: Any) -> Any:
        info = spawn(command, process_type, *further, **named)
        own.note(process_type, info.process)
        return info

    def patient(*given: Any) -> Any:
        while True:
            try:
                return get_node(*given)
            except RuntimeError:
                if own.lost() or time.monotonic() > deadline:
                    raise _Ended from None
            time.sleep(0.1)

    services.start_ray_process, services.get_node, services.resolve_ip_for_localhost = noted, patient, lambda host: host
    try:
        yield
    finally:
        services.start_ray_process, services.get_node, services.resolve_ip_for_localhost = spawn, get_node, resolve
