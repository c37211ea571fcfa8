"""Making a campaign's folder is one step, and a start or a resume that is refused leaves everything as it was."""

import contextlib
import json
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.folder.files import exclusive
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.lock import load_spec
from coppice.orchestrator.folder.opening import made, reopened
from tests.support.campaigns import campaign
from tests.support.folders import create
from tests.support.waiting import LIMIT_S

STARTERS = 4


def tree(root: Path) -> dict[str, bytes | None]:
    """Everything below a folder, with its content."""
    return {str(p.relative_to(root)): None if p.is_dir() else p.read_bytes() for p in sorted(root.rglob("*"))}


class Refused(Exception):
    """Stands for whatever ends a start."""


@pytest.mark.parametrize("end", [Refused, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("there", ["nothing", "an empty folder", "a link to an empty folder"])
def test_a_start_that_is_refused_leaves_nothing(tmp_path: Path, there: str, end: type[BaseException]) -> None:
    root = tmp_path / "new" / "runs"
    folder = CampaignFolder(root / "c")
    if there != "nothing":
        target = folder.path if "link" not in there else tmp_path / "elsewhere"
        target.mkdir(parents=True)
        root.mkdir(parents=True, exist_ok=True)
        if target != folder.path:
            folder.path.symlink_to(target)
    before = tree(tmp_path)
    with pytest.raises(end), made(folder, campaign(root)):
        folder.ray_token.write_text("x")
        assert load_spec(folder).name == "c" and folder.running()
        raise end
    assert tree(tmp_path) == before
    create(folder, campaign(root))
    assert load_spec(folder) == campaign(root) and folder.trials_path.is_dir()


def test_what_has_begun_stays(tmp_path: Path) -> None:
    folder = CampaignFolder(tmp_path / "c")
    with pytest.raises(Refused), made(folder, campaign(tmp_path)) as opened:
        opened.begin()
        raise Refused
    assert load_spec(folder) == campaign(tmp_path) and not folder.running()
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize(("there", "said"), [
    (lambda path: create(CampaignFolder(path), campaign(path.parent)), "a campaign called 'c' must not exist yet"),
    (lambda path: path.write_text("mine"), "is a file"),
    (lambda path: (path / "thesis").mkdir(parents=True), "holds thesis and no campaign"),
])  # fmt: skip
def test_what_is_there_already_is_left_alone(tmp_path: Path, there: Callable[[Path], object], said: str) -> None:
    folder = CampaignFolder(tmp_path / "c")
    there(folder.path)
    before = tree(tmp_path)
    with pytest.raises(FileExistsError, match=said), made(folder, campaign(tmp_path, training={"epochs": 9})):
        raise AssertionError("it must not get here")
    assert tree(tmp_path) == before


def test_a_root_in_which_nothing_can_be_made_is_told() -> None:
    root = Path("/proc/none")
    with pytest.raises(OSError, match="root /proc/none must be where you may make folders, but: No such file"):
        create(CampaignFolder(root / "c"), campaign(root))


def _start(root: Path, epochs: int, together: Barrier, said: Any) -> None:
    folder = CampaignFolder(root / "c")
    together.wait()
    try:
        with made(folder, campaign(root, training={"epochs": epochs})) as opened:
            opened.begin()
            said.put((epochs, load_spec(folder).training["epochs"]))
            together.wait()
    except (FileExistsError, BlockingIOError):
        said.put(None)
        together.wait()


def test_of_several_at_the_same_time_one_runs_and_it_is_the_one_in_the_lock_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for attempt in range(5):
        root, together, said = tmp_path / str(attempt), context.Barrier(STARTERS), context.Queue()
        starters = [context.Process(target=_start, args=(root, n + 1, together, said)) for n in range(STARTERS)]
        for starter in starters:
            starter.start()
        found = [said.get(timeout=LIMIT_S) for _ in starters]
        for starter in starters:
            starter.join(60)
        winners = [f for f in found if f is not None]
        assert len(winners) == 1 and winners[0][0] == winners[0][1], found
        assert [p.name for p in root.iterdir()] == ["c"]


def test_one_that_dies_meanwhile_leaves_a_whole_campaign(tmp_path: Path) -> None:
    folder = CampaignFolder(tmp_path / "c")
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException), made(folder, campaign(tmp_path)):
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    with reopened(folder, campaign(tmp_path)) as opened:
        opened.begin()


def finished(root: Path) -> CampaignFolder:
    folder = CampaignFolder(root / "c")
    create(folder, campaign(root))
    folder.cancelled.write_text("by its user")
    return folder


def changed(root: Path, **changes: Any) -> Campaign:
    return campaign(root, **{"search": {"trials": 9, "sampler": "random"}, **changes})


def test_a_resume_that_is_refused_changes_nothing(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(Refused), reopened(folder, changed(tmp_path)):
        assert not folder.cancelled.exists()
        raise Refused
    assert tree(tmp_path) == before
    with pytest.raises(ValueError, match="training changed"), reopened(folder, changed(tmp_path, training={"epochs": 9})):
        raise AssertionError("it must not get here")
    assert tree(tmp_path) == before


def test_a_resume_under_a_live_driver_changes_nothing(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    with exclusive(folder.in_use):
        before = tree(tmp_path)
        with pytest.raises(BlockingIOError, match="held by another process"), reopened(folder, changed(tmp_path)):
            raise AssertionError("it must not get here")
        assert tree(tmp_path) == before


def test_a_resume_that_begins_is_written_down(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    with reopened(folder, changed(tmp_path)):
        assert json.loads(folder.lock.read_bytes())["campaign"]["search"]["trials"] == 4
    assert load_spec(folder).search.trials == 9 and not folder.cancelled.exists()
    other = CampaignFolder(tmp_path / "d")
    with pytest.raises(FileNotFoundError, match="must hold a campaign"), reopened(other, changed(tmp_path)):
        raise AssertionError("it must not get here")
    assert not (tmp_path / "d").exists()
