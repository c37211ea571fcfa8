"""The commands of the page about clusters, in its order, on a real Slurm, with a small site and a small campaign in place."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coppice.orchestrator.folder.dashboard_address import read_address
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.operations.status import status
from tests.docs.pages import ROOT, commands
from tests.support.slurm.cluster import Cluster
from tests.support.slurm.processes import wait_for
from tests.support.waiting import LIMIT_S

pytestmark = [pytest.mark.slurm, pytest.mark.long]
CAMPAIGN = """
name: cluster
root: {root}
task:
  dataset: digits
  network: tests.support.bodies:anything
  network_args: {{x: 0.5, sleep_s: 0.5, fail: {{choice: [0, 3]}}}}
training: {{epochs: 8}}
search: {{trials: 2, sampler: grid}}
body: tests.support.bodies:Quadratic
placement: {{job: {{poll_s: 0.5}}}}
"""
PAGE = ROOT / "docs" / "cluster.md"
FAILING = "t0001"
"""The trial that the campaign makes fail in its third epoch."""


def on_the_page(command: str) -> list[str]:
    """Its lines that begin with `coppice command`, for the test cluster."""
    lines = [line for line in commands(PAGE) if line.split()[:2] == ["coppice", command]]
    assert lines, f"the page must show coppice {command}"
    return [line.replace("lichtenberg2 --account PROJECT", "generic").replace("t0007", FAILING) for line in lines]


def run(command: str, folder: Path, campaign: Path, expected: tuple[int, ...] = (0,)) -> str:
    text = ""
    for line in on_the_page(command):
        words = [str(campaign) if word == "FOLDER" else word for word in line.split()[1:]]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        start = [sys.executable, "-P", "-m", "coppice"]
        done = subprocess.run(
            [*start, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        assert done.returncode in expected, f"{line}\n{done.stdout}{done.stderr}"
        text += done.stdout + done.stderr
    return text


def test_the_page_can_be_followed(slurm: Cluster, tmp_path: Path) -> None:
    (tmp_path / "cifar10.yaml").write_text(CAMPAIGN.format(root=tmp_path / "runs"))
    folder = CampaignFolder(tmp_path / "runs" / "cluster")
    assert "node: " in run("doctor", tmp_path, folder.path, (0, 1))  # the test cluster lacks what a site has: 1 says so
    assert "#SBATCH" in run("plan", tmp_path, folder.path) and not folder.path.exists()
    assert "is job" in run("submit", tmp_path, folder.path)
    wait_for("the driver's Ray", lambda: folder.path.exists() and read_address(folder) is not None)
    assert "ssh" in run("dashboard", tmp_path, folder.path)
    ended = ("finished", "failed")
    wait_for("the trials", lambda: len(s := status(folder.path)) == 2 and all(t.state in ended for t in s))
    wait_for("the end of the jobs", lambda: not slurm.command("squeue", "-h", "-t", "PD,R,CG").strip())
    assert FAILING in run("status", tmp_path, folder.path)
    assert "this trial was told to fail" in run("logs", tmp_path, folder.path)
    assert "core-h" in run("top", tmp_path, folder.path)
    assert "report.html" in run("report", tmp_path, folder.path)
    assert FAILING in run("retry", tmp_path, folder.path)
    assert {t.id: t.state for t in status(folder.path)}[FAILING] != "failed"
