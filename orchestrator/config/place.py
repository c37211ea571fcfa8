"""Folders as people write them: `~/runs`, `$SCRATCH/runs`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})")


def expanded(value: Any) -> Any:
    """A path with `~` and variables of the environment replaced; anything else as it is.

    Raises:
        ValueError: a variable is not set, or is empty; or there is no such home.
    """
    if not isinstance(value, (str, Path)):
        return value
    missing = [name for name in VARIABLE.findall(str(value)) if not os.environ.get(name.strip("{}"))]
    if missing:
        names = ", ".join(name.strip("{}") for name in missing)
        raise ValueError(f"must name variables that are set, but {names} is not in {str(value)!r}; set it, or write the path")
    place = os.path.expanduser(os.path.expandvars(value))
    if str(place).startswith("~"):
        raise ValueError(f"must be a folder, but there is no home {str(place).partition('/')[0]!r}; write the path")
    return Path(place) if isinstance(value, Path) else place


Place = Annotated[Path, BeforeValidator(expanded)]
"""A folder; `~` and variables are replaced when the campaign is read, on the machine that reads it."""


def with_places(task: Any) -> Any:
    """A campaign's task whose folder is replaced here, where it is read: nodes may have other variables."""
    if isinstance(task, dict) and isinstance(task.get("data_dir"), (str, Path)):
        return {**task, "data_dir": expanded(task["data_dir"])}
    return task
