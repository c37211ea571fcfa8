"""What people and programs have written is shown as it is, in every encoding; results are results, whatever else is printed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from coppice.orchestrator.cli import output
from coppice.orchestrator.cli.output import console, plain_table
from tests.support.folders import campaign_folder
from tests.support.waiting import LIMIT_S

ROOT = Path(__file__).parents[3]
TEXTS = ["net.py:100: shape", "x:key:y and cuda:0:ok:", "[red]", "[/] closes nothing", "\\[bold]", "a [link=x]b", "3:35 → 4"]
PRINTS = """
import atexit, os
import torch
print("imported")
os.write(1, b"from C\\n")
atexit.register(print, "unloaded")

def build(width=8):
    print("called")
    os.system("echo from a program")
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, 10))
"""
CAMPAIGN = "{name: a, task: {dataset: digits, network: 'nets:build'}, training: {epochs: 1}, search: {sampler: random}}\n"


def coppice(folder: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "coppice", *map(str, arguments)]
    known = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, cwd=folder, env=known, capture_output=True, text=True, timeout=LIMIT_S, check=False)


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = campaign_folder(tmp_path_factory.mktemp("failed"))
    reason = " | ".join(TEXTS)
    event = {"type": "status", "trial": "t0000", "time": 1.0, "epoch": 9, "step": 9, "status": "failed", "error": reason}
    with open(folder / "trials" / "t0000" / "events.jsonl", "a") as file:
        file.write(json.dumps({**event, "traceback": reason}) + "\n")
    return folder


@pytest.mark.parametrize("arguments", [("logs", "t0000"), ("status",)])
def test_a_reason_is_shown_as_it_is(failed: Path, arguments: tuple[str, ...]) -> None:
    done = coppice(failed, arguments[0], failed, *arguments[1:], PYTHONIOENCODING="utf-8")
    assert done.returncode == 0, done.stderr
    shown = re.sub(r"\s+", " ", done.stdout)
    assert all(" ".join(text.split()[:1]) in shown for text in TEXTS), done.stdout
    if arguments[0] == "logs":
        assert " | ".join(TEXTS) in shown


def test_events_as_json_are_those_of_the_file(failed: Path) -> None:
    done = coppice(failed, "logs", failed, "t0000", "--json")
    lines = (failed / "trials" / "t0000" / "events.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in done.stdout.splitlines()] == [json.loads(line) for line in lines]


@pytest.mark.parametrize("command", ["logs", "status"])
def test_what_the_encoding_lacks_is_written_as_its_code(failed: Path, command: str) -> None:
    done = coppice(failed, command, failed, *(["t0000"] if command == "logs" else []), PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and done.stdout.isascii() and "\\u2192" in done.stdout, done.stderr


@pytest.mark.parametrize("text", TEXTS)
def test_cells_and_heads_of_tables_are_text(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = console()
    out.width = 200
    out.print(plain_table([text], [[text]]))
    out.print(text, soft_wrap=True)
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [text] * 3


def test_only_one_module_makes_consoles() -> None:
    makes = re.compile(r"Console\(|from rich import|rich\.print")
    made = {p.name for p in (ROOT / "orchestrator").rglob("*.py") if makes.search(p.read_text())}
    assert made == {Path(output.__file__).name}


def test_json_is_json_whatever_own_code_prints(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(PRINTS)
    (tmp_path / "a.yaml").write_text(CAMPAIGN)
    done = coppice(tmp_path, "plan", "a.yaml", "--samples", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "a"
    assert {"imported", "from C", "called", "from a program", "unloaded"} <= set(done.stderr.splitlines())
    shown = coppice(tmp_path, "plan", "a.yaml", "--samples", "1")
    assert "imported" in shown.stdout and "Nothing was started" in shown.stdout
