"""`coppice logs`: what happened in one trial, and what its jobs printed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from coppice.orchestrator.cli.options import Folder
from coppice.orchestrator.cli.output import print_json_text, write
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.operations.job_logs import Piece, TrialLog
from coppice.orchestrator.report.numbers import metric_value, short, whole

POLL_S = 0.5


def logs(
    folder: Folder,
    trial: Annotated[str, typer.Argument(help="Name of a trial, as `coppice status` shows it.", metavar="TRIAL")],
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on, from job to job, until the trial ends or Ctrl-C.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The events as they are, one JSON object a line.")] = False,
) -> None:
    """Show the events of one trial and what its jobs printed, oldest first, each job under a heading."""
    campaign = CampaignFolder(folder)
    known = [t.name for t in campaign.trials()]
    if trial not in known:
        shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "") if known else "none"
        raise ValueError(f"TRIAL must be a trial in {folder}, but got {trial!r}; there are: {shown}.")
    log = TrialLog(campaign, trial)
    try:
        _show(log.new(), as_json)
        while follow and not log.ended:
            time.sleep(POLL_S)
            _show(log.new(), as_json)
    except KeyboardInterrupt:
        return


def _show(pieces: Iterable[Piece], as_json: bool) -> None:
    for piece in pieces:
        if not as_json:
            write(_line(piece))
        elif piece.kind == "event":
            print_json_text(json.dumps(piece.content))


def _line(piece: Piece) -> str:
    if piece.kind == "event":
        return describe(piece.content)
    if piece.kind == "output":
        return f"    {piece.content}"
    attempt = piece.content
    handed_in = time.strftime("%d %b, %H:%M:%S", time.localtime(attempt.time))
    return f"== job {attempt.job}, handed in {handed_in} (attempt {attempt.number})"


def describe(event: Mapping[str, Any]) -> str:
    """One event as a line for people."""
    clock = time.strftime("%H:%M:%S", time.localtime(event["time"])) if "time" in event else "        "
    writer = _WORDS.get(str(event.get("type")), _other)
    return f"{clock}  epoch {int(event.get('epoch', 0)):>3}  {writer(event)}"


def _metrics(event: Mapping[str, Any]) -> str:
    names = [n for n in event if n.startswith(("train_", "val_", "test_"))]
    values = [f"{n} {metric_value(n, event[n])}" for n in names]
    return "  ".join([*values, f"{whole(event.get('parameters'))} parameters", f"{short(event.get('flops'))} FLOPs"])


def _structural(event: Mapping[str, Any]) -> str:
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
