"""Who may read, write and hold what is in a campaign's folder, whatever the umask."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from coppice.orchestrator.cli.best import best
from coppice.orchestrator.cli.output import is_ours
from coppice.orchestrator.folder.checkpoint import ARCHITECTURE, MANIFEST, MODEL, OPTIMIZER, STATE, Checkpoint, write
from coppice.orchestrator.folder.files import exclusive, held, written_by_us_alone
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.report import write_report
from tests.support.campaigns import campaign, driving
from tests.support.folders import campaign_folder
from tests.support.stranger import REQUIRES_ROOT, as_stranger, readable, writable
from tests.support.waiting import LIMIT_S

FILES = (ARCHITECTURE, MANIFEST, MODEL, OPTIMIZER, STATE)
PRIVATE = {".in-use", ".ray-token"}


@pytest.fixture
def open_to_all(open_folder: Path) -> Iterator[Path]:
    """A folder that everybody may enter, and a umask that lets everybody write."""
    before = os.umask(0)
    yield open_folder
    os.umask(before)


def test_a_lock_is_held_by_its_owner_alone(open_to_all: Path) -> None:
    path = open_to_all / ".in-use"
    assert not held(path) and not path.exists()
    path.touch()
    with exclusive(path):
        assert held(path) and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not held(path)


@REQUIRES_ROOT
def test_another_user_sees_that_it_runs_and_cannot_stop_it_from_running(open_to_all: Path) -> None:
    folder = CampaignFolder(open_to_all)

    def running() -> bool:
        return CampaignFolder(open_to_all).running()

    def can_be_held() -> bool:
        try:
            with exclusive(open_to_all / ".in-use"):
                return True
        except PermissionError:
            return False

    with exclusive(folder.in_use):
        assert as_stranger(running) is True
    assert as_stranger(running) is False and as_stranger(can_be_held) is False


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_who_may_read_a_checkpoint_is_for_the_umask_to_say(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        path = write(tmp_path, 1, Checkpoint({"factory": "x"}, {"w": torch.zeros(2)}, {"w.m": torch.zeros(2)}, {}))
    finally:
        os.umask(before)
    assert {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.iterdir()} == dict.fromkeys(FILES, mode)


@REQUIRES_ROOT
def test_colleagues_read_a_campaigns_results_and_change_nothing(open_to_all: Path) -> None:
    """What is in the folder decides what the next resume runs."""
    spec = campaign(open_to_all, search={"trials": 1, "sampler": "random"})
    with driving(spec) as process:
        assert process.wait(LIMIT_S) == 0
    folder = spec.root / spec.name
    assert as_stranger(writable, str(folder)) == []
    files = [str(p) for p in folder.rglob("*") if p.is_file() and "tune" not in p.parts]
    secret = {p for p in files if Path(p).name in PRIVATE}
    assert {Path(p).name for p in secret} == PRIVATE
    assert set(as_stranger(readable, files)) == set(files) - secret


def test_a_umask_that_says_more_still_counts(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with written_by_us_alone():
            (tmp_path / "file").touch()
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600 and os.umask(0o077) == 0o077
    finally:
        os.umask(before)


@REQUIRES_ROOT
def test_the_report_of_somebody_elses_campaign_is_written_elsewhere(open_to_all: Path) -> None:
    folder = campaign_folder(open_to_all)
    folder.chmod(0o755)
    write_report(campaign_folder(open_to_all / "own"))  # imports all that is imported late
    page = Path(as_stranger(lambda: str(write_report(folder))))
    assert not page.is_relative_to(open_to_all) and "made-up" in page.read_text() and not (folder / "report.html").exists()
    assert page.parent.stat().st_mode & 0o777 == 0o700
    page.unlink()
    page.parent.rmdir()


@REQUIRES_ROOT
def test_who_may_not_write_the_best_network_there_is_told_of_out(open_folder: Path) -> None:
    def said() -> str:
        try:
            best(open_folder)
        except PermissionError as error:
            return str(error) if is_ours(error) else repr(error)
        return "written"

    assert as_stranger(said) == f"you may not write in {open_folder}; choose another folder for the network: --out DIR."
