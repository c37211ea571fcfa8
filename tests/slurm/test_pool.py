"""Campaigns whose trials run in a Ray of Slurm nodes: the same results as on this machine, whatever happens to the nodes."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.campaign import run
from orchestrator.config import CampaignSpec
from tests.orchestrator.campaign_support import campaign
from tests.slurm.test_job_placement import same_but_for_jobs
from tests.support.slurm.cluster import Cluster
from tests.support.slurm.processes import remove_tree

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
POOL = {"pool": {"site": "generic", "nodes": 2, "gpus": 0, "cpus": 3, "poll_s": 0.5}}


@pytest.fixture
def short_tmp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where Ray's temporary folders go: a node that loses power leaves its own."""
    folder = Path(tempfile.mkdtemp(prefix="pool-", dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    remove_tree(folder)


def in_pool(spec: CampaignSpec, **pool: Any) -> CampaignSpec:
    return CampaignSpec.model_validate({**spec.model_dump(by_alias=True), "placement": {"pool": {**POOL["pool"], **pool}}})


def test_a_campaign_in_a_pool_has_the_results_of_a_local_one(slurm: Cluster, short_tmp: Path, tmp_path: Path) -> None:
    spec = in_pool(campaign(tmp_path / "pool", search={"trials": 12, "sampler": "random"}))
    assert run(spec).state == "finished"
    same_but_for_jobs(spec, tmp_path / "local")
    assert not slurm.command("squeue", "-h", "-t", "PD,R").strip()
    assert not list(short_tmp.glob("coppice-*/*"))
