"""The blocks of a page, and running them as a reader would: files are written, commands run, then the Python is executed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.waiting import LIMIT_S

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.M | re.S)
BEFORE = re.compile(r"^<!-- before\n(.*?)^-->$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file it is the content of (or empty), and its text."""

    language: str
    file: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in BLOCK.findall(page.read_text())]


def commands(page: Path) -> list[str]:
    """Lines of console blocks behind `$ `, comments left out, and of indented blocks that begin with `coppice` or `make`."""
    text = page.read_text()
    fenced = [line[2:] for b in blocks(page) if b.language == "console" for line in b.text.splitlines() if line.startswith("$ ")]
    indented = re.findall(r"^    ((?:coppice|make) .*)$", BLOCK.sub("", text), re.M)
    return [line.split("  #")[0].strip() for line in fenced + indented]


def run(command: str, folder: Path, timeout_s: float = LIMIT_S) -> str:
    """Run a line of a page in `folder`, with this environment's Python and `coppice`; returns what it printed.

    Raises:
        AssertionError: it failed.
    """
    words = shlex.split(command)
    start = {"coppice": [sys.executable, "-P", "-m", "coppice"], "python": [sys.executable]}[words[0]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*start, *words[1:]], cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def python(page: Path) -> str:
    """The Python of a page: what its hidden `before` comment prepares, then its blocks that are no files."""
    prepared = BEFORE.findall(page.read_text())
    return "\n".join([*prepared, *(b.text for b in blocks(page) if b.language == "python" and not b.file)])
