"""What is gathered from a folder, and what is derived from it."""

import json
from pathlib import Path

import pytest

from coppice.orchestrator.report.data import ReportData, TrialData, options
from coppice.orchestrator.report.gather import gather
from tests.support.folders import campaign_folder


def trial(name: str, accuracy: float, parameters: float, state: str = "finished", **params: object) -> TrialData:
    metrics = {"epoch": 1.0, "val_accuracy": accuracy, "parameters": parameters}
    return TrialData(name, None, state, "", parameters_of=params, epochs=(metrics,), widths=({},))


def campaign(*trials: TrialData, mode: str = "max") -> ReportData:
    return ReportData("c", "runs/c", "val_accuracy", "min" if mode == "min" else "max", "", (), trials)


def test_a_folder_is_read_whole(tmp_path: Path) -> None:
    data = gather(campaign_folder(tmp_path))
    assert len(data.trials) == 14
    assert len(data.searched) == 12
    assert {t.label for t in data.trials} == {None, "static", "big"}
    assert [t.state for t in data.searched].count("finished") == 10
    by_name = {t.name: t for t in data.trials}
    failed = by_name["t0003"]
    assert (failed.state, len(failed.epochs)) == ("failed", 3)
    assert "NonFiniteLoss" in failed.reason
    assert by_name["t0011"].state == "interrupted", "no process runs the campaign"
    best = data.best
    assert best is not None
    assert best.last("val_accuracy") == max(t.last("val_accuracy") or 0 for t in data.searched if t.state == "finished")
    assert best.count(True) == 12
    assert best.planned_epochs == 12
    assert best.widths[0] != best.widths[-1]
    assert dict(data.facts)["Data set"] == "digits"
    assert "torch 2.13.0" in dict(data.facts)["Versions"]


def test_an_empty_campaign_and_no_campaign(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must be the folder of a campaign"):
        gather(tmp_path)
    folder = campaign_folder(tmp_path, trials=1, epochs=0, compare=False)
    (folder / "trials" / "t0000" / "events.jsonl").unlink()
    data = gather(folder)
    assert (data.best, data.front, [t.state for t in data.trials]) == (None, (), ["waiting"])


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    folder = campaign_folder(tmp_path, trials=2, compare=False)
    (folder / "trials" / "t0000" / "params.json").write_text("{")
    with pytest.raises(ValueError, match=r"t0000/params\.json must be a JSON file"):
        gather(folder)
    (folder / "trials" / "t0000" / "params.json").write_text(json.dumps([1]))
    with pytest.raises(ValueError, match="must hold a JSON object"):
        gather(folder)


def test_the_front_has_no_beaten_and_no_unfinished_trial() -> None:
    data = campaign(
        trial("a", 0.9, 100), trial("b", 0.95, 200), trial("c", 0.94, 300), trial("d", 0.99, 50, "failed"), trial("e", 0.9, 90))
    assert [t.id for t in data.front] == ["e", "b"]
    assert [t.id for t in campaign(*data.trials, mode="min").front] == ["e"]


def test_the_best_is_finished_and_not_one_of_those_to_compare_with() -> None:
    data = campaign(trial("a", 0.9, 100), trial("b", 0.95, 200, "running"), trial("c", 0.9, 50))
    assert data.best is not None
    assert data.best.id == "c"
    nothing = campaign(trial("a", float("nan"), 100))
    assert nothing.best is None


def test_options_are_counted_honestly() -> None:
    trials = [trial("a", 0.9, 1, how="x", lr=0.1), trial("b", 0.8, 1, how="x", lr=0.2), trial("c", 0.95, 1, how="y", lr=0.3)]
    found = options(campaign(*trials, trial("d", float("nan"), 1, how="y", lr=0.4)))
    assert list(found) == ["how"]
    assert [(r.option, r.num, r.best) for r in found["how"]] == [("y", 1, 0.95), ("x", 2, 0.9)]
    assert found["how"][1].mean == pytest.approx(0.85)
