"""Reads the folder of a campaign into `ReportData`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coppice.orchestrator.folder.files import read_json as read_whole
from coppice.orchestrator.folder.history import read_history
from coppice.orchestrator.folder.layout import CampaignFolder, TrialFolder
from coppice.orchestrator.folder.trials import TrialRecords, compared_with
from coppice.orchestrator.operations.status import TrialStatus, status
from coppice.orchestrator.report.data import Change, ReportData, TrialData
from coppice.scheduler.metrics import mode_of


def gather(folder: Path) -> ReportData:
    """Everything that the report shows of the campaign in `folder`, as far as it has come.

    Raises:
        FileNotFoundError: there is no campaign in the folder.
        ValueError: a file is damaged; the message names it.
    """
    campaign = CampaignFolder(folder)
    if not campaign.lock.exists():
        raise FileNotFoundError(f"{folder} must be the folder of a campaign (with {campaign.lock.name} in it), but is not.")
    lock = read_json(campaign.lock)
    spec = lock.get("campaign", {})
    search = spec.get("search", {})
    params = {t.name: read_json(t.params) for t in campaign.trials()}
    trials = tuple(read_trial(campaign.trial(s.id), params[s.id], s) for s in status(folder))
    metric = search.get("metric", "val_accuracy")
    mode = mode_of(metric, search.get("mode"))
    began = [t.began for t in trials if t.began]
    created = time.strftime("%d %B %Y, %H:%M", time.localtime(min(began))) if began else ""
    facts, remarks = _facts(spec, lock, trials), tuple(TrialRecords(campaign).remarks())
    return ReportData(spec.get("name", folder.name), str(folder), metric, mode, created, facts, trials, remarks)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is no such file.

    Raises:
        ValueError: it is not a JSON object; the message names the file.
    """
    if not path.exists():
        return {}
    content = read_whole(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, but holds {type(content).__name__}.")
    return content


def _facts(spec: Mapping[str, Any], lock: Mapping[str, Any], trials: Sequence[TrialData]) -> tuple[tuple[str, str], ...]:
    task, search = spec.get("task", {}), spec.get("search", {})
    versions = lock.get("versions", {})
    facts = [
        ("Data set", _plain(task.get("dataset"))),
        ("Network", _plain(task.get("network"))),
        ("Sampler", _plain(search.get("sampler"))),
        ("Trial scheduler", _plain(search.get("scheduler", search.get("trial_scheduler")))),
        ("Trials", str(len(trials))),
        ("Seed", _plain(spec.get("seed"))),
        ("Versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("Commit", str(lock.get("commit") or "")[:12]),
    ]
    return tuple((name, value) for name, value in facts if value)


def _plain(value: Any) -> str:
    """A value of the campaign file in a few words."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{k} ({_plain(v)})" if v not in ({}, None) else str(k) for k, v in value.items())
    return ", ".join(_plain(v) for v in value) if isinstance(value, list) else str(value)


def read_trial(folder: TrialFolder, params: Mapping[str, Any], known: TrialStatus) -> TrialData:
    """One trial from its `params.json` (content given), its `events.jsonl` and what is known of its state."""
    events = read_history(folder.path).events
    metrics = [e for e in events if e["type"] == "metrics"]
    return TrialData(
        id=folder.name,
        label=known.label,
        state=known.state,
        reason=known.traceback or known.reason,
        parameters_of=params.get("params", {}),
        epochs=tuple(_numbers(e) for e in metrics),
        widths=tuple(e.get("widths", {}) for e in metrics),
        changes=tuple(_change(e) for e in events if e["type"] == "structural"),
        skipped=tuple((int(e.get("epoch", 0)), str(e.get("reason", ""))) for e in events if e["type"] == "skipped"),
        planned_epochs=known.epochs,
        began=next((float(e["time"]) for e in events if "time" in e), 0.0),
        damage=known.damage,
        compared_with=known.compared_with,
        compared_epoch=compared_with(params.get("spec", {}))[1],
    )


def _numbers(event: Mapping[str, Any]) -> dict[str, float]:
    return {k: float(v) for k, v in event.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}


def _change(event: Mapping[str, Any]) -> Change:
    return Change(
        epoch=int(event["epoch"]),
        kind=str(event.get("kind", "")),
        element=str(event.get("element", "")),
        size_before=event.get("size_before"),
        size_after=event.get("size_after"),
        parameters_before=event.get("parameters_before"),
        parameters_after=event.get("parameters_after"),
        function_change=event.get("function_change"),
        accepted=bool(event.get("accepted", True)),
        reason=str(event.get("reason") or ""),
    )
