"""The Ray of a campaign is its user's alone, and nothing of it stays."""

import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from coppice.slurm.ray import private_folder
from tests.support.stranger import (
    MARK,
    REQUIRES_ROOT,
    answers,
    as_stranger,
    listening,
    marked,
    reachable_sockets,
    readable,
    unix_sockets,
    writable,
)  # fmt: skip
from tests.support.waiting import LIMIT_S, until

HELD = """
import os, sys
from pathlib import Path
os.umask(0)
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.placement.ray_session import ray_session
with ray_session(CampaignFolder(Path(sys.argv[1])), num_cpus=1):
    import ray
    assert ray.get(ray.remote(lambda: os.getpid()).options(num_cpus=1).remote())
    print("up", flush=True)
    sys.stdin.read()
print("down", flush=True)
"""


@pytest.fixture
def machine() -> Iterator[Path]:
    """A temporary folder as that of a machine is: short, and everybody may write it."""
    with tempfile.TemporaryDirectory(prefix="m", dir="/tmp") as folder:
        os.chmod(folder, 0o1777)
        yield Path(folder)


def _ray(campaign: Path, machine: Path, mark: str) -> "subprocess.Popen[str]":
    campaign.mkdir(exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(machine), MARK: mark}
    environment.pop("RAY_TMPDIR", None)
    process = subprocess.Popen([sys.executable, "-c", HELD, str(campaign)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               text=True, env=environment)  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == "up\n", line
    return process


@REQUIRES_ROOT
def test_nothing_of_it_answers_or_opens_for_another_user(open_folder: Path, machine: Path) -> None:
    """With a umask that lets everybody write; it is killed then, and what it leaves is removed by the next one."""
    mark = uuid.uuid4().hex
    process = _ray(open_folder / "c", machine, mark)
    try:
        pids = marked(mark)
        ports, sockets = listening(pids), unix_sockets(pids)
        assert len(pids) > 2 and ports and any("raylet" in s for s in sockets), "there is something to be tried"
        assert {address for address, _ in ports} <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
        said = {port: as_stranger(answers, port) for _, port in ports}
        assert not {p: a for p, all in said.items() for a in all if a.startswith("HTTP/1") and " 40" not in a[:13]}, said
        assert as_stranger(reachable_sockets, sockets) == []
        (private,) = machine.glob("coppice.*")
        assert private.stat().st_mode & 0o777 == 0o700
        assert [p for p in as_stranger(writable, str(machine)) if p != str(machine)] == []
        assert as_stranger(readable, [str(open_folder / "c" / ".ray-token"), str(private)]) == []
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    until(lambda: not marked(mark), "Ray's processes end with their driver")
    assert private.exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(machine))
        with private_folder.private_folder() as own:
            assert sorted(machine.iterdir()) == [own]
    assert not list(machine.iterdir())


def test_nothing_stays(tmp_path: Path, machine: Path) -> None:
    process = _ray(tmp_path / "c", machine, uuid.uuid4().hex)
    assert process.communicate("", timeout=LIMIT_S)[0] == "down\n"
    assert [p.name for p in machine.iterdir() if p.name.startswith(("coppice", ".coppice", "ray"))] == []


def test_folders_of_the_living_and_of_others_are_left_alone(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(machine))
    others = machine / "coppice.abcdef"
    others.mkdir()
    (machine / "coppice.link").symlink_to(others)
    with private_folder.private_folder() as one, private_folder.private_folder() as two:
        assert one.is_dir() and two.is_dir() and others.is_dir() and (machine / "coppice.link").is_symlink()
    assert not one.exists() and not two.exists() and others.is_dir()


@pytest.mark.parametrize("where", [None, "/nowhere", "/tmp/" + "x" * 60])
def test_a_path_that_is_too_long_for_sockets_is_not_taken(
    where: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("deep" * 10)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with private_folder.private_folder(where) as folder:
        assert len(str(folder)) + private_folder.BELOW <= 107 and folder.is_relative_to("/tmp")
