"""The wheel, installed where there is no checkout: the quickstart, trials as Slurm jobs, and a pool, from its own command."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.support.slurm.cluster import Cluster
from tests.support.waiting import LIMIT_S

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PLACEMENTS = {
    "job": "{job: {site: generic, poll_s: 0.5}}",
    "pool": "{pool: {site: generic, nodes: 2, gpus: 0, cpus: 2, poll_s: 0.5}}",
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an environment in which the wheel is installed, beside the libraries of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    leave = shutil.ignore_patterns(".*", "runs", "build", "dist", "*.egg-info", "__pycache__", "tests")
    shutil.copytree(ROOT, folder / "source", symlinks=True, ignore=leave)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(folder / "source")], check=True, timeout=LIMIT_S)
    (wheel,) = folder.glob("coppice_nn-*.whl")
    venv.create(folder / "env")
    python = folder / "env" / "bin" / "python"
    (packages,) = (folder / "env").glob("lib/python*/site-packages")
    libraries = [p for p in sys.path if p.endswith("site-packages")] or [sysconfig.get_paths()["purelib"]]
    (packages / "libraries.pth").write_text("\n".join(libraries))
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", str(wheel)], check=True, timeout=LIMIT_S)
    shutil.rmtree(folder / "source")
    return python.parent


def run(installed: Path, folder: Path, *arguments: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [str(installed / "coppice"), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def trials(folder: Path) -> list[dict[str, Any]]:
    """What came of each trial, times left aside."""
    rows: list[dict[str, Any]] = pq.read_table(folder / "runs" / "quickstart" / "results" / "trials.parquet").to_pylist()
    return [{k: v for k, v in row.items() if k != "wall_s" and "seconds" not in k and "time" not in k} for row in rows]


@pytest.fixture(scope="module")
def local(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the quickstart, of three trials, was run on this machine."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "c.yaml").write_text(short_quickstart())
    run(installed, folder, "run", "c.yaml")
    return folder


def short_quickstart(placement: str = "local") -> str:
    """The quickstart with three trials, all drawn before any of them has ended, so that it does not matter which ends first."""
    text = (ROOT / "campaigns" / "quickstart.yaml").read_text()
    changes = {r"sampler: \w+": "sampler: random", r"trials: \d+": "trials: 3", r"placement: .*": f"placement: {placement}"}
    for old, new in changes.items():
        assert len(re.findall(old, text)) == 1
        text = re.sub(old, new, text)
    return text


def test_it_is_the_wheel_that_runs(installed: Path, tmp_path: Path) -> None:
    code = "import coppice, coppice.slurm; print(coppice.__file__, coppice.slurm.__file__)"
    told = subprocess.run([installed / "python", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert all(Path(file).is_relative_to(installed.parent) for file in told.split())
    assert run(installed, tmp_path, "--version").startswith("coppice 0.")


def test_the_quickstart_runs(installed: Path, local: Path) -> None:
    rows = trials(local)
    assert len([r for r in rows if r["label"] is None]) == 3 and {r["state"] for r in rows} == {"finished"}
    assert (local / "runs" / "quickstart" / "report.html").exists()
    assert "parameters" in run(installed, local, "best", "runs/quickstart")


@pytest.mark.slurm
@pytest.mark.long
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_same_as_jobs_and_in_a_pool(placement: str, installed: Path, local: Path, slurm: Cluster, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(short_quickstart(PLACEMENTS[placement]))
    run(installed, tmp_path, "run", "c.yaml")
    assert trials(tmp_path) == trials(local)
    assert not slurm.command("squeue", "-h", "-t", "PD,R").strip()
