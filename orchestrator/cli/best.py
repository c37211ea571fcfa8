"""`coppice best`: copies the best network of a campaign out of its folder."""

from __future__ import annotations

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
from coppice.orchestrator.trial.building import build_task


def best(
    folder: Folder,
    out: Annotated[Path | None, typer.Option(help="Folder to write into.  [default: FOLDER/best]", show_default=False)] = None,
    trial: Annotated[str | None, typer.Option(help="Another trial than the best.", metavar="NAME")] = None,
    torch_export: Annotated[bool, typer.Option("--torch-export", help="Also save a torch.export program (model.pt2).")] = False,
    as_json: Json = False,
) -> None:
    """Copy the best network out: architecture.json, model.safetensors and a README with the lines that load it."""
    exported = export_best(folder, out, trial, torch_export)
    if as_json:
        print_json({**vars(exported), "folder": exported.folder.resolve()})
    else:
        typer.echo(f"{exported.trial}: {exported.summary}")
        typer.echo(f"{exported.folder}: {', '.join(exported.files)}")


def export_best(folder: Path, out: Path | None = None, trial: str | None = None, torch_export: bool = False) -> Exported:
    """Copy a network out of the campaign in `folder`: the best one, or that of `trial`.

    Raises:
        ValueError: there is no such trial, or it has no network yet.
    """
    data = gather(folder)
    chosen = data.best if trial is None else next((t for t in data.trials if t.id == trial), None)
    if chosen is None:
        wanted = f"a trial that has reported {data.metric}" if trial is None else f"the trial {trial!r}"
        raise ValueError(f"{folder} must have {wanted}, but has not; see `{command('status', folder)}`.")
    value = metric_value(data.metric, chosen.last(data.metric))
    summary = f"{value} {metric_name(data.metric)}, {whole(chosen.last('parameters'))} parameters."
    shape = _input_shape(folder, chosen.id) if torch_export else None
    return export(CampaignFolder(folder).trials_path / chosen.id, out or CampaignFolder(folder).best, summary, input_shape=shape)


def _input_shape(folder: Path, trial: str) -> tuple[int, ...]:
    """Shape of one sample of the trial's data."""
    content = read_json(CampaignFolder(folder).trial(trial).params)
    dataset, _ = build_task(TrialSpec.model_validate(content["spec"]))
    return tuple(dataset.input_shape)
