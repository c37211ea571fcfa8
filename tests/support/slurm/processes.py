"""Processes that are only ever signalled when their recorded start time still fits: a pid may belong to someone else by then.

Standard library only: the first process of every node runs this without site-packages.
"""

import contextlib
import ctypes
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.waiting import LIMIT_S, STEP_S

SIGNAL_AT_PARENTS_DEATH = 1
"""PR_SET_PDEATHSIG of prctl."""


class ClusterError(RuntimeError):
    """The test cluster does not do what it must; the message says what was waited for."""


def sh(command: list[str], timeout: float = LIMIT_S, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    if options.get("input") is None:
        options["stdin"] = subprocess.DEVNULL
    done = subprocess.run(command, timeout=timeout, text=True, capture_output=True, check=False, **options)
    if check and done.returncode:
        raise ClusterError(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def wait_for(what: str, condition: Callable[[], Any], *, step: float = STEP_S) -> Any:
    """The first true value of `condition`."""
    if value := _within(LIMIT_S, condition, step):
        return value
    raise ClusterError(f"waited {LIMIT_S:.0f} s in vain for: {what}")


def _within(seconds: float, condition: Callable[[], Any], step: float) -> Any:
    """The first true value of `condition`, or the last one when the time is over."""
    end = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(step)
    return value


def started(pid: int) -> tuple[int, int, str] | None:
    """Parent, start time in clock ticks, and state of a process; None when it is gone."""
    try:
        raw = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = raw[raw.rindex(")") + 2 :].split()
    return int(fields[1]), int(fields[19]), fields[0]


def record(path: Path, pid: int) -> None:
    """Write down a process."""
    found = started(pid)
    temporary = path.with_name(f"{path.name}.new")  # ctl.outer and ctl.pid may be written at the same time
    temporary.write_text(json.dumps({"pid": pid, "start": found[1] if found else -1}))
    temporary.rename(path)


def alive(path: Path) -> int:
    """The recorded pid when exactly that process still runs, else 0."""
    try:
        written = json.loads(path.read_text())
        found = started(int(written["pid"]))
    except (OSError, ValueError, KeyError):
        return 0
    return int(written["pid"]) if found and found[1] == written["start"] and found[2] not in "ZX" else 0


def stop(path: Path, how: int = signal.SIGTERM, timeout: float = 5) -> None:
    """Signal the recorded process, kill it after `timeout` seconds, and remove the record."""
    for attempt in (how, signal.SIGKILL):
        if pid := alive(path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, attempt)
            _within(timeout, lambda: not alive(path), 0.02)
    if alive(path):
        raise ClusterError(f"the process of {path} does not end.")
    path.unlink(missing_ok=True)


def descendants(root: int) -> list[int]:
    """All processes below one."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (found := started(int(entry))):
            children.setdefault(found[0], []).append(int(entry))
    below, waiting = [], [root]
    while waiting:
        for child in children.get(waiting.pop(), []):
            below.append(child)
            waiting.append(child)
    return below


def kill_below(root: int) -> None:
    """Kill everything below a process that adopts orphans, until nothing is left."""
    for _ in range(50):
        left = [p for p in descendants(root) if p != os.getpid() and (found := started(p)) and found[2] not in "ZX"]
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def spawn(command: list[str], log: Path, at_our_death: int) -> int:
    """Start a process in a session of its own that is signalled when this one dies, however that happens."""

    def tie() -> None:
        ctypes.CDLL(None, use_errno=True).prctl(SIGNAL_AT_PARENTS_DEATH, at_our_death, 0, 0, 0)

    with open(log, "ab") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd="/", start_new_session=True, preexec_fn=tie  # noqa: PLW1509
        )
    return process.pid


def remove_tree(path: Path) -> None:
    """Delete a folder, but never walk into something that is mounted below it."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    inside = [m for m in mounts if m == str(path) or m.startswith(f"{path}/")]
    if inside:
        raise ClusterError(f"{path} is not removed, because something is mounted below it: {inside}")
    shutil.rmtree(path, ignore_errors=True)
