"""What a check has found."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One line of a report.

    Attributes:
        check: what was looked at.
        level: `problem` where a campaign would not run, or would lose something; `warning` where one should know.
        found: what there is.
        advice: what to do; empty where nothing needs to be done.
    """

    check: str
    level: Level
    found: str
    advice: str = ""


def ok(check: str, found: str) -> Finding:
    """A finding that asks for nothing."""
    return Finding(check, "ok", found)


def warning(check: str, found: str, advice: str) -> Finding:
    """Something one should know."""
    return Finding(check, "warning", found, advice)


def problem(check: str, found: str, advice: str) -> Finding:
    """Something that must be put right."""
    return Finding(check, "problem", found, advice)


def output_of(*command: str, timeout_s: float = 15.0) -> str:
    """What a command prints; empty where it is not there, fails or hangs."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
