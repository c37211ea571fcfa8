"""Tests wait for events. There is one limit, and it is far above what the slowest machine needs: it only ends what hangs."""

import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

LIMIT_S = float(os.environ.get("COPPICE_TEST_LIMIT_S", "600"))
STEP_S = 0.05


def until(condition: Callable[[], Any], why: str, process: "subprocess.Popen[Any] | None" = None) -> Any:
    """The first true value of `condition`; `why` says what is waited for.

    Where a process is to bring it about, that must not end before.
    """
    end = time.monotonic() + LIMIT_S
    while not (value := condition()):
        if process is not None and process.poll() is not None and not (value := condition()):
            raise AssertionError(f"the process ended with {process.returncode} before: {why}\n{process.communicate()}")
        if value:
            break
        if time.monotonic() > end:
            raise AssertionError(f"waited {LIMIT_S:g} s in vain for: {why}")
        time.sleep(STEP_S)
    return value
