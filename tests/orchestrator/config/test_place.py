"""Folders are written as in a shell: `~` and variables are replaced; what does not stand for anything is refused."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from coppice.orchestrator.config.models import Campaign, TaskSpec
from coppice.orchestrator.planning.load import load_campaign
from coppice.orchestrator.planning.problems import CampaignError

TASK = {"dataset": "digits", "network": "mlp"}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/homes/me")
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNDEFINED", raising=False)


def campaign(root: Any, **task: Any) -> Campaign:
    content = {"name": "c", "root": root, "task": {**TASK, **task}, "training": {"epochs": 1}}
    return Campaign.model_validate({**content, "search": {"sampler": "random"}})


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("~/runs", "/homes/me/runs"),
        ("$SCRATCH/runs", "/scratch/me/runs"),
        ("${SCRATCH}/a b", "/scratch/me/a b"),
        ("runs", "runs"),
        ("a~b/100$", "a~b/100$"),
        ("/data/$(touch owned)", "/data/$(touch owned)"),
    ],
)
@pytest.mark.parametrize("kind", [str, Path])
def test_a_folder_is_the_one_that_a_shell_would_take(written: str, meant: str, kind: type) -> None:
    assert campaign(kind(written)).root == Path(meant)
    assert campaign("runs", data_dir=kind(written)).task["data_dir"] == kind(meant)
    assert TaskSpec.model_validate({**TASK, "data_dir": kind(written)}).data_dir == Path(meant)


@pytest.mark.parametrize("written", ["$UNDEFINED/runs", "/a/${UNDEFINED}/b", "$EMPTY/runs", "~no-such-user-here/runs"])
def test_what_stands_for_nothing_is_refused(written: str) -> None:
    for make in (lambda: campaign(written), lambda: campaign("runs", data_dir=written)):
        with pytest.raises(ValidationError, match=r"set it, or write the path|there is no home"):
            make()


def test_a_file_is_refused_with_its_line_and_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(
        "name: a\nroot: $UNDEFINED/runs\ntask: {dataset: digits, network: mlp}\ntraining: {epochs: 1}\n"
    )
    with pytest.raises(CampaignError, match=r"line 2: root: .*UNDEFINED"):
        load_campaign("a.yaml")
    assert [p.name for p in tmp_path.iterdir()] == ["a.yaml"]
