"""`coppice doctor` where there is no Slurm: software, folder, expiry; what differs between two machines."""

import json
import os
import shlex
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from coppice.orchestrator.cli.commands import app
from coppice.orchestrator.doctor import machine
from coppice.orchestrator.doctor.cluster import minutes
from coppice.orchestrator.doctor.folder import check_folder, paths, quotas
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.slurm.site import Scratch
from tests.support.campaigns import campaign
from tests.support.folders import create

QUOTAS = """Disk quotas for user ada (uid 1000):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
/work/scratch 9600000000* 10000000000 11000000000 - 1990000 2000000 2100000 -
nas:/home/ada  1000  0  0  -  10  0  0  -
"""


@pytest.fixture(autouse=True)
def _no_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def doctor(*arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    done = CliRunner().invoke(app, ["doctor", *arguments, "--json"], catch_exceptions=False)
    return done.exit_code, {f["check"]: f for f in json.loads(done.stdout)}


def test_this_machine_is_fit_and_says_with_what(tmp_path: Path) -> None:
    code, found = doctor("--root", str(tmp_path))
    assert code == 0 and "slurm" not in found
    assert {f["level"] for c, f in found.items() if c in ("python", "folder", "ports", "paths")} == {"ok"}
    assert "ray 2.6" in found["python"]["found"] and "40 ports" in found["ports"]["found"]


def test_no_slurm_is_a_problem_where_a_site_is_named(tmp_path: Path) -> None:
    code, found = doctor("--root", str(tmp_path), "--site", "lichtenberg2")
    assert code == 1 and "sbatch, squeue" in found["slurm"]["found"] and "login node" in found["slurm"]["advice"]
    assert found["job of a trial"]["level"] == "problem" and "wants an account" in found["job of a trial"]["found"]
    assert found["expiry"]["level"] == "ok" and "2,000,000 allowed" in found["number of files"]["found"]
    code, found = doctor("--root", str(tmp_path), "--site", "lichtenberg2", "--account", "p1")
    assert found["job of a trial"]["level"] == "ok" and "--account=p1" in found["job of a trial"]["found"]


@pytest.mark.parametrize(
    ("days", "level", "words"),
    [
        (10, "ok", "the oldest was written 10 days ago"),
        (52, "warning", "1 expire within 7 days"),
        (60, "problem", "1 may be deleted at any time"),
    ],
)
def test_files_that_expire_are_told_in_time(tmp_path: Path, days: int, level: str, words: str) -> None:
    root = tmp_path / "it's a root"
    (root / "deep").mkdir(parents=True)
    (root / "deep" / "old").write_text("x")
    then = time.time() - days * 86400
    os.utime(root / "deep" / "old", (then, then))
    found = next(f for f in check_folder(root, Scratch(days=56)) if f.check == "expiry")
    assert (found.level, words in found.found) == (level, True), found
    assert level == "ok" or shlex.quote(str(root)) in found.advice


def test_a_folder_that_cannot_be_written_and_paths_that_are_too_long(tmp_path: Path) -> None:
    found = {f.check: f for f in check_folder(Path("/proc"), Scratch())}
    assert found["folder"].level == "problem" and "/proc cannot be written" in found["folder"].found
    assert paths(tmp_path / ("x" * 200)).level == "warning" and paths(Path("/scratch/ada")).level == "ok"


def test_quotas_are_read_as_both_commands_print_them() -> None:
    assert list(quotas(QUOTAS)) == [("/work/scratch", 9600.0, 10000.0, "GB"), ("/work/scratch", 1990000.0, 2000000.0, "files")]
    assert list(quotas("quota: error while getting quota")) == []


def test_a_node_with_another_environment_is_a_problem() -> None:
    here = machine.described()
    assert machine.compared(here, here).level == "ok"
    there = {**here, "versions": {**here["versions"], "torch": "2.0.0"}, "python": "3.10.1"}
    found = machine.compared(here, there)
    assert found.level == "problem" and "2.0.0 there" in found.found and "3.10.1 there" in found.found
    assert [f.level for f in machine.check_machine(here, 99) if f.check == "gpus"] == ["problem"]
    broken = {**here, "torch": {"gpus": [], "error": "OSError: libcuda"}, "ports": 3, "disk": {**here["disk"], "error": "full"}}
    assert [f.check for f in machine.check_machine(broken, 0) if f.level == "problem"] == ["gpus", "ports", "local disk"]
    half = {**here, "imports": {"ray": "ImportError: no raylet"}}
    assert [f.check for f in machine.check_machine(half, 0, "node: ") if f.level == "problem"] == ["node: ray"]
    lacking = {**here, "versions": {k: v for k, v in here["versions"].items() if k != "submitit"}}
    assert machine.check_machine(lacking, 0)[0].level == "problem" and "submitit" in machine.check_machine(lacking, 0)[0].found


def test_a_campaign_of_another_environment_is_told(tmp_path: Path) -> None:
    folder = CampaignFolder(tmp_path / "c")
    create(folder, campaign(tmp_path))
    code, found = doctor(str(folder.path))
    assert code == 0 and found["versions"]["level"] == "ok"
    content = json.loads(folder.lock.read_text())
    folder.lock.write_text(json.dumps({**content, "versions": {**content["versions"], "torch": "2.0.0"}}))
    code, found = doctor(str(folder.path))
    assert code == 0 and found["versions"]["level"] == "warning" and "torch 2.0.0 then" in found["versions"]["found"]


def test_an_unset_variable_of_the_site_file_is_told() -> None:
    found = machine.described("$COPPICE_NOWHERE")["disk"]
    assert "is not set" in found["error"]


def test_limits_of_partitions() -> None:
    assert [minutes(t) for t in ("1-00:00:00", "30:00", "7-12:30:00", "infinite")] == [1440, 30, 10830, None]


def test_a_report_for_people(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "--root", str(tmp_path), "--site", "lichtenberg2"], catch_exceptions=False)
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert any(line.startswith("problem  slurm") for line in lines) and any(
        line.lstrip().startswith("-> go to a login") for line in lines
    )
    assert lines[-1].endswith("warnings.")
