"""Campaigns whose trials are Slurm jobs, on a real Slurm: the same results as on this machine, whatever happens to the jobs."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.campaign import run
from orchestrator.campaign.ledger import Entry, Ledger
from orchestrator.config import CampaignSpec
from orchestrator.store import CampaignFolder
from tests.orchestrator.campaign_support import campaign
from tests.support.slurm.cluster import Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
JOB = {"job": {"site": "generic", "poll_s": 0.5}}


def entries(spec: CampaignSpec) -> list[Entry]:
    return Ledger(CampaignFolder(spec.root / spec.name)).entries()


def told(spec: CampaignSpec) -> list[tuple[Any, ...]]:
    """What was tried and what came of it; times left aside."""
    rows = [[{k: v for k, v in r.items() if k not in ("seconds", "time")} for r in e.reports] for e in entries(spec)]
    return [(e.id, json.dumps(e.spec, sort_keys=True), e.state, r) for e, r in zip(entries(spec), rows, strict=True)]


def test_a_campaign_of_jobs_has_the_results_of_a_local_one(slurm: Cluster, tmp_path: Path) -> None:
    made = {n: campaign(tmp_path / n, search={"trials": 6, "sampler": "random"}) for n in ("local", "jobs")}
    jobs = made["jobs"].model_copy(update={"placement": CampaignSpec.model_validate(
        {**made["jobs"].model_dump(by_alias=True), "placement": JOB}).placement})  # fmt: skip
    assert run(jobs).state == "finished"
    assert run(made["local"]).state == "finished"
    assert told(jobs) == told(made["local"]) and {e.state for e in entries(jobs)} == {"finished"}
    assert not slurm.command("squeue", "-h", "-t", "PD,R").strip()
