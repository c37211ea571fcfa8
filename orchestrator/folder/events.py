"""The events of a trial: how they are written to and read from its file, and what they say of its state."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FINAL = ("finished", "stopped", "failed")
"""States that a trial never leaves."""


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


def append_event(path: Path, event: Mapping[str, Any]) -> None:
    """Add one event to a file that has no other writer now; what a killed writer left of its last line is cut off first."""
    with open(path, "ab+") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write(json.dumps(event, separators=(",", ":")).encode() + b"\n")


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of a trial, oldest first; a torn last line (its writer was killed) is left out.

    Raises:
        ValueError: a line before the last is damaged; the message names file and line.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    events = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            events.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}, must be a JSON object, but is damaged; delete that line.") from None
    return events
