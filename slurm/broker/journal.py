"""What was handed in, written down before anything else is done with it, so that a new driver finds its jobs again."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

JOURNAL = "journal.jsonl"
"""Name of the file, in the folder of a broker."""


@dataclass(frozen=True)
class Attempt:
    """One job for one piece of work.

    Attributes:
        key: of the work.
        number: 1 for the first attempt.
        job: Slurm's id; empty while it is being handed in.
        time: when, seconds since the epoch.
    """

    key: str
    number: int
    job: str
    time: float


class Journal:
    """An append-only file of attempts, one JSON object a line; a torn last line is ignored."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def attempts(self) -> dict[str, list[Attempt]]:
        """All attempts by key, oldest first."""
        by_key: dict[str, list[Attempt]] = {}
        lines = self.path.read_text().split("\n") if self.path.exists() else []
        for line in lines:
            try:
                attempt = Attempt(**json.loads(line))
            except (ValueError, TypeError):
                continue
            by_key.setdefault(attempt.key, []).append(attempt)
        return by_key

    def add(self, attempts: list[Attempt]) -> None:
        """Write attempts down, durably."""
        torn = self.path.exists() and self.path.read_bytes()[-1:] not in (b"\n", b"")
        with open(self.path, "ab") as file:
            file.write(b"\n" if torn else b"")
            file.write(b"".join(json.dumps(asdict(a)).encode() + b"\n" for a in attempts))
            file.flush()
            os.fsync(file.fileno())
