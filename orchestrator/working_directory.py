"""A user's own modules lie in the directory where the command is called: it is searched for them, after installed packages.

Otherwise a file that is called like a package (`torch.py`, `yaml.py`) would be imported in its place. Our own processes are
started with `python -P`, so that Python does not search that directory first.
"""

from __future__ import annotations

import os
import sys


def search_working_directory() -> None:
    """Let this process find modules of the working directory, last of all, unless it finds them already.

    Raises:
        FileNotFoundError: the working directory was deleted.
    """
    try:
        here = os.getcwd()
    except FileNotFoundError:
        raise FileNotFoundError("the current folder must exist, but was deleted; go to another one.") from None
    if "" not in sys.path and here not in sys.path:
        sys.path.append(here)
