"""A campaign knows its folder, its working folder and its code; a copy of it is another campaign."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.lock import changed_code, load_spec
from coppice.orchestrator.folder.opening import made, reopened
from coppice.orchestrator.folder.origin import at_home
from coppice.orchestrator.operations.queue import cancel, queue_of
from coppice.orchestrator.placement.job_names import trial_jobs_name
from coppice.slurm.broker.journal import Attempt, Journal
from coppice.slurm.client import Job
from tests.support.campaigns import campaign
from tests.support.slurm.stand_ins import FakeClient


def begun(spec: Campaign) -> CampaignFolder:
    folder = CampaignFolder((spec.root / spec.name).absolute())
    with made(folder, spec) as opened:
        opened.begin()
    return folder


def gone_on(folder: CampaignFolder) -> Campaign:
    spec = load_spec(folder)
    with reopened(folder, spec) as opened:
        opened.begin()
    return spec


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder of somebody with a module of their own, which imports another one and a package."""
    there = tmp_path / "proj"
    (there / "parts_of_mine").mkdir(parents=True)
    (there / "nets_of_mine.py").write_text("def build():\n    from helpers_of_mine import width\n    import parts_of_mine.deep\n")
    (there / "helpers_of_mine.py").write_text("import json\nwidth = 1\n")
    (there / "parts_of_mine" / "__init__.py").write_text("")
    (there / "parts_of_mine" / "deep.py").write_text("from . import other\n")
    (there / "parts_of_mine" / "other.py").write_text("")
    (there / "unrelated_of_mine.py").write_text("")
    monkeypatch.chdir(there)
    monkeypatch.setattr(sys, "path", [*sys.path, str(there)])
    yield there
    for name in [n for n in sys.modules if n.partition(".")[0].endswith("_of_mine")]:
        del sys.modules[name]


def own(root: Path) -> Campaign:
    task = {"dataset": "digits", "network": "nets_of_mine:build"}
    return campaign(root, task=task)


def code(folder: CampaignFolder) -> list[str]:
    origin = json.loads(folder.lock.read_bytes())["origin"]
    return [name for name in origin["code"] if name.partition(".")[0].endswith("_of_mine")]


def test_modules_that_a_campaign_names_and_those_that_they_import_are_known(project: Path) -> None:
    folder = begun(own(project / "runs"))
    known = ["helpers_of_mine", "nets_of_mine", "parts_of_mine", "parts_of_mine.deep", "parts_of_mine.other"]
    assert code(folder) == known
    assert changed_code(folder, load_spec(folder)) == []


@pytest.mark.parametrize("changed", ["nets_of_mine.py", "helpers_of_mine.py", "parts_of_mine/other.py"])
def test_code_that_has_changed_is_told_once_and_what_ran_before_is_kept(project: Path, changed: str) -> None:
    folder = begun(own(project / "runs"))
    before = json.loads(folder.lock.read_bytes())["origin"]["code"]
    (project / "unrelated_of_mine.py").write_text("x = 2\n")
    with open(project / changed, "a") as file:
        file.write("x = 2\n")
    told = changed_code(folder, load_spec(folder))
    assert len(told) == 1 and str(project / changed) in told[0]
    gone_on(folder)
    assert changed_code(folder, load_spec(folder)) == []
    assert [e["origin"]["code"] for e in json.loads(folder.lock.read_bytes())["earlier_code"]] == [before]


def test_versions_and_our_own_code_count(tmp_path: Path) -> None:
    folder = begun(campaign(tmp_path))
    content = json.loads(folder.lock.read_bytes())
    content["origin"]["coppice"], content["versions"]["torch"], content["python"] = "0", "1.0", "3.10.0"
    folder.lock.write_text(json.dumps(content))
    told = changed_code(folder, load_spec(folder))
    assert told[0] == "Coppice itself" and told[1].startswith("torch 1.0 -> ") and told[2].startswith("Python 3.10.0 -> ")


@pytest.mark.parametrize("how", ["stays", "with its project", "alone"])
def test_it_runs_in_its_working_folder_wherever_it_is_resumed(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    folder = begun(own(project / "runs"))
    home, moved = project, folder.path
    if how == "with its project":
        home = project.rename(tmp_path / "later")
        moved = home / "runs" / "c"
    if how == "alone":
        moved = folder.path.rename(tmp_path / "archived")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "nets_of_mine.py").write_text("raise SystemError('the wrong one')\n")
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(sys, "path", [*(p for p in sys.path if p != str(project)), str(elsewhere)])
    before = (os.getcwd(), list(sys.path), os.environ.get("PYTHONPATH"))
    with at_home(moved, CampaignFolder(moved).lock):
        assert os.getcwd() == str(home)
        import nets_of_mine  # type: ignore[import-not-found]

        assert nets_of_mine.__file__ == str(home / "nets_of_mine.py")
    assert (os.getcwd(), list(sys.path), os.environ.get("PYTHONPATH")) == before


def test_a_renamed_folder_is_the_same_campaign_whatever_it_is_called(tmp_path: Path) -> None:
    folder = begun(campaign(tmp_path))
    identity = folder.identity()
    renamed = CampaignFolder(folder.path.rename(tmp_path / "a name, with blanks|and more"))
    for _ in range(2):
        spec = gone_on(renamed)
        assert renamed.identity() == identity and spec.name == renamed.path.name
    assert trial_jobs_name(spec, renamed) == f"coppice-a_name__with_blanks_and_more-{identity}"


def test_a_copy_is_another_campaign_and_leaves_the_jobs_of_the_first_alone(tmp_path: Path) -> None:
    folder = begun(campaign(tmp_path))
    folder.trial("t0000").params.write_text('{"spec": {}, "number": 0, "params": {}, "sampling": {}}')
    folder.jobs.mkdir()
    Journal(folder.journal).add([Attempt("t0000", 1, "77", 99.0)])
    copy = CampaignFolder(Path(shutil.copytree(folder.path, tmp_path / "copy")))
    client = FakeClient(jobs={"77": Job("77", trial_jobs_name(load_spec(folder), folder), "RUNNING")})
    for _ in range(2):
        assert copy.identity() != folder.identity()
        assert queue_of(copy, client).trials[0].state == "gone" and cancel(copy, client, []) == ["t0000"]
        gone_on(copy)
    assert client.cancelled == []
    cancel(folder, client, [])
    assert client.cancelled == ["77"]


def test_jobs_of_campaigns_of_before_keep_their_names(tmp_path: Path) -> None:
    folder = begun(campaign(tmp_path))
    content = json.loads(folder.lock.read_bytes())
    del content["origin"]
    folder.lock.write_text(json.dumps(content))
    identity = folder.identity()
    gone_on(folder)
    assert folder.identity() == identity
