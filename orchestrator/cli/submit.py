"""`coppice submit`: hands in a campaign at a Slurm site, driven by a job of its own."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from coppice.orchestrator.campaign import driver
from coppice.orchestrator.cli.options import Account, File, Hours
from coppice.orchestrator.cli.output import command, say
from coppice.orchestrator.planning.load import load_campaign
from coppice.orchestrator.planning.sites import at_site
from coppice.slurm.client import Client
from coppice.slurm.request import Request
from coppice.slurm.site import load_site

Site = Annotated[str, typer.Option("--site", help="Name of a site, or a site file of your own.")]


def submit(file: File, *, site: Site, account: Account = None, hours: Hours = 24.0) -> None:
    """Hand in the campaign: a small job drives it, and each trial is a job of its own (placement: job)."""
    spec = load_campaign(file, at_site(site, account))
    folder, job = driver.submit(spec, load_site(site), driver_request(account, hours), Client())
    say(f"The driver of {spec.name} is job {job}; its log: {folder.jobs / 'driver.log'}")
    say(f"Watch it: {command('status', folder.path)}; once it runs, in a browser: {command('dashboard', folder.path)}")


def driver_request(account: str | None, hours: float) -> Request:
    """What the driver's job asks for: it only waits and decides."""
    return Request(math.ceil(60 * hours), cpus=2, memory_gb=4.0, account=account)
