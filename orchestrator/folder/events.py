"""The events of a trial: how they are written to and read from its file, and what they say of its state."""

from __future__ import annotations

import json
import os
import re
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

EVENTS = "events.jsonl"
"""Name of the file in a trial's folder."""
FINAL = ("finished", "stopped", "failed")
"""States that a trial never leaves."""
BY_ITS_USER = "cancelled by its user"
"""Why a trial failed that its user has cancelled."""


def state_of(events: Sequence[Mapping[str, Any]]) -> str:
    """State of the trial with these events, as if the campaign were running."""
    last = next((e for e in reversed(events) if e["type"] == "status"), None)
    if last is None:
        return "waiting" if not events else "running"
    return "running" if last["status"] in ("started", "resumed") else str(last["status"])


def numbers(event: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a metrics event."""
    values = {k: v for k, v in event.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    return {k: float(v) for k, v in values.items() if k not in ("time", "step")}


def status_event(
    trial: str, status: str, epoch: int, step: int = 0, *, at: float | None = None, **content: Any
) -> dict[str, Any]:
    """The event that a trial's status is `status` from `at` (seconds since 1970; by default now) on; `content` says why."""
    head = {"type": "status", "trial": trial, "time": time.time() if at is None else at, "epoch": epoch, "step": step}
    return {**head, "status": status, **content}


TRANSIENT = ("metrics", "structural", "skipped", "checkpoint")
"""Event types that a resumed trial writes again for the epochs it repeats."""


SEAL = re.compile(rb',"crc":"([0-9a-f]{8})"}$')
SEAL_BYTES = 18


@dataclass(frozen=True)
class Line:
    """A line of a file of events.

    Attributes:
        number: from 1.
        event: what it says; None where it is no JSON object.
        whole: whether its checksum is right; None where it has none, as lines of earlier versions.
    """

    number: int
    event: dict[str, Any] | None
    whole: bool | None


def sealed(event: Mapping[str, Any], before: bytes) -> bytes:
    """The line of an event in a file, with the checksum of itself and of the checksum of the line `before` it."""
    content = json.dumps(event, separators=(",", ":")).encode()
    return content[:-1] + b',"crc":"%08x"}' % zlib.crc32(content, _seal(before)) + b"\n"


def _seal(line: bytes) -> int:
    found = SEAL.match(line[-SEAL_BYTES:])
    return int(found[1], 16) if found else 0


def parsed(content: bytes) -> list[Line]:
    """The lines of a file of events; a torn last one (its writer was killed) and empty ones are left out."""
    raw, lines, before = content.split(b"\n"), [], b""
    for number, line in enumerate(raw, 1):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            event = None
        if event is None and number == len(raw):
            continue
        seal, whole = SEAL.match(line[-SEAL_BYTES:]), None
        if seal:
            whole = zlib.crc32(line[:-SEAL_BYTES] + b"}", _seal(before)) == int(seal[1], 16)
            if event:
                event.pop("crc")
        lines.append(Line(number, event, whole))
        before = line
    return lines


def append_event(path: Path, event: Mapping[str, Any]) -> None:
    """Add one event to a file that has no other writer now; what a killed writer left of its last line is cut off first."""
    append_line(path, event)


def append_line(path: Path, event: Mapping[str, Any], sync: bool = False) -> bytes:
    """`append_event`, and more.

    Args:
        path: the file.
        event: JSON-able.
        sync: whether the event must survive a power cut from now on.

    Returns:
        The line that was written.
    """
    with open(path, "ab+") as file:
        before = _last_line(file)
        line = sealed(event, before)
        file.write(line)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    return line


def _last_line(file: BinaryIO) -> bytes:
    """The last whole line; what follows it is cut off."""
    size, step, tail = file.seek(0, os.SEEK_END), 4096, b""
    start = size
    while start > 0 and tail.count(b"\n") < 2:
        step, start = step * 4, max(0, start - step)
        file.seek(start)
        tail = file.read(size - start)
    end = tail.rfind(b"\n") + 1
    if end < len(tail):
        file.truncate(start + end)
    return tail[:end].rstrip(b"\n").rpartition(b"\n")[2]


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of a trial, oldest first, as they stand in the file; a torn last line (its writer was killed) is left out.

    Whoever shows or uses their numbers asks `coppice.orchestrator.folder.history`, which knows when they are damaged.

    Raises:
        ValueError: a line before the last is damaged; the message names file and line.
    """
    lines = parsed(path.read_bytes()) if path.exists() else []
    for line in lines:
        if line.event is None:
            raise ValueError(f"{path}, line {line.number}, must be a JSON object, but is damaged; delete that line.")
    return [line.event for line in lines if line.event is not None]
