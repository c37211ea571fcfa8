"""`coppice best`: copies the best network of a campaign out of its folder."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from coppice.orchestrator.cli.options import Folder, Json
from coppice.orchestrator.cli.output import command, print_json
from coppice.orchestrator.config.models import TrialSpec
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.report.export import Exported, export
from coppice.orchestrator.report.gather import gather, read_json
from coppice.orchestrator.report.numbers import metric_name, metric_value, whole
from coppice.orchestrator.report.trust import trusted_by_campaign_of
from coppice.orchestrator.tasks.catalog import DATASETS
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
    exported = export_best(folder, out, trial, torch_export, trust or ())
    if as_json:
        print_json({**vars(exported), "folder": exported.folder.resolve()})
    else:
        typer.echo(f"{exported.trial}: {exported.summary}")
        typer.echo(f"{exported.folder}: {', '.join(exported.files)}")


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
    if chosen is None:
        wanted = f"a trial that has reported {data.metric}" if trial is None else f"the trial {trial!r}"
        raise ValueError(f"{folder} must have {wanted}, but has not; see `{command('status', folder)}`.")
    value = metric_value(data.metric, chosen.last(data.metric))
    summary = f"{value} {metric_name(data.metric)}, {whole(chosen.last('parameters'))} parameters."
    source = CampaignFolder(folder).trials_path / chosen.id
    trust = [*trust, *trusted_by_campaign_of(source)]
    shape = _input_shape(folder, chosen.id, trust) if torch_export else None
    return export(source, out or CampaignFolder(folder).best, summary, input_shape=shape, trust=trust)


def _input_shape(folder: Path, trial: str, trust: Collection[str]) -> tuple[int, ...]:
    """Shape of one sample of the trial's data."""
    content = read_json(CampaignFolder(folder).trial(trial).params)
    spec = TrialSpec.model_validate(content["spec"])
    if spec.task.dataset not in DATASETS:
        require_trusted("dataset", spec.task.dataset, TASKS, trust)
    return tuple(build_dataset(spec).input_shape)
