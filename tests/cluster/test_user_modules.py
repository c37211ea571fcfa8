"""A user's own modules are found in Slurm jobs, and hide nothing that is installed."""

from pathlib import Path

import pytest

from tests.support.slurm.cluster import Cluster
from tests.support.user_folder import coppice, finished_and_widened, write_user_folder


@pytest.mark.slurm
@pytest.mark.slow
def test_jobs_take_them_for_the_users(slurm: Cluster, tmp_path: Path) -> None:
    done = coppice(write_user_folder(tmp_path, placement={"job": {"site": "generic", "poll_s": 0.5}}), "run", "a.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert finished_and_widened(tmp_path) == ["t0000", "t0001"]
