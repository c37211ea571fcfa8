"""`coppice methods`: lists the methods, triggers and selections that a campaign file may name, or shows one in full."""

from __future__ import annotations

from typing import Annotated

import typer

from coppice.orchestrator.cli.method_tables import entries, find
from coppice.orchestrator.cli.options import Json
from coppice.orchestrator.cli.output import plain_table, print_json, say, show, write


def methods(
    name: Annotated[str | None, typer.Argument(help="One of them, in full.", metavar="[NAME]", show_default=False)] = None,
    full: Annotated[bool, typer.Option("--full", help="All of them, in full.")] = False,
    as_json: Json = False,
) -> None:
    """List how networks grow and are pruned, when, and where: why, levels, parameters and ranges, BatchNorm, cost, paper."""
    shown = entries() if name is None else find(name)
    if as_json:
        print_json([e.to_json() for e in shown])
    elif full or name is not None:
        for entry in shown:
            write(entry.in_full())
    else:
        heads = ("name", "kind", "level", "function", "usual when / where", "why")
        show(plain_table(heads, [e.cells() for e in shown]))
        say("`coppice methods NAME` shows one in full: parameters and ranges, BatchNorm, cost of one event, paper.")
