"""Campaigns of the version that imported `methods` and `orchestrator` go on: their files are read, what they name is found."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coppice.orchestrator.folder import checkpoint as checkpoints
from coppice.orchestrator.folder.events import read_events
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.lock import load_spec
from coppice.orchestrator.report.networks import load_network
from tests.support.waiting import LIMIT_S

FILE = """
name: old
task: {dataset: digits, dataset_args: {limit_train: 100}, network: resnet, network_args: {depth: 8, width: 0.25}}
training: {epochs: 4, batch_size: 50, optimizer: {sgd: {lr: 0.05, momentum: 0.9}}}
adaptations:
  - grow: {when: {periodic: {every: 1}}, how: gradmax, amount: 0.25, limit: {width: 3}}
search: {trials: 2, sampler: random}
"""


def coppice(folder: Path, *arguments: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-P", "-m", "coppice", *arguments]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, timeout=LIMIT_S)


def made_old(folder: CampaignFolder) -> None:
    """Write the folder as the earlier version did."""
    lock = json.loads(folder.lock.read_bytes())
    del lock["format"]
    lock["campaign"]["body"] = "orchestrator.trial:Trial"
    folder.lock.write_text(json.dumps(lock))
    for trial in folder.trials():
        for path in checkpoints.available(trial.checkpoints):
            saved = checkpoints.read(path)
            factory = {**saved.architecture["factory"], "reference": "methods.networks.resnet:resnet"}
            old = {**saved.architecture, "format": "coppice-architecture/1", "factory": factory}
            again = checkpoints.Checkpoint(old, saved.tensors, saved.optimizer, saved.state)
            checkpoints.write(trial.checkpoints, int(path.name), again)


def numbers(folder: CampaignFolder) -> list[list[tuple[Any, ...]]]:
    keys = ("epoch", "train_loss", "val_loss", "val_accuracy", "parameters", "compute")
    return [[tuple(e[k] for k in keys) for e in read_events(t.events) if e["type"] == "metrics"] for t in folder.trials()]


@pytest.mark.slow
def test_it_is_resumed_and_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(FILE)
    coppice(tmp_path, "run", "c.yaml")
    whole, half = CampaignFolder(tmp_path / "runs" / "old"), CampaignFolder(tmp_path / "half" / "old")
    half.path.parent.mkdir()
    shutil.copytree(whole.path, half.path)
    made_old(half)
    last = half.trials()[1]
    shutil.rmtree(checkpoints.available(last.checkpoints)[-1])
    kept = [e for e in read_events(last.events) if e["type"] != "status" or e["status"] == "started"]
    last.events.write_text("".join(json.dumps(e) + "\n" for e in kept))
    assert load_spec(half).body == "coppice.orchestrator.trial.trial:Trial"
    network = load_network(last.path)
    assert network.factory == "coppice.methods.networks.resnet:resnet"
    coppice(tmp_path, "resume", "half/old")
    assert numbers(half) == numbers(whole)
    newest = [checkpoints.available(f.trials()[1].checkpoints)[-1] for f in (half, whole)]
    assert (newest[0] / "model.safetensors").read_bytes() == (newest[1] / "model.safetensors").read_bytes()
    assert json.loads((newest[0] / "architecture.json").read_bytes())["format"] == "coppice-architecture/2"
