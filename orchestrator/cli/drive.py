"""`coppice drive`: drives a campaign from within its driver's job. Scripts call it, people do not."""

from __future__ import annotations

import typer

from coppice.orchestrator.campaign import driver
from coppice.orchestrator.cli.options import Folder
from coppice.slurm.client import Client


def drive(folder: Folder) -> None:
    """Drive a campaign from within a job; `coppice submit` writes the script that does this."""
    raise typer.Exit(driver.drive(folder, Client()))
