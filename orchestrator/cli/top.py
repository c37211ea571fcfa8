"""`coppice top`: what a campaign costs, and how much of that was useful."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from coppice.orchestrator.cli.options import Folder, Json
from coppice.orchestrator.cli.output import fitting_table, print_json, show, write
from coppice.orchestrator.cli.tables import hours_text
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.lock import load_spec
from coppice.orchestrator.operations.usage import CampaignUsage, Usage, usage_of
from coppice.orchestrator.report.numbers import DASH, duration
from coppice.slurm.client import Client

HEADS = ("trial", "state", "runs", "waited", "ran", "useful", "lost", "s/epoch", "core-h", "GPU-h", "CPU used", "GPU used")
MOST_NODES = 10
"""Nodes of a pool are shown one by one up to so many."""
OPTIONAL = ("state", "runs", "waited", "s/epoch")


def top(
    folder: Folder,
    *,
    most: Annotated[
        int, typer.Option("--most", help="Show so many trials, the most expensive ones first; 0 for all.", min=0)
    ] = 20,
    as_json: Json = False,
) -> None:
    """Show what a campaign costs: hours as the site bills them, time in the queue, time lost, time per epoch, utilisation.

    `useful` is the part of the cores' time that went into epochs that count; `lost` is the time of jobs that ended without one.
    The driver's own job (two cores) is left aside.
    """
    campaign = CampaignFolder(folder.absolute())
    spec = load_spec(campaign)
    usage = usage_of(campaign, spec, Client(timeout_s=20.0))
    if as_json:
        content = {"folder": folder, "notes": list(usage.notes), "total": _record(total("total", usage.trials, usage.billed))}
        print_json({**content, "trials": [_record(u) for u in usage.trials], "others": [_record(u) for u in usage.others]})
        return
    _show(usage, most)


def _record(usage: Usage) -> dict[str, Any]:
    derived = {"ran_s": usage.ran_s, "epoch_s": usage.epoch_s, "useful_share": usage.useful_share, "runs": len(usage.runs)}
    return {**vars(usage), **derived, "jobs": list(dict.fromkeys(r.job for r in usage.runs if r.job))}


def total(name: str, trials: Sequence[Usage], billed: Sequence[Usage]) -> Usage:
    """Several usages as one. Hours are those of what is billed: a pool's trials run inside of its nodes."""
    runs = tuple(r for u in billed for r in u.runs)
    states = {u.state for u in trials}
    return Usage(
        name, states.pop() if len(states) == 1 else "", runs, sum(u.core_hours for u in billed), sum(u.gpu_hours for u in billed),
        sum(u.waited_s for u in billed), sum(u.useful_s for u in trials), sum(u.lost_s for u in trials),
        sum(u.epochs for u in trials), _mean(billed, "cpu_share"), _mean(billed, "gpu_share"),
        sum(u.useful_core_s for u in trials),
    )  # fmt: skip


def _mean(usages: Sequence[Usage], name: str) -> float | None:
    """Of a share, weighted by how long the jobs ran; None where nothing was measured."""
    known = [u for u in usages if getattr(u, name) is not None and u.ran_s]
    return sum(getattr(u, name) * u.ran_s for u in known) / sum(u.ran_s for u in known) if known else None


def _show(usage: CampaignUsage, most: int) -> None:
    absent = {
        "GPU-h": not any(u.gpu_hours for u in usage.billed),
        "CPU used": all(u.cpu_share is None for u in usage.billed),
        "GPU used": all(u.gpu_share is None for u in usage.billed),
        "waited": not any(u.waited_s for u in usage.billed),
    }
    columns = [i for i, head in enumerate(HEADS) if not absent.get(head)]
    heads = [HEADS[i] for i in columns]
    numbers = [h for h in heads if h not in ("trial", "state")]
    rows = [[row[i] for i in columns] for row in map(_cells, _rows(usage, most))]
    show(fitting_table(heads, rows, numbers, OPTIONAL))
    for note in (*_unmeasured(usage), *usage.notes):
        write(note)


def _rows(usage: CampaignUsage, most: int) -> list[Usage]:
    """The most expensive trials, the newest nodes of a pool, in one row each what is left of both, and the total."""
    by_cost = sorted(usage.trials, key=lambda u: (-u.gpu_hours, -u.core_hours, u.name))
    shown = by_cost[:most] if most else by_cost
    rest = by_cost[len(shown) :]
    earlier = usage.others[:-MOST_NODES]
    return [
        *shown,
        *([total(f"{len(rest)} more", rest, rest)] if rest else []),
        *usage.others[-MOST_NODES:],
        *([total(f"{len(earlier)} earlier nodes", earlier, earlier)] if earlier else []),
        total("total", usage.trials, usage.billed),
    ]


def _unmeasured(usage: CampaignUsage) -> list[str]:
    notes = []
    if usage.billed and all(u.cpu_share is None for u in usage.billed):
        notes.append("How busy the processors were is not available: Slurm does not measure it here, or no job has ended.")
    if any(u.gpu_hours for u in usage.billed) and all(u.gpu_share is None for u in usage.billed):
        notes.append("How busy the GPUs were is not available: this Slurm does not account for it (gres/gpuutil).")
    return notes


def _percent(share: float | None) -> str:
    return DASH if share is None else f"{100 * share:.0f} %"


def _cells(usage: Usage) -> list[str]:
    each = DASH if usage.epoch_s is None else f"{usage.epoch_s:.3g}"
    waited, ran, lost = (duration(s) if s else DASH for s in (usage.waited_s, usage.ran_s, usage.lost_s))
    times = [waited, ran, _percent(usage.useful_share), lost, each]
    hours = [hours_text(usage.core_hours), hours_text(usage.gpu_hours), _percent(usage.cpu_share), _percent(usage.gpu_share)]
    return [usage.name, usage.state, str(len(usage.runs)), *times, *hours]
