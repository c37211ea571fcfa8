"""`coppice best`: copies the best network of a campaign out of its folder."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer
from torch import Tensor

from coppice.orchestrator.cli.options import Folder, Json
from coppice.orchestrator.cli.output import command, print_json, say, write
from coppice.orchestrator.config.models import TrialSpec
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.report.data import ReportData, TrialData
from coppice.orchestrator.report.export import Exported, Source, export, source_of
from coppice.orchestrator.report.gather import gather, read_json
from coppice.orchestrator.report.numbers import metric_name, metric_value, whole
from coppice.orchestrator.report.trust import trusted_by_campaign_of
from coppice.orchestrator.tasks.catalog import DATASETS
from coppice.orchestrator.tasks.dataset import scales
from coppice.orchestrator.trial.building import build_dataset
from coppice.trust import require_trusted

TASKS = "coppice.orchestrator.tasks"


def best(
    folder: Folder,
    out: Annotated[Path | None, typer.Option(help="Folder to write into.  [default: FOLDER/best]", show_default=False)] = None,
    trial: Annotated[str | None, typer.Option(help="Another trial than the best.", metavar="NAME")] = None,
    torch_export: Annotated[bool, typer.Option("--torch-export", help="Also save a torch.export program (model.pt2).")] = False,
    trust: Annotated[
        list[str] | None, typer.Option(help="A package whose code may be run for --torch-export.", metavar="PACKAGE")
    ] = None,
    as_json: Json = False,
) -> None:
    """Copy the best network out: architecture.json, model.safetensors and a README with the lines that load it."""
    _require_writable(out or CampaignFolder(folder).best)
    exported = export_best(folder, out, trial, torch_export, trust or ())
    for problem in exported.damaged:
        say(f"a newer checkpoint of {exported.trial} is damaged and was not used: {problem}")
    if as_json:
        print_json({**vars(exported), "folder": exported.folder.resolve()})
    else:
        write(f"{exported.trial}: {exported.summary}")
        write(f"{exported.folder}: {', '.join(exported.files)}")


def _require_writable(target: Path) -> None:
    """Raise where one may not write into `target`, as in the campaign of a colleague."""
    above = next(p for p in (target, *target.absolute().parents) if os.path.exists(p))
    if above.is_dir() and not os.access(above, os.W_OK | os.X_OK):
        raise PermissionError(f"you may not write in {above}; choose another folder for the network: --out DIR.")


def export_best(
    folder: Path, out: Path | None = None, trial: str | None = None, torch_export: bool = False, trust: Collection[str] = ()
) -> Exported:
    """Copy a network out of the campaign in `folder`: the best one, or that of `trial`.

    Raises:
        Untrusted: `torch_export` would run code that is neither ours, nor named by a campaign of one's own, nor in `trust`.
        ValueError: there is no such trial, or it has no network yet.
    """
    data = gather(folder)
    chosen = data.best if trial is None else next((t for t in data.trials if t.id == trial), None)
    for problem in (*(t.damage for t in data.trials), *data.remarks):
        if problem:
            say(problem)
    if chosen is None:
        wanted = f"a trial that has reported {data.metric}" if trial is None else f"the trial {trial!r}"
        raise ValueError(f"{folder} must have {wanted}, but has not; see `{command('status', folder)}`.")
    path = CampaignFolder(folder).trials_path / chosen.id
    source, trust = source_of(path), [*trust, *trusted_by_campaign_of(path)]
    shape, known = _data(folder, chosen.id, trust, torch_export) if torch_export or source.scales is None else (None, None)
    target, summary = out or CampaignFolder(folder).best, _summary(data, chosen, source)
    return export(source, target, summary, input_shape=shape, scales=known, trust=trust)


def _summary(data: ReportData, trial: TrialData, source: Source) -> str:
    """How good the network is that is copied: by the figures of its own epoch, which need not be the trial's last."""
    metrics, epoch = source.metrics, int(source.path.name)
    if not metrics:
        metrics = next((dict(e) for e in trial.epochs if e.get("epoch") == epoch), {})
    last = int(trial.last("epoch") or 0)
    after = f" after epoch {epoch} of {trial.planned_epochs or last}" if epoch != last else ""
    value = metric_value(data.metric, metrics.get(data.metric))
    return f"{value} {metric_name(data.metric)}, {whole(metrics.get('parameters'))} parameters{after}."


def _data(
    folder: Path, trial: str, trust: Collection[str], needed: bool
) -> tuple[tuple[int, ...] | None, dict[str, Tensor] | None]:
    """Shape of one sample of the trial's data, where it is `needed`, and how the data is normalised.

    Raises:
        Untrusted: the data is needed, and loaded by code that is neither ours nor trusted.
        ValueError: the data is needed and cannot be loaded.
    """
    content = read_json(CampaignFolder(folder).trial(trial).params)
    try:
        spec = TrialSpec.model_validate(content["spec"])
        if spec.task.dataset not in DATASETS:
            require_trusted("dataset", spec.task.dataset, TASKS, trust)
        dataset = build_dataset(spec)
    except (OSError, ValueError, TypeError, ImportError):
        if needed:
            raise
        return None, None
    return tuple(dataset.input_shape) if needed else None, {k: v.cpu() for k, v in scales(dataset).items()}
