"""`coppice resume`: goes on with a campaign after any interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import yaml

from coppice.orchestrator.cli.options import ResultsAsJson
from coppice.orchestrator.cli.run import run_and_show
from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.lock import load_spec
from coppice.orchestrator.folder.origin import at_home
from coppice.orchestrator.planning.load import check_campaign, load_campaign
from coppice.orchestrator.planning.source import parse, read_text


def resume(
    campaign: Annotated[Path, typer.Argument(help="Folder of a campaign, or its campaign file.", metavar="FOLDER|FILE")],
    *,
    as_json: ResultsAsJson = False,
    same_code: Annotated[bool, typer.Option("--same-code", help="Refuse where code has changed since it ran last.")] = False,
) -> None:
    """Go on with a campaign after any interruption; what is finished stays as it is. Exit codes as for `run`."""
    if campaign.is_dir():
        here = campaign.resolve()
        spec = load_spec(CampaignFolder(here)).model_copy(update={"name": here.name, "root": here.parent})
        with at_home(here, CampaignFolder(here).lock):
            check_campaign(spec, begun=True)
    else:
        spec = _from_file(campaign.absolute())
    raise typer.Exit(run_and_show(spec, resume=True, as_json=as_json, same_code=same_code))


def _from_file(file: Path) -> Campaign:
    """The campaign of a file, checked in the working folder in which it was started."""
    folder = CampaignFolder(_folder_of(file))
    here = Path.cwd()
    with at_home(folder.path, folder.lock):
        spec = load_campaign(file, begun=True)
    return spec.model_copy(update={"root": here / spec.root})


def _folder_of(file: Path) -> Path:
    """Where the file's campaign would be; no campaign's folder where the file does not say."""
    try:
        tree = parse(read_text(file))
        return Path(tree.get("root", Campaign.model_fields["root"].default), tree["name"]).absolute()
    except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return file
