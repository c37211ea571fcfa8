"""The folder of a campaign: the only place that knows its file names. Writes are atomic, every file has one writer."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TRANSIENT = ("metrics", "structural", "skipped", "checkpoint")
"""Event types that a resumed trial writes again for the epochs it repeats."""


def write_atomic(path: Path, content: bytes) -> None:
    """Write `path` so that it has either its old content or all of the new one, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` for a JSON-able value."""
    write_atomic(path, json.dumps(value, indent=1).encode())


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


class TrialFolder:
    """`trials/<id>/`: params.json, events.jsonl, checkpoints/."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    @property
    def name(self) -> str:
        """The trial's id."""
        return self.path.name

    @property
    def params(self) -> Path:
        """What the trial is: its spec, and the sampled values."""
        return self.path / "params.json"

    @property
    def events(self) -> Path:
        """What happened, one JSON object a line."""
        return self.path / "events.jsonl"

    @property
    def checkpoints(self) -> Path:
        """One folder a checkpoint."""
        return self.path / "checkpoints"

    def append_event(self, event: Mapping[str, Any]) -> None:
        """Add one event."""
        with open(self.events, "ab") as file:
            file.write(json.dumps(event, separators=(",", ":")).encode() + b"\n")

    def truncate_events(self, epoch: int) -> None:
        """Forget what happened after `epoch`, because the trial goes on from there and will do it again."""
        events = read_events(self.events)
        kept = [e for e in events if e["type"] not in TRANSIENT or e["epoch"] <= epoch]
        if len(kept) != len(events) or not self.events.exists() or not self.events.read_bytes().endswith(b"\n"):
            write_atomic(self.events, b"".join(json.dumps(e, separators=(",", ":")).encode() + b"\n" for e in kept))


class CampaignFolder:
    """`<root>/<campaign>/`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def spec(self) -> Path:
        """The campaign file as it was given."""
        return self.path / "campaign.yaml"

    @property
    def lock(self) -> Path:
        """Resolved configuration, versions, commit and seed."""
        return self.path / "campaign.lock.json"

    @property
    def results(self) -> Path:
        """Parquet tables."""
        return self.path / "results"

    @property
    def report(self) -> Path:
        """The HTML page."""
        return self.path / "report.html"

    @property
    def trials_path(self) -> Path:
        """One folder a trial."""
        return self.path / "trials"

    def trial(self, name: str) -> TrialFolder:
        """The folder of one trial, made when it is missing."""
        return TrialFolder(self.trials_path / name)

    def trials(self) -> list[TrialFolder]:
        """All trial folders, by name."""
        if not self.trials_path.is_dir():
            return []
        return [TrialFolder(p) for p in sorted(self.trials_path.iterdir()) if p.is_dir()]
