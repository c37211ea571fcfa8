"""`coppice top`: what a campaign costs, and how much of that was useful."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coppice.orchestrator.cli.output import console, fitting_table, print_json, show
from coppice.orchestrator.cli.status import Folder

if TYPE_CHECKING:
    from coppice.orchestrator.operations.usage import CampaignUsage, Usage

HEADS = ("trial", "state", "runs", "waited", "ran", "useful", "lost", "s/epoch", "core-h", "GPU-h", "CPU used", "GPU used")
MOST_NODES = 10
"""Nodes of a pool are shown one by one up to so many."""
OPTIONAL = ("state", "runs", "waited", "s/epoch")


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(top)


def top(
    folder: Folder,
    *,
    most: Annotated[
        int, typer.Option("--most", help="Show so many trials, the most expensive ones first; 0 for all.", min=0)
    ] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Show what a campaign costs: hours as the site bills them, time in the queue, time lost, time per epoch, utilisation.

    `useful` is the part of the cores' time that went into epochs that count; `lost` is the time of jobs that ended without one.
    The driver's own job (two cores) is left aside.
    """
    from coppice.orchestrator.folder.layout import CampaignFolder
    from coppice.orchestrator.folder.lock import load_spec
    from coppice.orchestrator.operations.usage import usage_of
    from coppice.slurm.client import Client

    campaign = CampaignFolder(folder.absolute())
    spec = load_spec(campaign)
    found = usage_of(campaign, spec, Client(timeout_s=20.0))
    if as_json:
        content = {"folder": folder, "notes": list(found.notes), "total": _record(total("total", found.trials, found.billed))}
        print_json({**content, "trials": [_record(u) for u in found.trials], "others": [_record(u) for u in found.others]})
        return
    _show(found, most)


def _record(usage: Usage) -> dict[str, Any]:
    derived = {"ran_s": usage.ran_s, "epoch_s": usage.epoch_s, "useful_share": usage.useful_share, "runs": len(usage.runs)}
    return {**vars(usage), **derived, "jobs": list(dict.fromkeys(r.job for r in usage.runs if r.job))}


def total(name: str, trials: Sequence[Usage], billed: Sequence[Usage]) -> Usage:
    """All of them as one. Hours are those of what is billed: a pool's trials run inside of its nodes."""
    from coppice.orchestrator.operations.usage import Usage

    runs = tuple(r for u in billed for r in u.runs)
    states = {u.state for u in trials}
    return Usage(
        name, states.pop() if len(states) == 1 else "", runs, sum(u.core_hours for u in billed), sum(u.gpu_hours for u in billed),
        sum(u.waited_s for u in billed), sum(u.useful_s for u in trials), sum(u.lost_s for u in trials),
        sum(u.epochs for u in trials), _mean(billed, "cpu_share"), _mean(billed, "gpu_share"),
        sum(u.useful_core_s for u in trials),
    )  # fmt: skip


def _mean(held: Sequence[Usage], name: str) -> float | None:
    """Weighted by how long they ran."""
    known = [u for u in held if getattr(u, name) is not None and u.ran_s]
    return sum(getattr(u, name) * u.ran_s for u in known) / sum(u.ran_s for u in known) if known else None


def _show(found: CampaignUsage, most: int) -> None:
    order = sorted(found.trials, key=lambda u: (-u.gpu_hours, -u.core_hours, u.name))
    shown = order[:most] if most else order
    rest = order[len(shown) :]
    lines = [_cells(u) for u in shown]
    lines += [_cells(total(f"{len(rest)} more", rest, rest))] if rest else []
    lines += [_cells(u) for u in found.others[-MOST_NODES:]]
    earlier = found.others[:-MOST_NODES]
    lines += [_cells(total(f"{len(earlier)} earlier nodes", earlier, earlier))] if earlier else []
    lines.append(_cells(total("total", found.trials, found.billed)))
    absent = {
        "GPU-h": not any(u.gpu_hours for u in found.billed),
        "CPU used": all(u.cpu_share is None for u in found.billed),
        "GPU used": all(u.gpu_share is None for u in found.billed),
        "waited": not any(u.waited_s for u in found.billed),
    }
    kept = [i for i, head in enumerate(HEADS) if not absent.get(head)]
    heads = [HEADS[i] for i in kept]
    numbers = [h for h in heads if h not in ("trial", "state")]
    show(fitting_table(heads, [[row[i] for i in kept] for row in lines], numbers, OPTIONAL))
    for note in (*_unmeasured(found), *found.notes):
        console().print(note, markup=False, soft_wrap=True)


def _unmeasured(found: CampaignUsage) -> list[str]:
    notes = []
    if found.billed and all(u.cpu_share is None for u in found.billed):
        notes.append("How busy the processors were is not available: Slurm does not measure it here, or no job has ended.")
    if any(u.gpu_hours for u in found.billed) and all(u.gpu_share is None for u in found.billed):
        notes.append("How busy the GPUs were is not available: this Slurm does not account for it (gres/gpuutil).")
    return notes


def _cells(usage: Usage) -> list[str]:
    from coppice.orchestrator.cli.tables import hours_text
    from coppice.orchestrator.report.numbers import DASH, duration

    def percent(value: float | None) -> str:
        return DASH if value is None else f"{100 * value:.0f} %"

    each = DASH if usage.epoch_s is None else f"{usage.epoch_s:.3g}"
    waited, ran, lost = (duration(s) if s else DASH for s in (usage.waited_s, usage.ran_s, usage.lost_s))
    times = [waited, ran, percent(usage.useful_share), lost, each]
    hours = [hours_text(usage.core_hours), hours_text(usage.gpu_hours), percent(usage.cpu_share), percent(usage.gpu_share)]
    return [usage.name, usage.state, str(len(usage.runs)), *times, *hours]
