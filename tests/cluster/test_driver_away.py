"""The short form of benchmarks/kills.py on a Slurm: decisions that fall while no driver lives are taken when one is back."""

import os
from pathlib import Path

import pytest

from tests.support.killing import differences, fingerprint
from tests.support.killing_jobs import away_campaigns
from tests.support.slurm.cluster import Cluster


@pytest.mark.slurm
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_driver_that_was_away_stops_what_it_would_have_stopped(slurm: Cluster, tmp_path: Path) -> None:
    ((killed, whole, count),) = away_campaigns(tmp_path, 2, 0, dict(os.environ))
    assert count == 2
    assert not killed.hung
    assert differences(fingerprint(whole), fingerprint(killed.folder)) == []
    assert "stopped" in {trial["state"] for trial in fingerprint(whole).values()}
