"""`load_network`: the same network from whatever folder holds it."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import coppice
from coppice.orchestrator.folder.checkpoint import CheckpointError
from coppice.orchestrator.report.export import export
from coppice.orchestrator.report.results import best_trial
from coppice.trust import Untrusted
from tests.orchestrator.report.test_export import INPUT, trial
from tests.support.folders import campaign_folder

PLACES: dict[str, Callable[[Path], Path]] = {
    "trial": lambda trial: trial,
    "checkpoint": lambda trial: trial / "checkpoints" / "000004",
    "exported": lambda trial: export(trial, trial.parent / "out", "").folder,
}


@pytest.mark.parametrize("place", PLACES)
def test_from_a_trial_a_checkpoint_and_what_was_exported(place: str, tmp_path: Path) -> None:
    kept = trial(tmp_path / "t0000", average=0.5)
    network = coppice.load_network(PLACES[place](tmp_path / "t0000"), example_inputs=(torch.zeros(2, *INPUT),), trust=["tests"])
    for name, tensor in network.module.named_parameters():
        assert tensor.equal(kept.module.get_parameter(name) * 0.5), "the average is what was evaluated"
    assert [e.size for e in network.elements() if e.name == "conv1.weight:0"] == [11]


def test_from_a_campaign_it_is_the_best_trial(tmp_path: Path) -> None:
    folder = campaign_folder(tmp_path)
    best = best_trial(folder, "val_accuracy", "max")
    assert best is not None
    kept = trial(folder / "trials" / best.id)
    network = coppice.load_network(str(folder), trust=["tests"])
    assert all(t.equal(kept.module.get_parameter(n)) for n, t in network.module.named_parameters())


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must hold a network"):
        coppice.load_network(tmp_path)


def test_damaged(tmp_path: Path) -> None:
    trial(tmp_path / "t0000")
    checkpoint = tmp_path / "t0000" / "checkpoints" / "000004"
    record = json.loads((checkpoint / "architecture.json").read_bytes())
    (checkpoint / "architecture.json").write_text(json.dumps({**record, "edits": []}))
    with pytest.raises(CheckpointError, match=r"architecture\.json"):
        coppice.load_network(checkpoint)


def _campaign(tmp_path: Path) -> Path:
    """A campaign whose file names a network of the user's own; 00000 is exported into it."""
    folder = campaign_folder(tmp_path)
    best = best_trial(folder, "val_accuracy", "max")
    assert best is not None
    lock = json.loads((folder / "campaign.lock.json").read_bytes())
    lock["campaign"]["task"]["network"] = "tests.support.zoo:flatnet"
    (folder / "campaign.lock.json").write_text(json.dumps(lock))
    for one in {"00000", best.id}:
        trial(folder / "trials" / one)
    export(folder / "trials" / "00000", folder / "best", "")
    return folder


INSIDE = (".", "trials/00000", "trials/00000/checkpoints/000004", "best")


@pytest.mark.parametrize("place", INSIDE)
def test_ones_own_campaign_says_what_is_trusted(place: str, tmp_path: Path) -> None:
    assert coppice.load_network(_campaign(tmp_path) / place).factory == "tests.support.zoo:flatnet"


@pytest.mark.parametrize("place", INSIDE)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_somebody_elses_campaign_does_not(place: str, tmp_path: Path) -> None:
    folder = _campaign(tmp_path)
    os.chown(folder / "campaign.lock.json", 65534, 65534)
    with pytest.raises(Untrusted, match="--trust tests"):
        coppice.load_network(folder / place)
    assert coppice.load_network(folder / place, trust=["tests"])


def test_a_record_in_ones_own_campaign_cannot_name_other_code(tmp_path: Path) -> None:
    folder = _campaign(tmp_path)
    path = folder / "best" / "architecture.json"
    record = json.loads(path.read_bytes())
    path.write_text(json.dumps({**record, "factory": {"reference": "tests.support.zoo:os.system", "arguments": {}}}))
    (folder / "best" / "SHA256SUMS").unlink()
    with pytest.raises(Untrusted):
        coppice.load_network(folder / "best")
