"""A real browser for the tests of pages: Chromium without a window, without a network."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.waiting import LIMIT_S

OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
           "--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--virtual-time-budget=3000")
NAMES = ("chromium", "chromium-browser", "google-chrome")


def dump(page: Path, profile: Path) -> tuple[str, list[str]]:
    """The page's DOM after its script has run, and what it wrote to the console.

    Skips the test where there is no browser, unless COPPICE_REQUIRE_BROWSER=1.
    """
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        message = "no Chromium is installed (apt-get install chromium)"
        if os.environ.get("COPPICE_REQUIRE_BROWSER") == "1":
            pytest.fail(f"COPPICE_REQUIRE_BROWSER=1, but {message}")
        pytest.skip(message)
    command = [program, *OPTIONS, f"--user-data-dir={profile}", "--dump-dom", page.resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
