"""A trial on two nodes with two GPUs each: four ranks, on a real Slurm, equal to four ranks on this machine."""

import json
import os
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from coppice.orchestrator.campaign import run
from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.folder.events import read_events
from coppice.orchestrator.trial.rank_protocol import NONCE
from tests.orchestrator.trial.test_trial import files
from tests.support.campaigns import driving
from tests.support.slurm.cluster import Cluster
from tests.support.slurm.processes import wait_for
from tests.support.stranger import MARK, REQUIRES_ROOT, as_stranger, readable, writable
from tests.support.waiting import LIMIT_S, until

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def campaign(root: Path, placement: dict[str, Any], **changes: Any) -> Campaign:
    content: dict[str, Any] = {
        "name": "c",
        "root": root,
        "task": {"dataset": "digits", "dataset_args": {"limit_train": 160}, "network": "resnet",
                 "network_args": {"depth": 8, "width": 0.25}},
        "training": {"epochs": 6, "batch_size": 32, "optimizer": {"sgd": {"lr": 0.05, "momentum": 0.9}}, "ema": 0.9},
        "adaptations": [
            {"grow": {"when": {"periodic": {"every": 2}}, "where": "best_gain", "how": "gradmax", "amount": 0.5}},
            {"prune": {"when": {"periodic": {"every": 3}}, "where": "global", "how": "taylor", "amount": 0.2, "minimum": 2}},
        ],
        "search": {"trials": 1, "sampler": "random", "metric": "val_loss", "mode": "min"},
        "resources": {"nodes": 2, "gpus": 2, "cpus_per_gpu": 2},  # as many threads everywhere: others round in another way
        "placement": placement,
    }  # fmt: skip
    return Campaign.model_validate({**content, **changes})


def told(folder: Path) -> list[str]:
    """Metrics and changes; times left aside."""
    kept = [e for e in read_events(folder / "events.jsonl") if e["type"] in ("metrics", "structural")]
    return [json.dumps({k: v for k, v in e.items() if k not in ("seconds", "time")}, sort_keys=True) for e in kept]


JOB = {"job": {"site": "generic", "poll_s": 0.5}}
POOL = {"pool": {"site": "generic", "nodes": 2, "gpus": 2, "cpus": 4, "poll_s": 0.5}}


def trial(placement: dict[str, Any], root: Path) -> Path:
    """The folder of the only trial of a campaign that was run there."""
    spec = campaign(root, placement)
    assert run(spec).state == "finished"
    return spec.root / "c" / "trials" / "t0000"


def test_two_nodes_with_two_gpus_each_grow_and_prune_as_four_ranks_here(machines: Cluster, tmp_path: Path) -> None:
    here = trial({"local": {"cpus": 8, "gpus": 4}}, tmp_path / "local")
    assert {json.loads(line)["kind"] for line in told(here) if '"structural"' in line} == {"grow", "prune"}
    for name, placement in (("job", JOB), ("pool", POOL)):
        there = trial(placement, tmp_path / name)
        assert told(there) == told(here), name
        assert files(there) == files(here), name
    nodes = machines.command("sacct", "-n", "-X", "-P", "-o", "NNodes,JobName").split()
    assert any(line.startswith("2|coppice-c-") for line in nodes), nodes


def test_a_trial_whose_second_node_loses_power_goes_on_from_its_checkpoint(machines: Cluster, tmp_path: Path) -> None:
    spec = campaign(tmp_path / "job", JOB)
    spec = spec.model_copy(update={"training": {**spec.training, "epochs": 12, "ema": None}})
    trial = spec.root / "c" / "trials" / "t0000"
    with driving(spec) as process:
        wait_for("some epochs", lambda: len(told(trial)) > 3, step=0.2)
        used = machines.command("squeue", "-h", "-t", "R", "-o", "%N").strip()
        machines.lose_power(machines.command("scontrol", "show", "hostnames", used).split()[1])
        assert process.wait(LIMIT_S) == 0
    found = [e for e in read_events(trial / "events.jsonl") if e["type"] == "status"]
    states = [e["status"] for e in found]
    assert states[0] == "started" and states[-1] == "finished" and "resumed" in states, found
    epochs = [e["epoch"] for e in read_events(trial / "events.jsonl") if e["type"] == "metrics"]
    assert epochs == list(range(1, 13))


def _on(machines: Cluster, host: str, *words: object) -> Any:
    """What another user on a host of the cluster finds out."""
    command = [sys.executable, "-m", "tests.support.stranger", *map(str, words)]
    return json.loads(machines.on(host, "env", f"PYTHONPATH={ROOT}", *command))


@REQUIRES_ROOT
def test_another_user_neither_ends_nor_changes_a_trial_on_two_nodes(
    machines: Cluster, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They talk to everything that listens for it, on its nodes and from another machine, and try all its files."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)
    resources = {"nodes": 2, "cpus": 1}
    spec = campaign(open_folder / "job", JOB, body="tests.support.bodies:WaitsForTheFile", resources=resources, adaptations=[])
    trial = spec.root / "c" / "trials" / "t0000"
    before = os.umask(0)
    try:
        with driving(spec) as process:
            until(lambda: told(trial), "an epoch", process)
            running = machines.command("squeue", "-h", "-t", "R", "-o", "%N").strip()
            used = machines.command("scontrol", "show", "hostnames", running)
            places = {tuple(place) for host in used.split() for place in _on(machines, host, mark)}
            assert (store := json.loads((trial / "ranks.json").read_bytes()))["port"] in {port for _, port in places}
            assert (store["address"], store["port"]) in places, "it listens where the ranks are, not everywhere"
            said = [a for host in {*used.split(), "ctl"} for a in _on(machines, host, mark, *(w for p in places for w in p))]
            assert {len(answer) for answer in said} <= {0, NONCE}
            folder = str(spec.root / "c")
            assert as_stranger(writable, folder) == []
            assert as_stranger(readable, [str(trial / "ranks.json"), f"{folder}/.ray-token", f"{folder}/.in-use"]) == []
            (trial / "go").touch(0o644)
            assert process.wait(LIMIT_S) == 0
    finally:
        os.umask(before)
    assert [e["status"] for e in read_events(trial / "events.jsonl") if e["type"] == "status"] == ["started", "finished"]
    pickles = list((spec.root / "c" / "jobs").glob("*.pkl"))
    assert pickles and as_stranger(writable, folder) == []
