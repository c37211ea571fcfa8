"""What the best network of a campaign is compared with, as the campaign file's `compare` asks for: which trials are missing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from coppice.orchestrator.config.models import Campaign, TrialSpec
from coppice.orchestrator.folder.checkpoint import CheckpointError, available, latest
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.trials import TrialRecord, TrialRecords, compared_with
from coppice.orchestrator.report.results import best_trial
from coppice.orchestrator.trial.baselines import big, static


def missing_comparisons(spec: Campaign, folder: CampaignFolder) -> list[tuple[str, TrialSpec]]:
    """The trials, by a new id, that the best one of now is yet to be compared with.

    Those of an earlier best trial stay as they are and do not count: `static`, then `static-2`.
    """
    if not spec.compare.static and spec.compare.big is None:
        return []
    best = best_trial(folder.path, spec.search.metric, spec.search.mode)
    if best is None:
        return []
    entries = TrialRecords(folder).entries()
    trial = TrialSpec.model_validate(next(e.spec for e in entries if e.id == best.id))
    wanted = []
    checkpoint = _newest_checkpoint(folder.trial(best.id).checkpoints)
    if spec.compare.static and checkpoint is not None:
        here = Path("..", best.id, checkpoint.parent.name, checkpoint.name)  # the folder may be moved before the trial runs
        wanted.append(static(trial, here, best.id))
    if spec.compare.big is not None:
        wanted.append(big(trial, spec.compare.big, best.id))
    return [(_new_id(str(w.label), entries), w) for w in wanted if not any(_same(w, e) for e in entries)]


def _same(wanted: TrialSpec, entry: TrialRecord) -> bool:
    """Whether a trial of the folder is the one that is wanted."""
    if entry.spec.get("label") != wanted.label:
        return False
    if wanted.label == "static":
        return compared_with(entry.spec)[0] == wanted.compared_with
    known = TrialSpec.model_validate(entry.spec)  # those of earlier versions do not say what they belong to
    return known == wanted.model_copy(update={"compared_with": known.compared_with})


def _newest_checkpoint(folder: Path) -> Path | None:
    """The newest valid checkpoint; where none is valid the newest: its trial will say what is wrong with it."""
    try:
        newest = latest(folder)
        return newest[0] if newest else None
    except CheckpointError:
        return available(folder)[-1]


def _new_id(label: str, entries: Sequence[TrialRecord]) -> str:
    taken = {e.id for e in entries}
    return next(name for n in itertools.count(1) if (name := label if n == 1 else f"{label}-{n}") not in taken)
