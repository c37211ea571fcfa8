"""What all commands share: where output goes, tables, exit codes, and which errors are shown without a traceback."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

OK, TRIALS_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 3
OURS = ("coppice",)
EXPECTED = (ValueError, KeyError, ImportError, OSError, RuntimeError)
"""Types that our own errors have; see `is_ours`."""


def console() -> Console:
    """Standard output: results, which scripts may read."""
    return Console(soft_wrap=False, highlight=False)


def messages() -> Console:
    """Standard error: progress, hints, errors."""
    return Console(stderr=True, highlight=False)


def say(message: str) -> None:
    """A hint on standard error; it is not wrapped, so that paths can be copied."""
    messages().print(escape(message), soft_wrap=True)


def command(*words: object) -> str:
    """A command of ours as a shell takes it, whatever is in its words: for people who copy it."""
    return shlex.join(["coppice", *map(str, words)])


def print_json(value: Any) -> None:
    """`value` as JSON on standard output; numbers that JSON does not know become null."""
    sys.stdout.write(json.dumps(_finite(value), indent=1, default=str) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, (list, tuple)) else value


def plain_table(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str] = ()) -> Table:
    """A table without ornament; columns named in `numbers` are set to the right. Cells are text, never markup."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for head in heads:
        right = head in numbers
        table.add_column(head, justify="right" if right else "left", no_wrap=right, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table


def fitting_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str] = (), optional: Sequence[str] = ()
) -> Table:
    """A plain table; on a terminal too narrow for it, columns named in `optional` are left out, the first ones first."""
    out, columns = console(), list(range(len(heads)))

    def width() -> int:
        return sum(max(cell_len(cells[i]) for cells in (heads, *rows)) + 2 for i in columns) - 2

    for name in optional:
        if out.is_terminal and width() > out.width and name in heads:
            columns.remove(heads.index(name))
    return plain_table([heads[i] for i in columns], [[row[i] for i in columns] for row in rows], numbers)


def show(table: Table) -> None:
    """Print a table; where output is not a terminal it is as wide as it needs to be, for pipes and files."""
    out = console()
    if not out.is_terminal:
        out.width = max(out.width, 200)
    out.print(table)


def is_ours(error: BaseException) -> bool:
    """Whether an error was raised on purpose by our code, with a message for the user, and so needs no traceback."""
    if type(error).__module__.partition(".")[0] in OURS:
        return True
    if isinstance(error, ImportError) and error.name is not None:
        return False
    sentence = " " in str(error)
    return sentence and isinstance(error, EXPECTED) and _raised_in(error.__traceback__).partition(".")[0] in OURS


def _raised_in(traceback: TracebackType | None) -> str:
    """Name of the module whose frame raised."""
    name = ""
    while traceback is not None:
        name = str(traceback.tb_frame.f_globals.get("__name__", ""))
        traceback = traceback.tb_next
    return name


def message_of(error: BaseException) -> str:
    """The message of an error (a KeyError's own text is quoted)."""
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
