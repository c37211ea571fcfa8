"""What a trial's jobs have printed and what its events say, one attempt after the other, as it comes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from coppice.orchestrator.folder.events import FINAL, read_events, state_of
from coppice.orchestrator.folder.layout import EVENTS, CampaignFolder
from coppice.orchestrator.plain_text import plain
from coppice.slurm.broker.journal import Attempt, Journal


@dataclass(frozen=True)
class Piece:
    """Something to show.

    Attributes:
        kind: `attempt` (content: Attempt), `event` (content: the event) or `output` (content: a line).
    """

    kind: Literal["attempt", "event", "output"]
    content: Any


class TrialLog:
    """Reads the log of one trial again and again; `new` returns what has come since the last time."""

    def __init__(self, folder: CampaignFolder, trial: str) -> None:
        self._events_path = folder.trials_path / trial / EVENTS
        self._jobs, self._journal, self._trial = folder.jobs, folder.journal, trial
        self._read: dict[Path, int] = {}
        self._shown: set[tuple[Any, ...]] = set()
        self._headed = 0
        self.ended = False

    def new(self) -> Iterator[Piece]:
        """What is new; `ended` then tells whether the trial has ended."""
        events = read_events(self._events_path)
        self.ended = state_of(events) in FINAL
        attempts = self._attempts()
        if not attempts:
            yield from self._new_events(events, float("inf"))
        for place in range(max(0, self._headed - 1), len(attempts)):
            if place >= self._headed:
                self._headed += 1
                yield Piece("attempt", attempts[place])
            last = place + 1 == len(attempts)
            yield from self._new_events(events, float("inf") if last else attempts[place + 1].time)
            yield from self._output(attempts[place].job, whole=not last or self.ended)

    def _attempts(self) -> list[Attempt]:
        attempts = Journal(self._journal).attempts().get(self._trial, [])
        return list({a.job: a for a in reversed(attempts) if a.job}.values())[::-1]

    def _new_events(self, events: list[dict[str, Any]], before: float) -> Iterator[Piece]:
        for event in events:
            mark = _mark(event)
            if mark not in self._shown and event.get("time", 0.0) < before:
                self._shown.add(mark)
                yield Piece("event", event)

    def _output(self, job: str, whole: bool) -> Iterator[Piece]:
        """New lines of a job's tasks; a line that is being written waits, unless `whole`."""
        paths = sorted(self._jobs.glob(f"{job}_*_log.out"))
        for path in paths:
            start = self._read.get(path, 0)
            with open(path, "rb") as file:
                if file.seek(0, 2) < start:  # a requeued job begins its file anew
                    start = 0
                file.seek(start)
                content = file.read()
            end = len(content) if whole else content.rfind(b"\n") + 1
            self._read[path] = start + end
            rank = f"[{path.name.split('_')[-2]}] " if len(paths) > 1 else ""
            text = content[:end].decode(errors="replace").removesuffix("\n")
            for line in text.split("\n") if end else ():
                yield Piece("output", rank + plain(line.rstrip("\r").rpartition("\r")[2]))


def _mark(event: Mapping[str, Any]) -> tuple[Any, ...]:
    """Tells an event from others. Not its place: a trial that resumes takes back what it will do again."""
    return (event.get("time"), event["type"], event.get("epoch"), event.get("step"), event.get("element"), event.get("path"))
