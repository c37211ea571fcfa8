"""What the trial scheduler decides is written down. On a resume it stands, and what nobody has seen is judged first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.config.space import largest
from coppice.orchestrator.folder.checkpoint import available
from coppice.orchestrator.folder.events import append_event, parsed
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.trials import TrialRecord, TrialRecords
from coppice.scheduler.trials import DecidedOnce, Decision, build_trial_scheduler, replay


def read_decisions(path: Path) -> list[Decision]:
    """The decisions in a file. A damaged line is left out: its report is judged again, in its turn."""
    lines = parsed(path.read_bytes()) if path.exists() else []
    events = [line.event for line in lines if line.event is not None and line.whole]
    return [Decision(str(e["trial"]), int(e["epoch"]), str(e["decision"])) for e in events]


def why_stopped(stop_at: Mapping[str, float], name: str, report: Mapping[str, float]) -> str:
    """Why the scheduler called `name`, which ends trials at these amounts, stopped a trial with this report."""
    return next((f"{k} >= {v:g}" for k, v in stop_at.items() if report.get(k, 0) >= v), f"stopped by {name}")


def trial_scheduler(spec: Campaign) -> DecidedOnce:
    """The trial scheduler of a campaign.

    Raises:
        ValueError: unknown name or argument, or an argument out of range.
    """
    search, epochs = spec.search, largest(spec.training, "epochs")
    named = search.trial_scheduler
    return build_trial_scheduler(
        named.name, named.arguments, search.metric, search.mode, None if epochs is None else int(epochs)
    )


def take_up(spec: Campaign, folder: CampaignFolder, scheduler: DecidedOnce) -> list[TrialRecord]:
    """Tell `scheduler` what the campaign's trials have reported, stop those that it would have stopped while nobody looked,
    and have it write down what it decides from here on; returns the trials as they are then.

    Trials are read once: jobs write meanwhile, and what they add is judged when it is handed over.
    """
    ledger = TrialRecords(folder)
    entries = ledger.entries()
    searched = {e.id: e for e in entries if e.number is not None}
    scheduler.on_decision = lambda decision: append_event(folder.decisions, asdict(decision))
    stops = replay(
        scheduler,
        {name: [{**r, "time": t} for r, t in zip(e.reports, e.times, strict=True)] for name, e in searched.items()},
        read_decisions(folder.decisions),
        finished=[name for name, e in searched.items() if e.state == "finished"],
        settled=_settled(folder, searched.values()),
    )
    folder.decisions.touch()
    due = {name: epoch for name, epoch in stops.items() if _can_stop(spec, folder, searched[name], epoch)}
    return [_stop(ledger, e, due[e.id], scheduler, spec) if e.id in due else e for e in entries]


def _settled(folder: CampaignFolder, entries: Iterable[TrialRecord]) -> list[str]:
    """Trials whose end stands. Where decisions were not written down yet, somebody saw every trial end."""
    return [e.id for e in entries if e.state == "stopped" or (e.ended and not folder.decisions.exists())]


def _can_stop(spec: Campaign, folder: CampaignFolder, entry: TrialRecord, epoch: int) -> bool:
    """Whether the trial can be stopped as it is; one of this machine whose checkpoint is older first comes back to the epoch."""
    if entry.ended or spec.placement.name != "local" or spec.body != type(spec).model_fields["body"].default:
        return True
    checkpoints = available(folder.trial(entry.id).checkpoints)
    return bool(checkpoints) and int(checkpoints[-1].name) >= epoch


def _stop(ledger: TrialRecords, entry: TrialRecord, epoch: int, scheduler: DecidedOnce, spec: Campaign) -> TrialRecord:
    kept = [n for n, report in enumerate(entry.reports) if report["epoch"] <= epoch]
    reports, times = tuple(entry.reports[n] for n in kept), tuple(entry.times[n] for n in kept)
    why = why_stopped(scheduler.stop_at, spec.search.trial_scheduler.name, reports[-1])
    ledger.mark(entry.id, "stopped", reports[-1], reason=why)
    return replace(entry, state="stopped", reports=reports, times=times)
