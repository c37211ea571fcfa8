"""`status`, `logs`, `report`: what they print for a folder as campaigns leave it."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coppice.orchestrator.cli.commands import app
from tests.support.folders import campaign_folder

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return campaign_folder(tmp_path_factory.mktemp("campaign"))


def output(*arguments: object) -> str:
    done = RUNNER.invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_status_is_a_table_with_one_line_a_trial(folder: Path) -> None:
    lines = output("status", folder).splitlines()
    assert re.split(r"  +", lines[0].strip()) == [
        "trial", "state", "epoch", "val_accuracy", "best so far", "parameters", "FLOPs", "last event", "reason"]
    rows = {line.split()[0]: line for line in lines[1:15]}
    assert len(rows) == 14
    assert re.search(r"t0000 +finished +12/12 +9\d\.\d\d % +9\d\.\d\d % +[\d,]+ +[\d.]+M", rows["t0000"])
    assert re.search(r"t0003 +failed +3/12 .*NonFiniteLoss", rows["t0003"])
    assert "interrupted" in rows["t0011"]
    assert lines[-1].startswith("14 trials: 12 finished, 1 interrupted, 1 failed; best t000")
    assert re.search(r"val_accuracy 9\d\.\d\d %, [\d,]+ parameters\.$", lines[-1])


def test_status_as_json(folder: Path) -> None:
    found = json.loads(output("status", folder, "--json"))
    assert (found["metric"], found["mode"], len(found["trials"])) == ("val_accuracy", "max", 14)
    failed = found["trials"][3]
    assert (failed["state"], failed["epoch"], failed["epochs"]) == ("failed", 3, 12)
    assert failed["parameters"] > 0


def test_logs_tell_what_happened(folder: Path) -> None:
    text = output("logs", folder, "t0000")
    assert "epoch  12  " in text
    lines = text.splitlines()
    assert lines[0].endswith("started")
    assert lines[-1].endswith("finished")
    assert re.search(r"epoch +2  grow layers\.\d\.conv1\.weight:0 \d+ -> \d+, [\d,]+ parameters, output changed by", text)
    assert re.search(r"epoch +12  train_loss .* val_accuracy 9\d\.\d\d %  test_accuracy .* parameters", text)
    assert "did nothing: nothing to grow" in output("logs", folder, "t0001")
    assert "& <lower> the learning rate" in output("logs", folder, "t0003")


def test_logs_as_json_are_the_events(folder: Path) -> None:
    events = [json.loads(line) for line in output("logs", folder, "t0000", "--json").splitlines()]
    assert events == [json.loads(line) for line in (folder / "trials" / "t0000" / "events.jsonl").read_text().splitlines()]


def test_following_ends_with_the_trial(folder: Path) -> None:
    assert output("logs", folder, "t0000", "--follow") == output("logs", folder, "t0000")


def test_an_unknown_trial_names_the_known_ones(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"TRIAL must be a trial in .*, but got '7'; there are: big, static, t0000"):
        RUNNER.invoke(app, ["logs", str(folder), "7"], catch_exceptions=False)


def test_report_prints_the_path_of_the_page(folder: Path) -> None:
    assert output("report", folder).strip() == str(folder / "report.html")
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
