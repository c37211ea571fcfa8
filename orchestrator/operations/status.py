"""How the trials of a campaign stand, read from its folder only: also while another process runs it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coppice.orchestrator.folder.events import numbers, state_of
from coppice.orchestrator.folder.files import read_json
from coppice.orchestrator.folder.history import read_history
from coppice.orchestrator.folder.layout import CampaignFolder, TrialFolder
from coppice.orchestrator.folder.trials import compared_with
from coppice.scheduler.metrics import mode_of


@dataclass(frozen=True)
class TrialStatus:
    """How one trial stands.

    Attributes:
        id: name of its folder.
        label: `static` or `big` for a trial outside the search, else None.
        compared_with: the trial of the search that such a trial belongs to; None where that is not known.
        state: `waiting`, `running`, `interrupted`, `finished`, `stopped` or `failed`.
        epoch: epochs done.
        epochs: epochs planned.
        metrics: those of the last epoch.
        best: best value so far of the metric that the campaign searches by; None before the first epoch.
        num_structural: how many changes of the network were accepted.
        last_event: the newest event in a few words.
        reason: why it failed or was stopped; empty otherwise.
        traceback: of a failed trial; empty otherwise.
        seconds: time spent in its epochs.
        changes: how many changes were accepted, by kind (grow, prune, ...).
        damage: what is wrong with the file of its events, and what counts instead; empty where nothing is.
    """

    id: str
    label: str | None
    state: str
    epoch: int
    epochs: int
    metrics: Mapping[str, float]
    best: float | None
    num_structural: int
    last_event: str
    reason: str
    traceback: str
    seconds: float
    changes: Mapping[str, int] = field(default_factory=dict)
    compared_with: str | None = None
    damage: str = ""

    @property
    def parameters(self) -> float | None:
        """Parameters of the network now."""
        return self.metrics.get("parameters")

    @property
    def flops(self) -> float | None:
        """FLOPs of one forward of one sample now."""
        return self.metrics.get("flops")

    @property
    def compute(self) -> float | None:
        """Training FLOPs spent so far."""
        return self.metrics.get("compute")


class StatusBoard:
    """Reads the status of a campaign again and again; only files that changed are read again."""

    def __init__(self, folder: Path) -> None:
        self._folder = CampaignFolder(folder)
        if not self._folder.lock.exists():
            raise FileNotFoundError(f"{folder} must hold a campaign, but has no {self._folder.lock.name} in it.")
        search = read_json(self._folder.lock)["campaign"]["search"]
        self._metric = str(search["metric"])
        self._maximise = mode_of(self._metric, search.get("mode")) == "max"
        self._seen: dict[str, tuple[tuple[int, int], TrialStatus]] = {}

    def read(self, running: bool | None = None) -> list[TrialStatus]:
        """All trials, by name. `running`: whether the campaign runs, where the caller knows."""
        alive = self._folder.running() if running is None else running
        trials = [self._status(folder) for folder in self._folder.trials() if folder.params.exists()]
        return trials if alive else [_left(status) for status in trials]

    def _status(self, folder: TrialFolder) -> TrialStatus:
        stat = folder.events.stat() if folder.events.exists() else None
        key = (stat.st_size, stat.st_mtime_ns) if stat else (0, 0)
        seen = self._seen.get(folder.name)
        if seen is None or seen[0] != key:
            seen = self._seen[folder.name] = (key, self._read(folder))
        return seen[1]

    def _read(self, folder: TrialFolder) -> TrialStatus:
        params = read_json(folder.params)
        history = read_history(folder.path)
        events = history.events
        reports = [numbers(e) for e in events if e["type"] == "metrics"]
        values = [r[self._metric] for r in reports if math.isfinite(r.get(self._metric, math.nan))]
        last: Mapping[str, Any] = next((e for e in reversed(events) if e["type"] == "status"), {})
        accepted = (e for e in events if e["type"] == "structural" and e.get("accepted", True))
        changes = Counter(str(e.get("kind", "change")) for e in accepted)
        return TrialStatus(
            id=folder.name,
            label=params["spec"].get("label"),
            state=state_of(events),
            epoch=int(reports[-1]["epoch"]) if reports else 0,
            epochs=int(params["spec"].get("training", {}).get("epochs", 0)),
            metrics=reports[-1] if reports else {},
            best=(max if self._maximise else min)(values, default=None),
            num_structural=changes.total(),
            last_event=_words(events[-1]) if events else "",
            reason=str(last.get("error") or last.get("reason") or ""),
            traceback=str(last.get("traceback") or ""),
            seconds=sum(r.get("seconds", 0.0) for r in reports),
            changes=dict(changes),
            compared_with=compared_with(params["spec"])[0],
            damage=history.problem,
        )


def status(folder: Path | str) -> list[TrialStatus]:
    """How the trials of the campaign in `folder` stand.

    Raises:
        FileNotFoundError: there is no campaign in the folder.
        ValueError: a file is damaged; the message names it.
    """
    return StatusBoard(Path(folder)).read()






def _left(status: TrialStatus) -> TrialStatus:
    return TrialStatus(**{**vars(status), "state": "interrupted"}) if status.state == "running" else status


def _words(event: Mapping[str, Any]) -> str:
    kind = event["type"]
    if kind == "structural":
        sizes = f" {event['size_before']} -> {event['size_after']}" if event.get("size_after") is not None else ""
        return f"{event.get('kind', 'change')} {event.get('element', '')}{sizes}"
    if kind == "skipped":
        return f"skipped: {event.get('reason', '')}"
    return str(event["status"]) if kind == "status" else f"{kind}, epoch {int(event.get('epoch', 0))}"
