"""Hours, waste and useful share of trials, from their events alone and from runs that the accounts know."""

import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from coppice.orchestrator.config.models import ResourcesSpec
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.operations.job_logs import TrialLog
from coppice.orchestrator.operations.usage import _usage, runs_from_events, usage_of
from coppice.orchestrator.placement.ray_token import token_file, use_token
from coppice.slurm.accounts import Run
from coppice.slurm.broker.journal import Attempt, Journal
from coppice.slurm.client import Client
from tests.orchestrator.cli.test_elements import output
from tests.support.campaigns import campaign
from tests.support.folders import create


def events(*rows: tuple[float, str, Any]) -> list[dict[str, Any]]:
    """(time, status or `metrics`, seconds of the epoch)."""
    found: list[dict[str, Any]] = []
    for time, kind, seconds in rows:
        content = {"type": "metrics", "seconds": seconds} if kind == "metrics" else {"type": "status", "status": kind}
        found.append({"time": time, "epoch": len(found), "step": 0, "trial": "t", **content})
    return found


STORY = events(
    (100, "started", 0),
    (110, "metrics", 8),
    (500, "interrupted", 0),
    (1000, "resumed", 0),
    (1010, "metrics", 9),
    (1020, "finished", 0),
)


def test_runs_are_what_lies_between_a_trials_words() -> None:
    found = runs_from_events(STORY, ResourcesSpec(gpus=2, cpus_per_gpu=4, nodes=2), 9999)
    assert [(r.started, r.elapsed_s, r.cpus, r.gpus) for r in found] == [(100, 10, 16, 4), (1000, 20, 16, 4)]
    (going,) = runs_from_events(STORY[:2], ResourcesSpec(), 160, lambda: True)
    (gone,) = runs_from_events(STORY[:2], ResourcesSpec(), 160, lambda: False)
    assert (going.elapsed_s, gone.elapsed_s) == (60, 10)


def test_a_run_without_an_epoch_that_counts_is_lost() -> None:
    def run(start: float, end: float) -> Run:
        return Run("1", "TIMEOUT", "", start - 5, start, end, end - start, (), 2, 0, 10.0, 50.0)

    found = _usage("t", "finished", STORY, [run(90, 300), run(400, 600), run(990, 1030)], (1.0, 0.0))
    assert (found.lost_s, found.useful_s, found.waited_s, found.epochs) == (200, 17, 15, 2)
    assert found.useful_share == pytest.approx(17 / 450) and found.epoch_s == 8.5
    assert found.cpu_share == pytest.approx(30 / 900) and found.gpu_share == pytest.approx(0.5)


def test_top_of_a_campaign_without_slurm(tmp_path: Path) -> None:
    folder = CampaignFolder(tmp_path / "c")
    spec = campaign(tmp_path, resources={"cpus": 3})
    create(folder, spec)
    for event in STORY:
        folder.trial("t0000").append_event(event)
    folder.trial("t0001")
    found = usage_of(folder, spec, Client())
    assert [u.state for u in found.trials] == ["finished", "waiting"] and not found.notes
    assert found.trials[0].core_hours == pytest.approx(30 * 3 / 3600)
    text = output("top", str(folder.path))
    assert "t0000  finished     2" in text and "57 %" in text and "8.5" in text


def test_without_accounts_hours_are_estimated_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = CampaignFolder(tmp_path / "c")
    spec = campaign(tmp_path, placement={"job": {"site": "generic"}})
    create(folder, spec)
    folder.trial("t0000").append_event(STORY[0])
    folder.trial("t0000").append_event(STORY[1])
    folder.trial("t0000").params.write_text('{"spec": {}}')
    folder.jobs.mkdir()
    Journal(folder.jobs / "journal.jsonl").add([Attempt("t0000", 1, "77", 99.0)])
    found = usage_of(folder, spec, Client())
    assert found.trials[0].core_hours == pytest.approx(10 / 3600)
    assert "first and last word" in found.notes[0] and "sacct must be installed" in found.notes[0]
    text = output("status", str(folder.path))
    assert "squeue must be installed" in text and "77" in text and "0.003" in text


def test_logs_show_each_attempt_with_what_was_in_its_time(tmp_path: Path) -> None:
    folder = CampaignFolder(tmp_path)
    for event in STORY:
        folder.trial("t").append_event(event)
    folder.jobs.mkdir()
    Journal(folder.jobs / "journal.jsonl").add(
        [Attempt("t", 1, "", 98.0), Attempt("t", 1, "5_1", 99.0), Attempt("t", 2, "6", 900.0), Attempt("other", 1, "5_2", 99.0)]
    )
    (folder.jobs / "5_1_0_log.out").write_bytes(b"\x1b[31mfirst\x1b[0m \xff 10%\r20%\nhalf")
    (folder.jobs / "5_11_0_log.out").write_text("another job's\n")
    (folder.jobs / "6_0_log.out").write_text("rank 0\n")
    (folder.jobs / "6_1_log.out").write_text("rank 1\nunfini")
    log = TrialLog(folder, "t")
    told = [p.content.job if p.kind == "attempt" else p.content.get("status", "epoch") if p.kind == "event" else p.content
            for p in log.new()]  # fmt: skip
    assert told == ["5_1", "started", "epoch", "interrupted", "20%", "half", "6", "resumed", "epoch", "finished", "[0] rank 0",
                    "[1] rank 1", "[1] unfini"]  # fmt: skip
    assert log.ended and not list(log.new())


def test_following_waits_for_whole_lines_and_the_next_job(tmp_path: Path) -> None:
    folder = CampaignFolder(tmp_path)
    folder.trial("t").append_event(STORY[0])
    folder.jobs.mkdir()
    journal, first = Journal(folder.jobs / "journal.jsonl"), folder.jobs / "5_0_log.out"
    journal.add([Attempt("t", 1, "5", 99.0)])
    first.write_text("one\ntw")
    log = TrialLog(folder, "t")
    assert [p.kind for p in log.new()] == ["attempt", "event", "output"] and not log.ended
    first.write_text("one\ntwo\n")
    assert [p.content for p in log.new()] == ["two"]
    journal.add([Attempt("t", 2, "6", 900.0)])
    first.write_text("one\ntwo\nlast words")
    folder.trial("t").append_event(STORY[5])
    assert [p.kind for p in log.new()] == ["output", "attempt", "event"] and log.ended


def test_a_campaign_has_one_secret_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, found = CampaignFolder(tmp_path), set()
    threads = [threading.Thread(target=lambda: found.add(token_file(folder).read_text())) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1 and len(found.pop()) == 64 and os.listdir(tmp_path) == [folder.ray_token.name]
    folder.ray_token.chmod(0o644)
    assert stat.S_IMODE(token_file(folder).stat().st_mode) == 0o600
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "COPPICE_RAY_AUTH"):
        monkeypatch.delenv(name, raising=False)
    other = CampaignFolder(tmp_path / "other")
    other.path.mkdir()
    assert use_token(folder) == folder.ray_token and os.environ["RAY_AUTH_TOKEN_PATH"] == str(folder.ray_token)
    assert use_token(other) == other.ray_token and use_token(None) is None and "RAY_AUTH_TOKEN_PATH" not in os.environ
    monkeypatch.setenv("RAY_AUTH_TOKEN", "the user's own")
    assert use_token(folder) is None and os.environ["RAY_AUTH_TOKEN"] == "the user's own"
