"""What a trial has done is known also where its file of events is damaged; nothing that was changed passes in silence."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from coppice.orchestrator.folder import checkpoint as checkpoints
from coppice.orchestrator.folder.checkpoint import Checkpoint
from coppice.orchestrator.folder.events import append_event, read_events
from coppice.orchestrator.folder.history import read_history, rewrite
from coppice.orchestrator.folder.layout import TrialFolder

Damage = Callable[[Path], object]


def head(type: str, epoch: float, **content: Any) -> dict[str, Any]:
    return {"type": type, "trial": "t0000", "time": 10.0 + epoch, "epoch": epoch, "step": 0, **content}


def trial(root: Path, seals: bool = True, end: str = "finished", kept: tuple[int, ...] = (4, 6)) -> TrialFolder:
    """Six epochs with a change of the network after each; checkpoints after those that are `kept`."""
    found = TrialFolder(root / "t0000")

    def add(event: dict[str, Any]) -> None:
        if seals:
            append_event(found.events, event)
        else:
            with open(found.events, "a") as file:
                file.write(json.dumps(event) + "\n")

    add(head("status", 0, status="started"))
    rows: list[dict[str, float]] = []
    for epoch in range(1, 7):
        add(head("structural", epoch, kind="grow", element="a", size_before=epoch, size_after=epoch + 1, accepted=True))
        rows.append({"epoch": float(epoch), "val_accuracy": epoch / 10, "seconds": float("nan") if epoch == 2 else 1.0})
        add(head("metrics", epoch) | rows[-1] | {"widths": {"a": epoch}})
        if epoch in kept:
            copy = found.events.read_bytes() if seals else b""
            state = Checkpoint({}, {"x": torch.zeros(1)}, {}, {"history": rows}, copy)
            checkpoints.write(found.checkpoints, epoch, state)
            add(head("checkpoint", epoch, path=f"{epoch:06d}"))
    add(head("status", 6, status=end))
    return found


def line(path: Path, holding: str) -> int:
    return next(i for i, text in enumerate(path.read_text().splitlines()) if holding in text)


def edit(holding: str, old: str, new: str) -> Damage:
    def damage(path: Path) -> None:
        lines = path.read_text().splitlines()
        number = line(path, holding)
        assert old in lines[number]
        lines[number] = lines[number].replace(old, new, 1)
        path.write_text("\n".join(lines) + "\n")

    return damage


def without(*numbers: int) -> Damage:
    def damage(path: Path) -> None:
        lines = path.read_text().splitlines()
        path.write_text("".join(f"{text}\n" for i, text in enumerate(lines) if i not in numbers))

    return damage


DAMAGES: dict[str, Damage] = {
    "emptied": lambda p: p.write_bytes(b""),
    "deleted": lambda p: p.unlink(),
    "tail lost": lambda p: p.write_bytes(b"".join(p.read_bytes().splitlines(keepends=True)[:6])),
    "torn": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    "a digit": edit('"val_accuracy":0.3', "0.3", "0.9"),
    "a change's size": edit('"size_after":4', '"size_after":4', '"size_after":9'),
    "no JSON": edit('"val_accuracy":0.3', "{", "["),
    "no type": edit('"val_accuracy":0.3', '"type"', '"tipe"'),
    "a line lost": without(5),
    "a change lost": without(3),
}


def done(events: list[dict[str, Any]]) -> list[str]:
    return [json.dumps(e) for e in events if e["type"] in ("metrics", "structural")]


@pytest.mark.parametrize("name", DAMAGES)
def test_what_a_checkpoint_knows_counts_and_is_written_back(tmp_path: Path, name: str) -> None:
    found = trial(tmp_path)
    whole = read_history(found.path)
    assert whole.problem == "" and len(done(whole.events)) == 12
    DAMAGES[name](found.events)
    damaged = read_history(found.path)
    assert done(damaged.events) == done(whole.events)
    assert str(found.events) in damaged.problem and "checkpoint 000006" in damaged.problem
    assert rewrite(found.path) == damaged.problem
    assert done(read_events(found.events)) == done(whole.events)
    assert read_history(found.path).problem == ""


@pytest.mark.parametrize("name", DAMAGES)
def test_without_a_checkpoint_it_is_told_or_the_trial_has_not_ended(tmp_path: Path, name: str) -> None:
    found = trial(tmp_path, kept=())
    before = done(read_history(found.path).events)
    DAMAGES[name](found.events)
    damaged = read_history(found.path)
    if name in ("emptied", "deleted", "tail lost", "torn"):
        assert not any(e.get("status") == "finished" for e in damaged.events), "it goes on from its beginning"
    else:
        assert "no checkpoint knows" in damaged.problem and "delete" in damaged.problem
        assert done(damaged.events) != before


def test_files_of_before_are_read_and_their_checkpoints_know_the_numbers(tmp_path: Path) -> None:
    found = trial(tmp_path, seals=False)
    whole = read_history(found.path)
    assert whole.problem == "" and len(done(whole.events)) == 12
    edit('"val_accuracy": 0.3', "0.3", "0.9")(found.events)
    damaged = read_history(found.path)
    assert "checkpoint 000006" in damaged.problem
    assert done(damaged.events) == done(whole.events)
    found.events.unlink()
    rows = [e for e in read_history(found.path).events if e["type"] == "metrics"]
    assert [(e["epoch"], e["val_accuracy"]) for e in rows] == [(e, e / 10) for e in range(1, 7)]


def test_what_was_trained_past_a_stop_stays_forgotten(tmp_path: Path) -> None:
    found = trial(tmp_path, end="finished")
    found.truncate_events(5)
    found.append_event(head("status", 5, status="stopped"))
    sound = read_history(found.path)
    assert sound.problem == "" and max(e["epoch"] for e in sound.events if e["type"] == "metrics") == 5
    edit('"val_accuracy":0.3', "0.3", "0.9")(found.events)
    assert done(read_history(found.path).events) == done(sound.events)


def test_an_older_checkpoint_keeps_what_happened_after_it(tmp_path: Path) -> None:
    found = trial(tmp_path, kept=(4,))
    edit('"val_accuracy":0.3', "0.3", "0.9")(found.events)
    assert len(done(read_history(found.path).events)) == 12
    state = found.checkpoints / "000004" / "events.jsonl"
    state.write_bytes(state.read_bytes().replace(b"0.3", b"0.4", 1))
    assert "no checkpoint knows" in read_history(found.path).problem, "a copy that was changed is not believed"


def test_lines_of_a_trial_that_runs_are_no_damage(tmp_path: Path) -> None:
    found = trial(tmp_path, kept=())
    DAMAGES["torn"](found.events)
    torn = found.events.read_bytes()
    found.events.write_bytes(torn + b'{"type": "metr')
    assert read_history(found.path).problem == ""
    append_event(found.events, head("status", 3, status="interrupted"))
    assert read_history(found.path).problem == "" and read_events(found.events)[-1]["status"] == "interrupted"


def test_the_state_of_a_trial_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    found = TrialFolder(tmp_path / "t0000")
    found.append_event(head("metrics", 1))
    assert synced == []
    found.append_event(head("status", 1, status="interrupted"))
    assert synced == [str(found.events)]


def test_a_long_last_line_is_found(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for size in (10, 5000, 100_000, 10):
        append_event(path, head("status", 1, text="x" * size))
    with open(path, "ab") as file:
        file.write(b"y" * 70_000)
    append_event(path, head("status", 2))
    assert [len(e.get("text", "")) for e in read_events(path)] == [10, 5000, 100_000, 10, 0]
    assert all(b'"crc"' in text for text in path.read_bytes().splitlines())
