"""`coppice report`: writes the page of a campaign."""

from __future__ import annotations

import webbrowser
from typing import Annotated

import typer

from coppice.orchestrator.cli.options import Folder
from coppice.orchestrator.cli.output import say, write
from coppice.orchestrator.report import write_report


def report(
    folder: Folder, open_page: Annotated[bool, typer.Option("--open", help="Show it in the web browser.")] = False
) -> None:
    """Write report.html, one page that needs no network, and print its path."""
    path = write_report(folder).resolve()
    write(str(path))
    if open_page and not webbrowser.open(path.as_uri()):
        say("There is no web browser to show it in.")
