"""Progress: a table on a terminal, lines elsewhere; every start and end of a trial is told once."""

import io
from typing import Any

from rich.console import Console

from coppice.orchestrator.cli.live import Progress
from coppice.orchestrator.operations.status import TrialStatus


def status(name: str, state: str, best: float | None = None, **more: Any) -> TrialStatus:
    metrics = {} if best is None else {"val_accuracy": best, "parameters": 1234.0, "flops": 5e6}
    fields: dict[str, Any] = {
        "label": None, "epoch": len(metrics), "epochs": 12, "num_structural": 0, "last_event": "metrics, epoch 3", "reason": "",
        "traceback": "", "seconds": 1.0, "metrics": metrics, "best": best}
    return TrialStatus(id=name, state=state, **{**fields, **more})


def shown(terminal: bool, *calls: tuple[float, list[TrialStatus]]) -> str:
    """What is printed for calls at these times."""
    file = io.StringIO()
    screen = Console(file=file, force_terminal=terminal, width=110, height=12, highlight=False)
    now = [0.0]
    with Progress("val_accuracy", "max", screen=screen, clock=lambda: now[0]) as progress:
        for time, statuses in calls:
            now[0] = time
            progress(statuses)
    return file.getvalue()


def test_lines_tell_starts_and_ends_once() -> None:
    running = [status("00000", "running"), status("00001", "waiting")]
    ended = [status("00000", "finished", 0.9), status("00001", "failed", reason="NonFiniteLoss: [nan]")]
    text = shown(False, (0, running), (1, running), (2, ended), (3, ended))
    assert text.splitlines() == [
        "00000 running",
        "00000 finished after epoch 3, val_accuracy 90.00 %, 1,234 parameters",
        "00001 failed after epoch 0: NonFiniteLoss: [nan]",
    ]


def test_lines_come_at_least_once_a_minute() -> None:
    running = [status("00000", "running", 0.5)]
    lines = shown(False, (0, running), (30, running), (61, running), (62, running)).splitlines()
    assert lines == ["00000 running", "1 trial: 1 running; best 00000: val_accuracy 50.00 %, 1,234 parameters"]


def test_a_terminal_gets_a_table_that_fits() -> None:
    many = [status(f"{i:05d}", "finished", 0.5 + i / 100) for i in range(20)] + [status("00020", "running", 0.1)]
    text = shown(True, (0, many), (0.1, many))
    assert text == shown(True, (0, many)), "the second call came too soon to be drawn"
    assert "... and 15 more trials" in text
    assert text.index("00020") < text.index("00019"), "running ones first, then the best"
    assert "21 trials: 20 finished, 1 running" in text
