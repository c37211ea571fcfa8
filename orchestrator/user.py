"""Who runs this process: containers run as users that have neither a name nor a home."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

NO_HOME = "/nonexistent"


def user_name() -> str:
    """Of the user of this process; the number where there is no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.geteuid())


def home() -> Path:
    """Of the user of this process; a folder that is not there where there is none."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(NO_HOME)


def make_up_for_no_home() -> None:
    """Libraries ask for the user's name and home when they are imported; who has none is given the number, and no folder."""
    os.environ.setdefault("LOGNAME", user_name())
    if home() == Path(NO_HOME):
        os.environ["HOME"] = NO_HOME
