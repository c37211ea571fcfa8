"""`coppice resume`: goes on with a campaign after any interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coppice.orchestrator.cli.options import ResultsAsJson
from coppice.orchestrator.cli.run import run_and_show
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.lock import load_spec
from coppice.orchestrator.planning.load import check_campaign, load_campaign


def resume(
    campaign: Annotated[Path, typer.Argument(help="Folder of a campaign, or its campaign file.", metavar="FOLDER|FILE")],
    *,
    as_json: ResultsAsJson = False,
) -> None:
    """Go on with a campaign after any interruption; what is finished stays as it is. Exit codes as for `run`."""
    if campaign.is_dir():
        here = campaign.resolve()
        spec = load_spec(CampaignFolder(here)).model_copy(update={"name": here.name, "root": here.parent})
        check_campaign(spec, begun=True)
    else:
        spec = load_campaign(campaign, begun=True)
    raise typer.Exit(run_and_show(spec, resume=True, as_json=as_json))
