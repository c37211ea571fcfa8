"""`coppice submit` and `coppice drive`: a campaign as a Slurm job of its own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coppice.orchestrator.cli.output import command, say

if TYPE_CHECKING:
    from coppice.orchestrator.config.models import CampaignSpec
    from coppice.orchestrator.planning.load import At
    from coppice.slurm.request import Request

SiteOption = Annotated[str, typer.Option("--site", help="Name of a site, or a site file of your own.")]
AccountOption = Annotated[str | None, typer.Option("--account", help="Project to be billed.")]
Hours = Annotated[float, typer.Option("--hours", help="Time limit of the driver's job; it hands over to the next one.", min=0.02)]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(submit)
    app.command(hidden=True)(drive)


def submit(
    file: Annotated[Path, typer.Argument(help="A campaign file.", metavar="FILE")],
    *,
    site: SiteOption,
    account: AccountOption = None,
    hours: Hours = 24.0,
) -> None:
    """Hand in the campaign: a small job drives it, and each trial is a job of its own (placement: job)."""
    from coppice.orchestrator.campaign.driver import submit as hand_in
    from coppice.orchestrator.planning.load import load_campaign
    from coppice.slurm.client import Client
    from coppice.slurm.site import load_site

    spec = load_campaign(file, at_site(site, account))
    folder, job = hand_in(spec, load_site(site), driver_request(account, hours), Client())
    say(f"The driver of {spec.name} is job {job}; its log: {folder.jobs / 'driver.log'}")
    say(f"Watch it: {command('status', folder.path)}; once it runs, in a browser: {command('dashboard', folder.path)}")


def at_site(site: str, account: str | None) -> At:
    """Places a campaign's trials as jobs at a site, unless its file places them already; what it leaves out is filled in."""
    from coppice.orchestrator.config.models import Named

    def at(spec: CampaignSpec) -> CampaignSpec:
        name = "job" if spec.placement.name == "local" else spec.placement.name
        given = {} if spec.placement.name == "local" else spec.placement.arguments
        watched = {"dashboard": True} if name == "job" else {}  # a pool's nodes would answer whoever asks for metrics
        arguments = {"site": site, **watched, **({"account": account} if account else {}), **given}
        return spec.model_copy(update={"placement": Named(name=name, arguments=arguments), "root": spec.root.absolute()})

    return at


def driver_request(account: str | None, hours: float) -> Request:
    """What the driver's job asks for: it only waits and decides."""
    from coppice.slurm.request import Request

    return Request(math.ceil(60 * hours), cpus=2, memory_gb=4.0, account=account)


def drive(
    folder: Annotated[Path, typer.Argument(help="Folder of a campaign.", metavar="FOLDER")],
) -> None:
    """Drive a campaign from within a job; `coppice submit` writes the script that does this."""
    from coppice.orchestrator.campaign.driver import drive as run
    from coppice.slurm.client import Client

    raise typer.Exit(run(folder, Client()))
