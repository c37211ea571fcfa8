"""Arguments and options that several commands take, so that they read the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[Path, typer.Argument(help="A campaign file.", metavar="FILE")]
Folder = Annotated[Path, typer.Argument(help="Folder of a campaign.", metavar="FOLDER")]
Json = Annotated[bool, typer.Option("--json", help="For scripts.")]
ResultsAsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON; progress stays on standard error.")]
Account = Annotated[str | None, typer.Option("--account", help="Project to be billed.")]
Hours = Annotated[float, typer.Option("--hours", help="Time limit of the driver's job; it hands over to the next one.", min=0.02)]
