"""Every kind of file of a campaign, damaged in every way, for everything that reads it: the same result, or a clear error."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.damage import DAMAGES, READERS, campaign, fresh, reading

FILES = (
    "campaign.lock.json", "campaign.yaml", "report.html", "jobs/drivers.json",
    "results/trials.parquet", "best/architecture.json", "best/model.safetensors", "best/README.md", "best/SHA256SUMS",
    "trials/t0000/params.json", "trials/t0000/events.jsonl", "trials/t0001/params.json", "trials/t0001/events.jsonl",
    "trials/t0001/attempt.json", "trials/t0001/request.json", "trials/t0001/ranks.json",
    *(f"trials/{trial}/checkpoints/{epoch}/{name}" for trial, epoch in (("t0000", "000004"), ("t0001", "000002"))
      for name in ("architecture.json", "model.safetensors", "optimizer.safetensors", "state.json", "events.jsonl",
                   "MANIFEST.json")),
)
ESSENTIAL = ("campaign.lock.json", "trials/t0000/params.json", "trials/t0000/events.jsonl", "trials/t0001/events.jsonl",
             "trials/t0000/checkpoints/000004/model.safetensors", "best/model.safetensors")
LIGHT = ("status", "report", "best", "copied")


class Matrix:
    """The whole folder, and what each reader makes of it when nothing is damaged."""

    def __init__(self, root: Path) -> None:
        self.whole, self.work = campaign(root / "whole"), root / "work"
        self.expected = {reader: self.read(reader, None, None)[0] for reader in READERS}

    def read(self, reader: str, file: str | None, damage: str | None) -> tuple[Any, str]:
        folder = fresh(self.whole, self.work)
        if file is not None and damage is not None:
            DAMAGES[damage](folder / file)
        return reading(reader, folder)


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    return Matrix(tmp_path_factory.mktemp("damage"))


def test_the_folder_has_every_kind_of_file(matrix: Matrix) -> None:
    missing = [file for file in FILES if not (matrix.whole / file).exists()]
    assert not missing
    assert all(result is not None for result in matrix.expected.values())


def check(matrix: Matrix, file: str, damage: str, reader: str) -> None:
    result, told = matrix.read(reader, file, damage)
    same = result == matrix.expected[reader]
    parts = Path(file).parts
    named = Path(file).name in told or ("checkpoints" in parts and f"{parts[-2]}/" in told)
    wanted = matrix.expected[reader]
    assert same or named, f"{reader} of {file} {damage}: {result!r:.300} instead of {wanted!r:.300}; told: {told!r}"


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_what_is_shown_is_right_or_its_damage_is_told(matrix: Matrix, file: str, damage: str) -> None:
    for reader in LIGHT if file in ESSENTIAL else ("status", "best"):
        check(matrix, file, damage, reader)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", ESSENTIAL[:4])
def test_a_resumed_campaign_ends_as_it_would_have_or_its_damage_is_told(matrix: Matrix, file: str, damage: str) -> None:
    check(matrix, file, damage, "resume")


@pytest.fixture
def public(matrix: Matrix) -> Iterator[Path]:
    """A copy of the folder that another user can enter and read, but not write into."""
    place = Path(tempfile.mkdtemp(prefix="coppice-damage-", dir="/tmp"))
    place.chmod(0o755)
    yield fresh(matrix.whole, place / "work")
    shutil.rmtree(place)


def as_another_user(reader: str, folder: Path) -> list[Any]:
    """What `reading` makes of the folder for a user who owns nothing of it; or the exception that nobody expected."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            result, told = reading(reader, folder)
            found = [result is not None, told]
        except BaseException as error:
            found = ["traceback", repr(error)]
        os.write(send, json.dumps(found).encode())
        os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        content = pipe.read()
    os.waitpid(child, 0)
    return list(json.loads(content))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("file", [*ESSENTIAL, "best/architecture.json", "trials/t0000/checkpoints/000004/MANIFEST.json"])
def test_somebody_elses_file_is_named(public: Path, file: str) -> None:
    assert as_another_user("status", public)[0] is True, "what may be read is shown"
    (public / file).chmod(0)
    for reader in ("status", "best", "copied"):
        shown, told = as_another_user(reader, public)
        assert shown in (True, False), told
        if not shown:
            assert str(public) in told, f"{reader}: {told}"


@pytest.mark.long
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_the_whole_matrix(matrix: Matrix, file: str, damage: str, reader: str) -> None:
    check(matrix, file, damage, reader)
