"""What a trial has done, also where its file of events is damaged: its checkpoints, which are synced and verified, know as well.

Every line of `events.jsonl` has a checksum of itself and of the one before it, and every checkpoint keeps a copy of the file as
it was. What is missing or was changed is found by the one and taken from the other; what no checkpoint knows is told.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coppice.orchestrator.folder.events import EVENTS, TRANSIENT, Line, numbers, parsed, sealed, state_of
from coppice.orchestrator.folder.files import write_atomic
from coppice.orchestrator.folder.manifest import CHECKPOINTS, STATE, CheckpointError, available, read_file

Event = dict[str, Any]


@dataclass(frozen=True)
class History:
    """The events of a trial, oldest first, and what is wrong with the file that should hold them; empty where nothing is."""

    events: list[Event]
    problem: str = ""


@dataclass(frozen=True)
class _Copy:
    """The events that the checkpoint called `name` knows of, up to its `epoch`."""

    name: str
    epoch: int
    events: list[Event]


def read_history(trial: Path) -> History:
    """What the trial in a folder has done, as far as it is known, whether it runs or not."""
    reached = [int(p.name) for p in available(trial / CHECKPOINTS)]  # first: a trial that runs only adds events meanwhile
    lines = parsed(content) if (content := _content(trial / EVENTS)) else []
    good = _good(lines)
    faults = [_fault(line) for line in lines if line.whole is False or not _usable(line.event)]
    stopped = good[-1]["epoch"] if good and state_of(good) == "stopped" else None
    last = max((int(e["epoch"]) for e in good if e["type"] == "metrics"), default=0)
    behind = bool(reached) and stopped is None and last < reached[-1]
    unsealed = any(line.whole is None for line in lines) and bool(reached)
    if not faults and not behind and not unsealed:
        return History(good)
    copy = _copy(trial, good)
    if copy is None:
        used = [line.event for line in lines if line.event is not None and _usable(line.event)]
        return History(used, _told(trial, faults) if faults else "")
    events = _merged(copy, good, stopped)
    if not faults and events == good:
        return History(good)
    what = _few(faults) or f"what happened up to epoch {copy.epoch} is not in it as it was"
    return History(events, f"{trial / EVENTS} is damaged ({what}): what checkpoint {copy.name} keeps of it counts.")


def rewrite(trial: Path, epoch: int | None = None) -> str:
    """Write back what the checkpoints know, and forget what happened after `epoch`; returns what was wrong with the file.

    Only for the process that runs the trial, or where none does.
    """
    path = trial / EVENTS
    history = read_history(trial)
    kept = [e for e in history.events if epoch is None or e["type"] not in TRANSIENT or e["epoch"] <= epoch]
    content, line = b"", b""
    for event in kept:
        line = sealed(event, line.rstrip(b"\n"))
        content += line
    if history.problem or (epoch is not None and _content(path) != content):
        write_atomic(path, content)
    return history.problem


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _usable(event: Event | None) -> bool:
    return event is not None and isinstance(event.get("type"), str) and isinstance(event.get("epoch"), (int, float))


def _good(lines: Sequence[Line]) -> list[Event]:
    """The events whose lines are whole, as far as that can be told."""
    return [line.event for line in lines if line.whole is not False and line.event is not None and _usable(line.event)]


def _fault(line: Line) -> str:
    if line.event is None:
        return f"line {line.number} is no JSON object"
    return f"line {line.number} was changed, or one before it is missing"


def _told(trial: Path, faults: Sequence[str]) -> str:
    return (
        f"{trial / EVENTS} is damaged ({_few(faults)}), and no checkpoint knows what was there: numbers of this trial may be "
        f"wrong. To have it trained again: delete {trial / EVENTS}, then coppice resume."
    )


def _few(faults: Sequence[str]) -> str:
    return "; ".join(faults[:3]) + (f" and {len(faults) - 3} more" if len(faults) > 3 else "")


def _copy(trial: Path, good: Sequence[Event]) -> _Copy | None:
    """What the newest valid checkpoint knows."""
    for path in reversed(available(trial / CHECKPOINTS)):
        try:
            epoch, content = int(path.name), read_file(path, EVENTS)
            if content is not None:
                events = [line.event for line in parsed(content) if line.event is not None and _usable(line.event)]
                return _Copy(path.name, epoch, [e for e in events if _up_to(e, epoch)])
            history = json.loads(read_file(path, STATE) or b"{}").get("history")
            if history:
                return _Copy(path.name, epoch, _of_before(trial, path, history, good))
        except (CheckpointError, OSError, ValueError, TypeError, AttributeError, KeyError):
            continue
    return None


def _up_to(event: Event, epoch: float) -> bool:
    return event["type"] not in TRANSIENT or event["epoch"] <= epoch


def _key(event: Mapping[str, Any]) -> str:
    """Equal for equal events, also where numbers are not a number."""
    return json.dumps(event, sort_keys=True)


def _of_before(trial: Path, path: Path, history: Sequence[Mapping[str, float]], good: Sequence[Event]) -> list[Event]:
    """Events up to a checkpoint of an earlier version, which knows the numbers of each epoch only."""
    known = {e["epoch"]: e for e in good if e["type"] == "metrics"}
    head = {"type": "metrics", "trial": trial.name, "time": path.stat().st_mtime, "step": 0}
    rows: dict[float, Event] = {}
    for row in history:
        event = known.get(row["epoch"], {})
        same = _key({k: v for k, v in numbers(event).items() if k in row}) == _key(row)
        rows[row["epoch"]] = event if same else {**(event or head), **row}
    events: list[Event] = []
    for event in (e for e in good if _up_to(e, int(path.name))):
        while rows and min(rows) <= event["epoch"] and event["type"] in ("metrics", "checkpoint", "status"):
            events.append(rows.pop(min(rows)))
        if event["type"] != "metrics":
            events.append(event)
    return [*events, *(rows[epoch] for epoch in sorted(rows))]


def _merged(copy: _Copy, good: Sequence[Event], stopped: float | None) -> list[Event]:
    """The copy, and what the file says of the time after it; of a trial that was stopped nothing after its end."""
    kept = [e for e in copy.events if stopped is None or _up_to(e, stopped)]
    known, have = {_key(e) for e in kept}, {_key(e) for e in good}
    if known <= have:
        return list(good)
    later = [e for e in good if e["type"] not in TRANSIENT or e["type"] == "checkpoint" or e["epoch"] > copy.epoch]
    return [*kept, *(e for e in later if _key(e) not in known)]
