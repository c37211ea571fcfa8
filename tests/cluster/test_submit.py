"""The campaign itself as a job: handed in from the login node, handed over before its time is up, nothing lost."""

import subprocess
import sys
from pathlib import Path

import pytest

from coppice.orchestrator.campaign import load_spec
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.slurm.script import driver_script
from coppice.slurm.site import SiteError, load_site
from tests.cluster.test_job_placement import same_but_for_jobs, wait_for_epochs
from tests.support.slurm.cluster import Cluster
from tests.support.slurm.processes import wait_for
from tests.support.waiting import LIMIT_S

FILE = """
name: "{name}"
root: {root}
task: {{dataset: digits, network: "tests.support.bodies:anything", network_args: {{x: {{uniform: [0, 1]}}, sleep_s: {sleep}}}}}
training: {{epochs: 10}}
search: {{trials: 4, sampler: random}}
body: tests.support.bodies:Quadratic
placement: {{job: {{site: generic, poll_s: 0.5}}}}
"""


def coppice(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "coppice", *arguments], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


@pytest.mark.slurm
@pytest.mark.slow
def test_a_submitted_campaign_is_handed_over_and_finishes(slurm: Cluster, tmp_path: Path) -> None:
    root = tmp_path / "a folder's $(touch owned) 100%"
    root.mkdir()
    (tmp_path / "c.yaml").write_text(FILE.format(name="handed", root=f'"{root}"', sleep=1.5))
    done = coppice("submit", str(tmp_path / "c.yaml"), "--site", "generic", "--hours", "1")
    assert done.returncode == 0, done.stderr
    job = done.stderr.split(" is job ")[1].split(";")[0]
    folder = CampaignFolder(root / "handed")
    spec = load_spec(folder).model_copy(update={"root": root})
    wait_for("trials", lambda: folder.trials_path.is_dir() and len(folder.trials()) == 4)
    wait_for_epochs(spec, 4, 2)
    slurm.command("scancel", "--batch", "--signal=USR1", job)
    wait_for("the first driver to end", lambda: slurm.command("squeue", "-h", "-j", job, "-t", "R", check=False) == "")
    wait_for("the end of the campaign", lambda: (folder.results / "trials.parquet").exists() and not _jobs(slurm))
    same_but_for_jobs(spec, tmp_path / "local")
    account = slurm.command("sacct", "-n", "-X", "-P", "-o", "JobName,State,ExitCode")
    drivers = [line.split("|")[1:] for line in account.splitlines() if line.startswith("coppice-driver-handed")]
    assert [d[1] for d in drivers] == ["75:0", "0:0"] or wait_for("the accounts", lambda: _exits(slurm) == ["75:0", "0:0"])
    assert not (tmp_path / "owned").exists() and not Path("owned").exists()


def _jobs(slurm: Cluster) -> str:
    return slurm.command("squeue", "-h", "-t", "PD,R,CG", "-o", "%j").strip()


def _exits(slurm: Cluster) -> list[str]:
    lines = slurm.command("sacct", "-n", "-X", "-P", "-o", "JobName,ExitCode").splitlines()
    return [line.split("|")[1] for line in lines if line.startswith("coppice-driver-handed")]


def test_values_never_reach_a_shell_unquoted(tmp_path: Path) -> None:
    site = load_site("generic")
    nasty = "a'b\"c;$(touch owned)`id` &|>x"
    command = [sys.executable, "-c", "import sys; print(sys.argv)", nasty]
    text = driver_script(site, {"account": nasty}, nasty, tmp_path / nasty, command)
    (tmp_path / "s.sh").write_text(text)
    printed = subprocess.run(["bash", str(tmp_path / "s.sh")], capture_output=True, text=True, cwd=tmp_path, check=True).stdout
    assert printed.strip() == str(["-c", nasty]) and not (tmp_path / "owned").exists()
    for bad in ("two\nlines", "two\rlines", "nu\0ll"):
        with pytest.raises(SiteError, match="must be one line"):
            driver_script(site, {}, bad, tmp_path / "log", ["true"])


def test_bad_sites_are_said_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(FILE.format(name="c", root=tmp_path / "runs", sleep=0))
    done = coppice("submit", str(tmp_path / "c.yaml"), "--site", "nowhere")
    assert done.returncode == 2 and "site must be one of" in done.stderr and not (tmp_path / "runs").exists()
    done = coppice("submit", str(tmp_path / "c.yaml"), "--site", "lichtenberg2", "--hours", "2")
    assert done.returncode == 2 and "wants an account" in done.stderr and not (tmp_path / "runs").exists()
