"""`plan`, `run`, Ctrl-C, `resume`, `best`: real campaigns in real processes, and their exit codes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coppice.orchestrator.cli.commands import app
from coppice.orchestrator.operations.status import status
from tests.support.waiting import LIMIT_S, until

CAMPAIGN = """
name: small
task: {dataset: digits, dataset_args: {limit_train: 200}, network: resnet, network_args: {depth: 8, width: 0.25}}
training: {epochs: EPOCHS, batch_size: 50, optimizer: {sgd: {lr: {choice: [LRS]}, momentum: 0.9}}}
adaptations:
  - grow: {when: {periodic: {every: 2}}, where: all, how: {choice: [random, net2wider]}, amount: 0.25, limit: {width: 2}}
search: {sampler: random, trials: 2}
resources: {cpus: 1}
"""


def write(folder: Path, epochs: int = 3, lrs: str = "0.05") -> Path:
    file = folder / "small.yaml"
    file.write_text(CAMPAIGN.replace("EPOCHS", str(epochs)).replace("LRS", lrs))
    return file


def start(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    root = str(Path(__file__).parents[3])
    command = [sys.executable, "-m", "coppice", *(str(a) for a in arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def coppice(folder: Path, *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=LIMIT_S)
    return process.returncode, out, err


def test_plan_shows_what_would_run_and_starts_nothing(tmp_path: Path) -> None:
    code, out, err = coppice(tmp_path, "plan", write(tmp_path))
    assert code == 0, err
    assert "adaptations/0/grow/how = " in out and "Nothing was started" in out
    assert not (tmp_path / "runs").exists()
    done = CliRunner().invoke(app, ["plan", str(tmp_path / "small.yaml"), "--json", "--samples", "1"], catch_exceptions=False)
    found = json.loads(done.stdout)
    assert (found["trials"], len(found["sampled"])) == (2, 1)
    assert found["compute"] > found["sampled"][0]["flops"] > found["sampled"][0]["parameters"] > 0


def test_a_wrong_file_names_every_problem_with_its_line(tmp_path: Path) -> None:
    file = write(tmp_path)
    file.write_text(file.read_text().replace("net2wider", "net3wider").replace("trials: 2", "trails: 2"))
    code, out, err = coppice(tmp_path, "run", file)
    assert (code, out) == (2, "")
    assert "line 6" in err and "net3wider" in err
    assert "line 7" in err and "trails" in err
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_run_ends_with_a_table_a_report_and_the_best_network(tmp_path: Path) -> None:
    file = write(tmp_path)
    code, out, err = coppice(tmp_path, "run", file)
    assert code == 0, err
    folder = tmp_path / "runs" / "small"
    assert "2 trials: 2 finished; best " in out
    assert f"Report:       {folder / 'report.html'}" in out and f"Best network: {folder / 'best'}" in out
    assert {p.name for p in (folder / "best").iterdir()} == {"architecture.json", "model.safetensors", "README.md", "SHA256SUMS"}
    assert err.count(" finished after epoch 3, val_accuracy ") == 2
    code, out, err = coppice(tmp_path, "run", file)
    assert code == 2 and "coppice resume" in err and "Traceback" not in err, err
    code, out, err = coppice(tmp_path, "best", folder, "--torch-export", "--out", "exported", "--json")
    assert code == 0 and "model.pt2" in json.loads(out)["files"], err
    assert (tmp_path / "exported" / "model.pt2").stat().st_size > 0


@pytest.mark.slow
def test_ctrl_c_says_how_to_resume_and_resume_finishes(tmp_path: Path) -> None:
    file = write(tmp_path)
    file.write_text(f"{file.read_text()}body: tests.support.bodies:WaitsForTheFile\n")
    process = start(tmp_path, "run", file)
    folder = tmp_path / "runs" / "small"
    until(lambda: (folder / "campaign.lock.json").exists() and any(t.epoch for t in status(folder)), "an epoch", process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 3, err
    assert "Go on with: coppice resume runs/small" in err and "Traceback" not in err
    assert any(t.state == "interrupted" for t in status(folder))
    for trial in ("t0000", "t0001"):
        (folder / "trials" / trial).mkdir(exist_ok=True)
        (folder / "trials" / trial / "go").touch()
    code, out, err = coppice(tmp_path, "resume", "runs/small", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [(t["state"], t["epoch"]) for t in found["trials"]] == [("finished", 3)] * 2


@pytest.mark.slow
def test_failed_trials_are_exit_code_1_and_keep_their_reason(tmp_path: Path) -> None:
    code, out, err = coppice(tmp_path, "run", write(tmp_path, lrs="1.0e+5"), "--new")
    assert code == 1, err
    assert "2 of 2 trials failed; why: coppice status runs/small" in err
    assert "failed" in out and "the training loss must stay finite" in out
    assert "Best network" not in out
    assert "What went wrong" in (tmp_path / "runs" / "small" / "report.html").read_text()


@pytest.mark.slow
def test_a_body_that_keeps_its_own_checkpoints_ends_well_and_says_that_no_network_was_copied(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        'name: own\ntask: {dataset: digits, network: "tests.support.chained:anything", network_args: {x: {uniform: [0, 1]}}}\n'
        "training: {epochs: 2}\nbody: tests.support.chained:Chained\nsearch: {trials: 1}\n"
    )
    code, out, err = coppice(tmp_path, "run", "own.yaml")
    assert code == 0, err
    assert "1 trial: 1 finished" in out and "Best network: none was copied out" in out
