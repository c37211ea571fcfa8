"""How commands show a campaign: a table with a row for each trial, and a line for the whole."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from coppice.orchestrator.cli.output import fitting_table
from coppice.orchestrator.operations.overview import TrialStanding
from coppice.orchestrator.operations.status import TrialStatus
from coppice.orchestrator.report.numbers import DASH, metric_value, plural, short, whole

COUNTED = (
    "finished", "running", "starting", "queued", "held", "suspended",
    "between jobs", "waiting", "interrupted", "stopped", "failed",
)  # fmt: skip
"""States in the order in which they are counted up."""


def status_table(statuses: Sequence[TrialStatus], metric: str) -> Table:
    """A row for each trial; the reasons only where there are any."""
    heads = ["trial", "state", "epoch", metric, "best so far", "parameters", "FLOPs", "last event", "reason"]
    rows = [_cells(s, metric) for s in statuses]
    if not any(s.reason for s in statuses):
        heads, rows = heads[:-1], [r[:-1] for r in rows]
    numbers, optional = ("epoch", metric, "best so far", "parameters", "FLOPs"), ("FLOPs", "last event", "best so far")
    return fitting_table(heads, rows, numbers, optional)


def jobs_table(standings: Sequence[TrialStanding], metric: str) -> Table:
    """A row for each trial of a campaign whose trials have jobs; why they wait is not in it."""
    gpus = any(s.usage is not None and s.usage.gpu_hours for s in standings)
    hours = "GPU-h" if gpus else "core-h"
    heads = ["trial", "state", "epoch", metric, "best so far", "parameters", "FLOPs", "job", "node", hours]
    rows = []
    for s in standings:
        cells = _cells(s.trial, metric)[:7]
        used = None if s.usage is None else s.usage.gpu_hours if gpus else s.usage.core_hours
        rows.append([*cells, s.jobs.job if s.jobs else "", s.jobs.nodes if s.jobs else "", hours_text(used)])
    if not any(s.jobs for s in standings):  # in a pool jobs bring nodes, not trials
        heads, rows = [*heads[:7], hours], [[*row[:7], row[9]] for row in rows]
    numbers = ("epoch", metric, "best so far", "parameters", "FLOPs", hours)
    return fitting_table(heads, rows, numbers, optional=("FLOPs", "best so far", "parameters"))


def hours_text(value: float | None) -> str:
    """Hours; short ones with as many digits as it takes not to read 0."""
    if value is None:
        return DASH
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.01 else f"{value:.3f}"


def grouped(pairs: Sequence[tuple[str, str]], most: int = 6) -> list[str]:
    """`t0001, t0002 and 3 more: why`, one line for each reason, of (name, why) where there is a reason."""
    names: dict[str, list[str]] = {}
    for name, why in pairs:
        if why:
            names.setdefault(why, []).append(name)
    lines = []
    for why, same in names.items():
        more = f" and {len(same) - most} more" if len(same) > most else ""
        lines.append(f"{', '.join(same[:most])}{more}: {why}")
    return lines


def _cells(status: TrialStatus, metric: str) -> list[str]:
    name = f"{status.id} ({status.label})" if status.label and status.label != status.id else status.id
    progress = f"{status.epoch}/{status.epochs}" if status.epochs else str(status.epoch)
    values = [metric_value(metric, status.metrics.get(metric)), metric_value(metric, status.best)]
    sizes = [whole(status.parameters), short(status.flops)]
    return [name, status.state, progress, *values, *sizes, status.last_event, status.reason]


def status_json(status: TrialStatus) -> dict[str, Any]:
    """A trial's status as JSON holds it."""
    sizes = {"parameters": status.parameters, "flops": status.flops, "compute": status.compute}
    return {**vars(status), **sizes}


def counts(statuses: Sequence[TrialStatus]) -> str:
    """How many trials are in which state: `12 trials: 9 finished, 2 running, 1 failed`."""
    by_state = Counter(s.state for s in statuses)
    order = [*COUNTED, *sorted(set(by_state) - set(COUNTED))]
    parts = ", ".join(f"{by_state[state]} {state}" for state in order if by_state[state])
    return f"{plural(len(statuses), 'trial')}: {parts or 'none has started'}"


def leader(statuses: Sequence[TrialStatus], metric: str, mode: str) -> str:
    """The trial of the search that is best as it is now, finished ones first, in words; empty where none has a value."""
    scored = [s for s in statuses if s.label is None and s.state != "failed" and s.best is not None]
    scored = [s for s in scored if s.state == "finished"] or scored
    if not scored:
        return ""
    sign = -1 if mode == "max" else 1
    best = min(scored, key=lambda s: (sign * s.metrics.get(metric, -sign * math.inf), s.parameters or 0.0, s.id))
    return f"best {best.id}: {metric} {metric_value(metric, best.metrics.get(metric))}, {whole(best.parameters)} parameters"


def summary(statuses: Sequence[TrialStatus], metric: str, mode: str) -> str:
    """The campaign in a line: how many trials are in which state, and which is best."""
    return "; ".join(part for part in (counts(statuses), leader(statuses, metric, mode)) if part)
