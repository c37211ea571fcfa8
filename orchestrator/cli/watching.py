"""`coppice status` and `coppice logs`: what a campaign is doing, or has done."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.output import console, print_json, show

Folder = Annotated[Path, typer.Argument(help="Folder of a campaign.", metavar="FOLDER")]
POLL_S = 0.5


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(status)
    app.command()(logs)


def status(folder: Folder, as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """Show a table of the trials: state, progress, metric, size, last event, reason of failure."""
    from orchestrator.cli.statuses import counts, leader, status_json, status_table
    from orchestrator.report.gather import read_json
    from orchestrator.status import status as read_status
    from orchestrator.store import CampaignFolder

    statuses = sorted(read_status(folder), key=lambda s: (s.label is not None, s.id))
    search = read_json(CampaignFolder(folder).lock)["campaign"]["search"]
    metric, mode = str(search["metric"]), str(search["mode"])
    if as_json:
        print_json({"folder": folder, "metric": metric, "mode": mode, "trials": [status_json(s) for s in statuses]})
        return
    show(status_table(statuses, metric))
    found = leader(statuses, metric, mode)
    console().print(f"{counts(statuses)}{'; ' + found if found else ''}.", markup=False, soft_wrap=True)


def logs(
    folder: Folder,
    trial: Annotated[str, typer.Argument(help="Name of a trial, as `coppice status` shows it.", metavar="TRIAL")],
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the trial has ended or Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The events as they are, one JSON object a line.")] = False,
) -> None:
    """Show the events of one trial, oldest first."""
    from orchestrator.store import CampaignFolder

    known = [t.name for t in CampaignFolder(folder).trials()]
    if trial not in known:
        shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "") if known else "none"
        raise ValueError(f"TRIAL must be a trial in {folder}, but got {trial!r}; there are: {shown}.")
    out = console()
    try:
        for event in _events(CampaignFolder(folder).trials_path / trial / "events.jsonl", follow):
            out.print(json.dumps(event) if as_json else describe(event), markup=False, soft_wrap=True)
    except KeyboardInterrupt:
        return


def _events(path: Path, follow: bool) -> Iterator[Mapping[str, Any]]:
    """The events of a file; with `follow`, also those to come, until the trial has ended."""
    from orchestrator.store import read_events

    seen = 0
    while True:
        events = read_events(path)
        yield from events[seen:]
        seen = max(seen, len(events))
        if not follow or (events and _ended(events[-1])):
            return
        time.sleep(POLL_S)


def _ended(event: Mapping[str, Any]) -> bool:
    return event["type"] == "status" and event.get("status") in ("finished", "failed", "stopped")


def describe(event: Mapping[str, Any]) -> str:
    """One event as a line for people."""
    clock = time.strftime("%H:%M:%S", time.localtime(event["time"])) if "time" in event else "        "
    writer = _WORDS.get(str(event.get("type")), _other)
    return f"{clock}  epoch {int(event.get('epoch', 0)):>3}  {writer(event)}"


def _metrics(event: Mapping[str, Any]) -> str:
    from orchestrator.report.numbers import metric_value, short, whole

    names = [n for n in event if n.startswith(("train_", "val_", "test_"))]
    values = [f"{n} {metric_value(n, event[n])}" for n in names]
    return "  ".join([*values, f"{whole(event.get('parameters'))} parameters", f"{short(event.get('flops'))} FLOPs"])


def _structural(event: Mapping[str, Any]) -> str:
    from orchestrator.report.numbers import whole

    size = f" {event['size_before']} -> {event['size_after']}" if event.get("size_before") is not None else ""
    words = f"{event.get('kind')} {event.get('element')}{size}, {whole(event.get('parameters_after'))} parameters"
    if event.get("function_change") is not None:
        words += f", output changed by at most {event['function_change']:.1e}"
    return words if event.get("accepted", True) else f"{words}; rolled back: {event.get('reason')}"


def _status(event: Mapping[str, Any]) -> str:
    reason = event.get("traceback") or event.get("error") or event.get("reason") or ""
    checkpoint = f" from checkpoint {event['checkpoint']}" if "checkpoint" in event else ""
    return f"{event.get('status')}{checkpoint}" + (f": {reason}" if reason else "")


def _other(event: Mapping[str, Any]) -> str:
    rest = {k: v for k, v in event.items() if k not in ("type", "trial", "time", "epoch", "step")}
    return f"{event.get('type')} " + ", ".join(f"{k} {v}" for k, v in rest.items())


_WORDS = {
    "metrics": _metrics,
    "structural": _structural,
    "status": _status,
    "skipped": lambda event: f"did nothing: {event.get('reason')}",
    "checkpoint": lambda event: f"checkpoint {event.get('path')}",
}
