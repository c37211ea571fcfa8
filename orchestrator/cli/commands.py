"""The commands of `coppice` by name; the module of one is imported only when it is called."""

from __future__ import annotations

import ast
import importlib.metadata
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

HELP = """Trains networks that grow and prune themselves, and searches over when, where and how.

Exit codes: 0 all is well; 1 some trials failed, or nothing finished; 2 bad input (nothing was started);
3 interrupted, and `coppice resume` goes on.
"""
COMMANDS = {
    "plan": "plan",
    "run": "run",
    "resume": "resume",
    "status": "status",
    "logs": "logs",
    "report": "report",
    "best": "best",
    "elements": "elements",
    "methods": "methods",
    "submit": "submit",
    "drive": "drive",
    "doctor": "doctor",
    "top": "top",
    "dashboard": "dashboard",
    "cancel": "queue",
    "hold": "queue",
    "release": "queue",
    "retry": "queue",
}
"""Command -> the module beside this one with the function of that name; help lists them in this order."""
HIDDEN = ("drive",)
"""Commands that only scripts call."""


def function_of(command: str) -> Callable[..., None]:
    """The function of a command. It imports all that the command needs, which takes seconds for some."""
    function: Callable[..., None] = getattr(import_module(f"coppice.orchestrator.cli.{COMMANDS[command]}"), command)
    return function


def help_of(command: str) -> str:
    """The docstring of a command's function, read from its source without importing it."""
    source = Path(__file__).with_name(f"{COMMANDS[command]}.py").read_text()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == command:
            return ast.get_docstring(node) or ""
    raise LookupError(f"{COMMANDS[command]}.py must define {command}().")


def typer_command(command: str) -> Any:
    """The command with its arguments and options."""
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(command, hidden=command in HIDDEN)(function_of(command))
    return typer.main.get_command(alone)


class Commands(TyperGroup):
    """Holds a name and a help text for each command, and puts the command itself in their place once it is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Name, command and remaining arguments."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, name and typer_command(name), rest


app = typer.Typer(
    cls=Commands, help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)
for name in COMMANDS:
    app.command(name, help=help_of(name), hidden=name in HIDDEN)(lambda: None)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"coppice {importlib.metadata.version('coppice-nn')}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")]


@app.callback()
def _options(version: Version = False) -> None:
    """Options before the command."""
