"""What all commands share: where output goes, tables, exit codes, and which errors are shown without a traceback."""

from __future__ import annotations

import io
import json
import math
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, TextIO

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from coppice.orchestrator.plain_text import plain, plain_line
from coppice.user_code import frames_text, users_frames, what_went_wrong

OK, TRIALS_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 3
OURS = ("coppice",)
EXPECTED = (ValueError, KeyError, ImportError, OSError, RuntimeError)
"""Types that our own errors have; see `is_ours`."""
STDOUT, STDERR = 1, 2
_RESULTS: list[TextIO] = []
"""Where results go, once `keep_results_apart` was called."""


class PlainConsole(Console):
    """Shows texts whoever wrote them: what is in them never steers the terminal; only Rich's own colours and layout do."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """The segments of `renderable`, with plain texts."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)


def console() -> Console:
    """Standard output: results, which scripts may read. Text is text: no markup, no names of emoji."""
    return PlainConsole(soft_wrap=False, highlight=False, markup=False, emoji=False)


def messages() -> Console:
    """Standard error: progress, hints, errors. Text is text, as on standard output."""
    return PlainConsole(stderr=True, highlight=False, markup=False, emoji=False)


def write(text: object = "") -> None:
    """Lines of results on standard output, not wrapped."""
    console().print(plain(str(text)), soft_wrap=True)


def say(message: str) -> None:
    """A hint on standard error; it is not wrapped, so that paths can be copied."""
    messages().print(plain(message), soft_wrap=True)


def write_what_can_be_written() -> None:
    """Characters that the terminal's or the file's encoding lacks are written as `\\u2192`, where Python would raise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def keep_results_apart() -> None:
    """From now on standard output takes the results alone: what anybody else prints there goes to standard error.

    Code of the user's prints when it is imported, called and unloaded, libraries in C too, so this lasts until the process ends.
    """
    sys.stdout.flush()
    _RESULTS.append(io.TextIOWrapper(io.FileIO(os.dup(STDOUT), "w"), encoding="utf-8"))
    os.dup2(STDERR, STDOUT)
    sys.stdout = sys.stderr


def command(*words: object) -> str:
    """A command of ours as a shell takes it, whatever is in its words: for people who copy it."""
    return shlex.join(["coppice", *map(str, words)])


def print_json(value: Any) -> None:
    """`value` as JSON on standard output; numbers that JSON does not know become null."""
    print_json_text(json.dumps(_finite(value), indent=1, default=str))


def print_json_text(text: str) -> None:
    """What is JSON already, as a line on standard output."""
    results = _RESULTS[-1] if _RESULTS else sys.stdout
    results.write(text + "\n")
    results.flush()


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
        table.add_column(Text(plain_line(head)), justify="right" if right else "left", no_wrap=right, overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain_line(cell)) for cell in row))
    return table


def fitting_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str] = (), optional: Sequence[str] = ()
) -> Table:
    """A plain table; on a terminal too narrow for it, columns named in `optional` are left out, the first ones first."""
    out, columns = console(), list(range(len(heads)))

    def width() -> int:
        return sum(max(cell_len(plain_line(cells[i])) for cells in (heads, *rows)) + 2 for i in columns) - 2

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


def explained(error: BaseException) -> str | None:
    """What to say of an error in place of a traceback; None where nobody but us can know what it means."""
    if is_ours(error):
        return message_of(error)
    if users_frames(error):
        what = f"your own code raised {what_went_wrong(error)}:\n{frames_text(error)}"
        return f"{what}\nMend it there; COPPICE_TRACEBACK=1 shows all frames."
    return None


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
