"""Files of a campaign: atomic writes, one JSON object a line, torn lines, locks."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from coppice.orchestrator.folder.events import append_event, read_events
from coppice.orchestrator.folder.files import exclusive, read_json, write_atomic, write_json
from coppice.orchestrator.folder.layout import CampaignFolder, TrialFolder
from tests.support.waiting import LIMIT_S


def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, b"old")

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"new content")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_events_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for epoch in range(3):
        append_event(path, {"type": "metrics", "epoch": epoch})
    assert [e["epoch"] for e in read_events(path)] == [0, 1, 2]
    assert read_events(tmp_path / "none.jsonl") == []


def test_a_torn_last_line_is_ignored_and_cut_off_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append_event(path, {"epoch": 1})
    with open(path, "ab") as file:
        file.write(b'{"epoch": 2, "va')
    assert read_events(path) == [{"epoch": 1}]
    append_event(path, {"epoch": 3})
    assert read_events(path) == [{"epoch": 1}, {"epoch": 3}]
    assert len(path.read_bytes().splitlines()) == 2


def test_a_file_that_is_all_torn_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"epo')
    append_event(path, {"epoch": 1})
    assert read_events(path) == [{"epoch": 1}]


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"epoch": 1}\n{"epo\n{"epoch": 3}\n')
    with pytest.raises(ValueError, match=r"events\.jsonl, line 2"):
        read_events(path)


def test_a_resumed_trial_forgets_later_epochs_but_not_its_history(tmp_path: Path) -> None:
    trial = TrialFolder(tmp_path / "t0000")
    trial.append_event({"type": "status", "status": "started", "epoch": 0})
    for epoch in (1, 2, 3):
        trial.append_event({"type": "metrics", "epoch": epoch})
    trial.append_event({"type": "status", "status": "interrupted", "epoch": 3})
    trial.truncate_events(2)
    assert [(e["type"], e["epoch"]) for e in read_events(trial.events)] == [
        ("status", 0), ("metrics", 1), ("metrics", 2), ("status", 3)]


def _hold(path: Path, ready: multiprocessing.Event, leave: multiprocessing.Event) -> None:  # type: ignore[valid-type]
    with exclusive(path):
        ready.set()
        leave.wait(LIMIT_S)


def test_a_lock_is_held_by_one_process_and_ends_with_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    folder = CampaignFolder(tmp_path)
    ready, leave = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(folder.in_use, ready, leave))
    assert not folder.running()
    other.start()
    assert ready.wait(LIMIT_S)
    assert folder.running()
    with pytest.raises(BlockingIOError, match="another process"), exclusive(folder.in_use):
        pass
    other.kill()
    other.join()
    assert not folder.running()
    with exclusive(folder.in_use):
        assert json.dumps(folder.running()) == "true"


def test_a_damaged_json_file_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / "params.json", {"a": 1})
    assert read_json(tmp_path / "params.json") == {"a": 1}
    (tmp_path / "params.json").write_bytes(b'{"a": ')
    with pytest.raises(ValueError, match=r"params\.json must be a JSON file"):
        read_json(tmp_path / "params.json")
