"""`load_network`: the same network from whatever folder holds it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import coppice
from coppice.orchestrator.folder.checkpoint import CheckpointError
from coppice.orchestrator.report.export import export
from coppice.orchestrator.report.results import best_trial
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
    network = coppice.load_network(PLACES[place](tmp_path / "t0000"), example_inputs=(torch.zeros(2, *INPUT),))
    for name, tensor in network.module.named_parameters():
        assert tensor.equal(kept.module.get_parameter(name) * 0.5), "the average is what was evaluated"
    assert [e.size for e in network.elements() if e.name == "conv1.weight:0"] == [11]


def test_from_a_campaign_it_is_the_best_trial(tmp_path: Path) -> None:
    folder = campaign_folder(tmp_path)
    best = best_trial(folder, "val_accuracy", "max")
    assert best is not None
    kept = trial(folder / "trials" / best.id)
    network = coppice.load_network(str(folder))
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
