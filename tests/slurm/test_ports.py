"""Ports are reserved whatever other users have put where the locks usually are."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from coppice.slurm.ray import ports


def _of_somebody_else(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to somebody else")
    path.mkdir()
    os.chown(path, 65534, 65534)


def _open_to_all(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def _link(path: Path) -> None:
    (path.parent / "elsewhere").mkdir(mode=0o700)
    path.symlink_to(path.parent / "elsewhere")


IN_THE_WAY: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: None,
    "file": lambda path: path.write_text("of somebody else"),
    "link": _link,
    "link to nowhere": lambda path: path.symlink_to("/nowhere"),
    "named pipe": os.mkfifo,
    "somebody else's folder": _of_somebody_else,
    "a folder that others may write": _open_to_all,
}


@pytest.mark.parametrize("what", IN_THE_WAY)
def test_what_others_put_there_is_left_alone(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    usual = tmp_path / f".coppice-ports-{os.geteuid()}"
    IN_THE_WAY[what](usual)
    with ports.reserved(4, 3) as one, ports.reserved(4, 3) as two:
        assert one != two, "locks hold"
    if what != "nothing":
        assert usual.is_symlink() or not usual.is_dir() or not list(usual.iterdir())
        (own,) = tmp_path.glob(".coppice-ports-*-1")
        assert own.stat().st_mode & 0o777 == 0o700 and list(own.iterdir())


def test_every_name_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for number in range(ports.PLACES):
        (tmp_path / f".coppice-ports-{os.geteuid()}{f'-{number}' if number else ''}").touch()
    with ports.reserved(4, 0) as block:
        assert len(block) == 4
