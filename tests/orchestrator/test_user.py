"""A container's user: a number without a name, and no home."""

import getpass
import os
import subprocess
import sys
from pathlib import Path

import pytest

from coppice.orchestrator.user import home, make_up_for_no_home, user_name
from tests.support.waiting import LIMIT_S

NAMELESS = """
import getpass, os, pathlib, pwd
from coppice.orchestrator.tasks.cache import cache_folder
from coppice.orchestrator.user import make_up_for_no_home, user_name
for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
    os.environ.pop(name, None)
os.setresuid(54321, 54321, 54321)
print(user_name(), cache_folder())
make_up_for_no_home()
print(getpass.getuser(), pathlib.Path("~/ray_results").expanduser())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without a name")
def test_a_user_without_a_name_and_a_home_has_a_number_and_no_folder() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", NAMELESS], env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=True
    )
    assert done.stdout.splitlines() == ["54321 /nonexistent/.cache/coppice", "54321 /nonexistent/ray_results"]


HOMELESS = """
import os, pwd, sys
def nobody(uid):
    raise KeyError(uid)
pwd.getpwuid = nobody
for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
    os.environ.pop(name, None)
sys.argv = ["coppice", *sys.argv[1:]]
from coppice.orchestrator.cli.main import main
main()
"""


@pytest.mark.parametrize("command", [("plan", "c.yaml", "--samples", "1"), ("status", "nowhere"), ("methods",)])
def test_commands_need_neither_a_name_nor_a_home(command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("name: c\ntask: {dataset: digits, network: mlp}\ntraining: {epochs: 1}\n")
    done = subprocess.run(
        [sys.executable, "-c", HOMELESS, *command], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert "Traceback" not in done.stderr and done.returncode == (2 if command[0] == "status" else 0), done.stderr


def test_others_keep_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    make_up_for_no_home()
    assert (user_name(), home(), os.environ["HOME"]) == (getpass.getuser(), Path("/somewhere"), "/somewhere")
