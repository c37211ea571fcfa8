"""The command `coppice`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from coppice.orchestrator.cli import (
    best as collecting,
)  # fmt: skip
from coppice.orchestrator.cli import (
    dashboard as dashboards,
)
from coppice.orchestrator.cli import (
    doctor as doctoring,
)
from coppice.orchestrator.cli import (
    elements as describing,
)
from coppice.orchestrator.cli import (
    logs,
)
from coppice.orchestrator.cli import (
    plan as planning,
)
from coppice.orchestrator.cli import (
    queue as queueing,
)
from coppice.orchestrator.cli import (
    run as running,
)
from coppice.orchestrator.cli import (
    status as watching,
)
from coppice.orchestrator.cli import (
    submit as submitting,
)
from coppice.orchestrator.cli import (
    top as efficiency,
)
from coppice.orchestrator.cli.output import BAD_INPUT, EXPECTED, is_ours, message_of, say

HELP = """Trains networks that grow and prune themselves, and searches over when, where and how.

Exit codes: 0 all is well; 1 some trials failed, or nothing finished; 2 bad input (nothing was started);
3 interrupted, and `coppice resume` goes on.
"""
TRACEBACK = "COPPICE_TRACEBACK"

app = typer.Typer(help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
COMMANDS = (
    running, submitting, watching, logs, efficiency, dashboards, doctoring, queueing, collecting, describing, planning,
)  # fmt: skip
for module in COMMANDS:
    module.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"coppice {version('coppice-nn')}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")]


@app.callback()
def _options(version: Version = False) -> None:
    """Options before the command."""


def main() -> None:
    """Entry point: our own errors become one message and exit code 2; any other keeps its traceback."""
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        app(prog_name="coppice")
    except EXPECTED as error:
        if not is_ours(error) or os.environ.get(TRACEBACK):
            raise
        say(f"coppice: {message_of(error)}")
        sys.exit(BAD_INPUT)
