"""Campaigns whose trials run in a Ray of Slurm nodes: the same results as on this machine, whatever happens to the nodes."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coppice.orchestrator.campaign import run
from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.config.placement import LocalPlacement
from coppice.orchestrator.folder.events import read_events
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.slurm.broker.journal import Journal
from tests.cluster.test_job_placement import entries, same_but_for_jobs, wait_for_epochs
from tests.support.campaigns import campaign, driving
from tests.support.slurm.cluster import Cluster
from tests.support.slurm.processes import remove_tree, wait_for
from tests.support.waiting import LIMIT_S

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
POOL = {"pool": {"site": "generic", "nodes": 2, "gpus": 0, "cpus": 2, "poll_s": 0.5}}
QUICK = {"period_ms": "1000", "timeout_ms": "2000", "failure_threshold": "3"}
"""How soon Ray gives up a node that has fallen silent."""


@pytest.fixture
def short_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where Ray's temporary folders go: a node that loses power leaves its own."""
    folder = Path(tempfile.mkdtemp(prefix="pool-", dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    for name, value in QUICK.items():
        monkeypatch.setenv(f"RAY_health_check_{name}", value)
    yield folder
    remove_tree(folder)


def in_pool(spec: Campaign, **pool: Any) -> Campaign:
    return Campaign.model_validate({**spec.model_dump(by_alias=True), "placement": {"pool": {**POOL["pool"], **pool}}})


def job_of(spec: Campaign, key: str) -> str:
    return Journal(spec.root / spec.name / "jobs" / "pool" / "1" / "journal.jsonl").attempts()[key][-1].job


def left_behind(spec: Campaign) -> list[str]:
    """Processes that know the campaign's secret: the head, the nodes, their workers."""
    known = f"RAY_AUTH_TOKEN_PATH={CampaignFolder(spec.root / spec.name).ray_token}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and known in (entry / "environ").read_bytes().split(b"\0"):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def nothing_is_left(slurm: Cluster, spec: Campaign) -> bool:
    return not slurm.command("squeue", "-h", "-t", "PD,R,CG").strip() and not left_behind(spec)


def test_a_campaign_in_a_pool_has_the_results_of_a_local_one(slurm: Cluster, short_tmp: Path, tmp_path: Path) -> None:
    """Meanwhile a node is told that its time is up: its trials finish their epochs and go on elsewhere."""
    arguments = {"x": {"uniform": [0, 1]}, "sleep_s": 0.5}
    spec = campaign(tmp_path / "pool", arguments, training={"epochs": 9}, search={"trials": 12, "sampler": "random"})
    spec = in_pool(spec)
    with driving(spec) as process:
        wait_for("the head", lambda: left_behind(spec))
        wait_for_epochs(spec, 3, 1)
        slurm.command("scancel", "--signal=USR2", job_of(spec, "node0"))
        assert process.wait(LIMIT_S) == 0
    assert nothing_is_left(slurm, spec) and not list(short_tmp.glob("coppice*"))
    told = (spec.root / spec.name / "jobs" / "pool" / "1" / "node0.1.0.leave").stat().st_mtime
    moved = ended = 0
    for trial in CampaignFolder(spec.root / spec.name).trials():
        events = read_events(trial.events)
        for again in (e["time"] for e in events if e.get("status") == "resumed"):
            moved += 1
            ended += any(told < e["time"] < again for e in events if e["type"] == "metrics")
    assert moved and ended, "a trial that is told between two epochs has none to end, but they are not all"
    same_but_for_jobs(spec, tmp_path / "local")


def test_nothing_is_lost_whatever_happens_to_the_nodes(machines: Cluster, short_tmp: Path, tmp_path: Path) -> None:
    """A node loses power, the job of the other one is cancelled by hand, then the driver is killed; all in one campaign."""
    arguments = {"x": {"uniform": [0, 1]}, "sleep_s": 0.8}
    spec = campaign(
        tmp_path / "pool", arguments, training={"epochs": 8}, search={"trials": 6, "sampler": "random"},
        resources={"gpus": 1, "cpus": 2},
    )  # fmt: skip
    spec = in_pool(spec, gpus=3, cpus=5)  # nodes have four GPUs: those of the pool are different ones
    with driving(spec) as process:
        wait_for_epochs(spec, 4, 2)
        node = machines.command("squeue", "-h", "-j", job_of(spec, "node0"), "-o", "%N").strip()
        machines.command("scancel", job_of(spec, "node1"))
        machines.lose_power(node)
        before = {e.id: len(e.reports) for e in entries(spec)}
        wait_for("a trial to go on", lambda: any(len(e.reports) > before[e.id] + 1 for e in entries(spec)), step=0.2)
        process.kill()
    assert machines.command("squeue", "-h", "-t", "PD,R").strip()
    assert run(spec, resume=True).state == "finished"
    assert nothing_is_left(machines, spec)
    same_but_for_jobs(spec.model_copy(update={"resources": spec.resources.model_copy(update={"gpus": 0})}), tmp_path / "local")


def test_a_trial_may_take_several_nodes_of_the_pool(machines: Cluster, short_tmp: Path, tmp_path: Path) -> None:
    spec = campaign(
        tmp_path / "pool", {"hidden": [8]}, training={"epochs": 2, "device": "cpu"}, search={"trials": 1},
        body="coppice.orchestrator.trial.trial:Trial", resources={"gpus": 1, "nodes": 2},
    )  # fmt: skip
    spec = in_pool(spec, gpus=1, cpus=9)  # nodes have 16 cores: those of the pool are different ones
    assert run(spec).state == "finished"
    assert nothing_is_left(machines, spec) and job_of(spec, "node1")
    local = LocalPlacement(gpus=2, cpus=2)
    assert run(spec.model_copy(update={"root": tmp_path / "local", "placement": local})).state == "finished"
    assert values(spec) == values(spec.model_copy(update={"root": tmp_path / "local"}))


def values(spec: Campaign) -> list[list[float]]:
    return [[report["val_loss"] for report in entry.reports] for entry in entries(spec)]
