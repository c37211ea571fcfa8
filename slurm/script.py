"""The sbatch script of a campaign's driver. Every value is quoted; what cannot be quoted is refused."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from coppice.slurm.site import Site, SiteError
from coppice.slurm.submission import notice_s

NOTICE_S = 300
"""How long before its time limit the driver is told to hand over, where the limit is long enough."""


def driver_script(site: Site, options: Mapping[str, str], name: str, log: Path, command: Sequence[str]) -> str:
    """A script whose shell becomes `command`, so that signals to the batch shell reach it.

    Args:
        site: its prologue lines come first; they are whoever's who wrote the site file.
        options: of sbatch, by long name (`coppice.slurm.request.options`).
        name: of the job.
        log: where output goes; later jobs add to it.
        command: and its arguments.

    Raises:
        SiteError: a value that no line of the script can hold.
    """
    notice = notice_s(int(options["time"]), NOTICE_S) if "time" in options else NOTICE_S
    fixed = {
        "job-name": name, "output": str(log).replace("%", "%%"), "open-mode": "append", "signal": f"B:USR1@{notice}",
        "requeue": "",
    }  # fmt: skip
    lines = [_line(option, value) for option, value in sorted({**options, **fixed}.items())]
    return "\n".join(["#!/bin/bash", *lines, *site.prologue, f"exec {_quoted(command)}", ""])


def _line(option: str, value: str) -> str:
    if any(c in value for c in "\n\r\0"):
        raise SiteError(f"--{option} must be one line, but is {value!r}; choose another name or folder.")
    return f"#SBATCH --{option}" + (f"={shlex.quote(value)}" if value else "")


def _quoted(command: Sequence[str]) -> str:
    if any("\0" in part for part in command):
        raise SiteError(f"a command cannot hold a null byte, but this one does: {list(command)!r}.")
    return shlex.join(command)
