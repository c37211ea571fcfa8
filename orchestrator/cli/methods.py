"""PURPOSE"""

from __future__ import annotations

from typing import Annotated

import typer

from coppice.orchestrator.cli.output import console, plain_table, print_json, say, show


def methods(
    name: Annotated[str | None, typer.Argument(help="One of them, in full.", metavar="[NAME]", show_default=False)] = None,
    full: Annotated[bool, typer.Option("--full", help="All of them, in full.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """List how networks grow and are pruned, when, and where: why, levels, parameters and ranges, BatchNorm, cost, paper."""
    from coppice.orchestrator.cli.method_tables import entries, find

    found = entries() if name is None else find(name)
    if as_json:
        print_json([e.to_json() for e in found])
    elif full or name is not None:
        for entry in found:
            console().print(entry.in_full(), markup=False, soft_wrap=True)
    else:
        heads = ("name", "kind", "level", "function", "usual when / where", "why")
        show(plain_table(heads, [e.cells() for e in found]))
        say("`coppice methods NAME` shows one in full: parameters and ranges, BatchNorm, cost of one event, paper.")
