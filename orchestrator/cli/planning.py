"""`coppice plan`: checks a campaign file, shows what would run and what it would cost, starts nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[Path, typer.Argument(help="A campaign file.", metavar="FILE")]


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(plan)


def plan(file: File) -> None:
    """Check a campaign file, show sampled trials and what they cost; start nothing."""
    from orchestrator.load import load_campaign

    load_campaign(file)
