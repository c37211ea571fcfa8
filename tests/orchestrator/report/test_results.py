"""Tables of a campaign: whole, of one that runs, with torn lines; the best trial; the status from files alone."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from coppice.orchestrator.config.models import Campaign, TrialSpec
from coppice.orchestrator.folder.files import exclusive
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.trials import Sample, TrialRecords
from coppice.orchestrator.operations.status import StatusBoard, status
from coppice.orchestrator.report.results import best_trial, results, write_results
from tests.support.folders import create

METRICS = {"val_loss": 0.5, "flops": 20.0, "seconds": 2.0}


@pytest.fixture
def folder(tmp_path: Path) -> CampaignFolder:
    """t0000 finished, t0001 failed, t0002 runs (with a torn line), t0003 waits; a comparison; all but t0003 have reported."""
    found = CampaignFolder(tmp_path / "c")
    create(found, Campaign.model_validate({"name": "c", "task": {"dataset": "digits", "network": "mlp"},
                                               "training": {"epochs": 2}}))
    for number in range(4):
        add(found, f"t000{number}", number)
    add(found, "static", None)
    for epoch, accuracy in ((1, 0.9), (2, 0.8)):
        report(found, "t0000", epoch, accuracy, 10)
    found.trial("t0000").append_event({"type": "structural", "trial": "t0000", "time": 0.0, "epoch": 1, "step": 3, "kind": "grow",
                                       "element": "conv1.out", "size_before": 4, "size_after": 6, "parameters_after": 10,
                                       "accepted": True, "units": [1, 2], "detail": {"norm": 0.5}})
    TrialRecords(found).mark("t0000", "finished")
    report(found, "t0001", 1, 0.95, 5)
    TrialRecords(found).mark("t0001", "failed", {"epoch": 1}, error="ValueError: no", traceback="Traceback: here")
    report(found, "t0002", 1, 0.85, 7)
    with open(found.trial("t0002").events, "ab") as file:
        file.write(b'{"type": "metrics", "epo')
    report(found, "static", 1, 0.99, 10)
    TrialRecords(found).mark("static", "finished")
    return found


def add(folder: CampaignFolder, name: str, number: int | None) -> None:
    spec = TrialSpec.model_validate({"task": {"dataset": "digits", "network": "mlp"}, "training": {"epochs": 2},
                                     "label": None if name.startswith("t0") else name})
    sample = Sample({}, {"lr": 0.1 * number, "how": "random"} if number is not None else {}, {})
    TrialRecords(folder).add(name, spec.model_dump(mode="json"), number, sample)


def report(folder: CampaignFolder, name: str, epoch: int, accuracy: float, parameters: float) -> None:
    event: dict[str, Any] = {"type": "metrics", "trial": name, "time": 0.0, "epoch": epoch, "step": epoch,
                             "val_accuracy": accuracy,
                             "parameters": parameters, "compute": 100.0 * epoch, "widths": {"conv1.out": 4}, **METRICS}
    folder.trial(name).append_event(event)


def test_tables(folder: CampaignFolder) -> None:
    tables = results(folder.path)
    trials = {row["trial"]: row for row in tables["trials"].to_pylist()}
    assert set(trials) == {"static", "t0000", "t0001", "t0002", "t0003"}
    first = trials["t0000"]
    assert (first["state"], first["best"], first["last/val_accuracy"], first["last/compute"]) == ("finished", 0.9, 0.8, 200.0)
    assert (first["params/how"], first["wall_s"], first["num_structural"], first["error"]) == ("random", 4.0, 1, None)
    assert trials["t0001"]["error"] == "ValueError: no"
    assert trials["static"]["label"] == "static"
    assert trials["t0003"]["state"] == "waiting" and trials["t0003"]["best"] is None
    reports = tables["reports"].to_pylist()
    assert [(r["trial"], r["epoch"]) for r in reports] == [("static", 1), ("t0000", 1), ("t0000", 2), ("t0001", 1), ("t0002", 1)]
    assert reports[0]["widths/conv1.out"] == 4
    (change,) = tables["events"].to_pylist()
    assert (change["element"], change["units"], change["detail/norm"]) == ("conv1.out", "[1, 2]", 0.5)


def test_written_tables_are_those(folder: CampaignFolder) -> None:
    for name, path in write_results(folder.path).items():
        assert path == folder.path / "results" / f"{name}.parquet"
        assert pq.read_table(path).equals(results(folder.path)[name])


def test_an_empty_campaign_has_empty_tables(tmp_path: Path) -> None:
    found = CampaignFolder(tmp_path / "c")
    create(found, Campaign.model_validate({"name": "c", "task": {}, "training": {}}))
    assert [table.num_rows for table in results(found.path).values()] == [0, 0, 0]
    assert write_results(found.path)["trials"].exists()
    assert best_trial(found.path, "val_accuracy", "max") is None


def test_best_is_a_finished_one_of_the_search(folder: CampaignFolder) -> None:
    best = best_trial(folder.path, "val_accuracy", "max")
    assert best is not None and best.id == "t0000"
    add(folder, "t0004", 4)
    report(folder, "t0004", 2, 0.8, 9)
    TrialRecords(folder).mark("t0004", "finished")
    best = best_trial(folder.path, "val_accuracy", "max")
    assert best is not None and best.id == "t0004", "of equal ones the smaller"
    with pytest.raises(ValueError, match="max or min"):
        best_trial(folder.path, "val_accuracy", "best")


def test_status(folder: CampaignFolder) -> None:
    with exclusive(folder.in_use):
        running = {t.id: t for t in status(folder.path)}
    assert {i: t.state for i, t in running.items()} == {
        "t0000": "finished", "t0001": "failed", "t0002": "running", "t0003": "waiting", "static": "finished"}
    assert (running["t0001"].reason, running["t0001"].traceback) == ("ValueError: no", "Traceback: here")
    assert (running["t0000"].epoch, running["t0000"].epochs, running["t0000"].parameters) == (2, 2, 10.0)
    assert running["t0002"].last_event == "metrics, epoch 1"
    left = {t.id: t.state for t in status(folder.path)}
    assert left["t0002"] == "interrupted", "nobody runs the campaign"


def test_a_board_sees_what_changes(folder: CampaignFolder) -> None:
    board = StatusBoard(folder.path)
    assert {t.id: t.epoch for t in board.read()}["t0002"] == 1
    report(folder, "t0002", 2, 0.9, 7)
    assert {t.id: t.epoch for t in board.read()}["t0002"] == 2


def test_a_folder_without_a_campaign_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must hold a campaign"):
        results(tmp_path)


def test_the_lock_says_what_was_run(folder: CampaignFolder) -> None:
    content = json.loads(folder.lock.read_bytes())
    assert {"torch", "ray", "optuna"} <= set(content["versions"])
    assert content["campaign"]["search"]["metric"] == "val_accuracy"
