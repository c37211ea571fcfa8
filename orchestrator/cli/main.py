"""The command `coppice`, which receives signals before anything that takes long is imported."""

from __future__ import annotations

import os
import sys

from coppice.orchestrator.end_signals import Interrupted, raise_interrupted, received_by
from coppice.orchestrator.user import make_up_for_no_home
from coppice.orchestrator.working_directory import search_working_directory

TRACEBACK = "COPPICE_TRACEBACK"
"""Environment variable: where it is set, all errors keep their traceback."""
STARTS_LATE = ("plan", "run", "resume")
"""Commands that say so themselves once they have started something."""


def main() -> None:
    """Entry point: errors that are expected become one message and exit code 2; any other keeps its traceback."""
    with received_by(raise_interrupted):
        try:
            _run()
        except Interrupted as signal:
            _tell_interrupted(str(signal))


def _run() -> None:
    from coppice.orchestrator.cli.commands import app
    from coppice.orchestrator.cli.output import BAD_INPUT, explained, keep_results_apart, say, write_what_can_be_written

    write_what_can_be_written()
    make_up_for_no_home()
    if "--json" in sys.argv:
        keep_results_apart()
    try:
        search_working_directory()
        app(prog_name="coppice")
    except Exception as error:
        message = explained(error)
        if message is None or os.environ.get(TRACEBACK):
            raise
        say(f"coppice: {message}")
        sys.exit(BAD_INPUT)


def _tell_interrupted(signal: str) -> None:
    from coppice.orchestrator.cli.output import INTERRUPTED, command, say

    again = sys.argv[1:2] and sys.argv[1] in STARTS_LATE
    say(f"Interrupted by {signal}{f': nothing was started. Again: {command(*sys.argv[1:])}' if again else '.'}")
    sys.exit(INTERRUPTED)
