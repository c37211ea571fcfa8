"""Signals before anything runs: a sentence, exit code 3, nothing left; what is to outlive its terminal does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import LIMIT_S, until

ROOT = Path(__file__).parents[3]
SLOW = "import time\nfrom pathlib import Path\nPath('importing').touch()\nwhile not Path('go').exists():\n    time.sleep(0.05)\n"
CAMPAIGN = "{name: a, task: {dataset: digits, network: 'nets:build'}, training: {epochs: 1}, search: {sampler: random}}\n"


def started(folder: Path, *arguments: str, ignored: tuple[int, ...] = ()) -> "subprocess.Popen[str]":
    """A command that is importing the user's own module, and does so until there is a file `go`."""
    (folder / "nets.py").write_text(SLOW)
    (folder / "a.yaml").write_text(CAMPAIGN)

    def receive() -> None:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    process = subprocess.Popen(
        [sys.executable, "-m", "coppice", *arguments], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=receive,  # noqa: PLW1509
    )  # fmt: skip
    until((folder / "importing").exists, "the user's module is imported", process)
    return process


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"])
def test_what_has_not_begun_says_so(tmp_path: Path, name: str) -> None:
    process = started(tmp_path, "run", "a.yaml")
    process.send_signal(signal.Signals[name])
    out, err = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, out) == (3, "")
    assert err == f"Interrupted by {name}: nothing was started. Again: coppice run a.yaml\n"
    assert not (tmp_path / "runs").exists()


def test_nohup_is_respected(tmp_path: Path) -> None:
    process = started(tmp_path, "plan", "a.yaml", ignored=(signal.SIGHUP,))
    process.send_signal(signal.SIGHUP)
    (tmp_path / "go").touch()
    _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 2 and "nets has no 'build'" in err, "it went on, and found what is wrong"
