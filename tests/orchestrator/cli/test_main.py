"""The command itself: it starts fast, exit codes are as documented, our errors are one message, others keep their traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coppice.orchestrator.cli.output import command, is_ours, message_of
from tests.support.folders import campaign_folder

HEAVY = ("torch", "ray", "optuna", "pyarrow", "sklearn", "pydantic")


def coppice(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "coppice", *(str(a) for a in arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment}, timeout=120)


def test_help_lists_every_command_and_the_exit_codes() -> None:
    done = coppice("--help")
    assert done.returncode == 0
    for word in ("run", "resume", "status", "logs", "best", "report", "elements", "methods", "plan", "doctor", "dashboard",
                 "top", "cancel", "hold", "release", "retry", "submit", "Exit codes"):  # fmt: skip
        assert word in done.stdout


def test_help_imports_nothing_heavy() -> None:
    code = f"import sys, coppice.orchestrator.cli.main; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_bad_input_is_one_message_and_exit_code_2(tmp_path: Path) -> None:
    done = coppice("status", tmp_path / "nowhere")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("coppice: ") and "campaign.lock.json" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" in coppice("status", tmp_path / "nowhere", COPPICE_TRACEBACK="1").stderr


@pytest.mark.parametrize("arguments", [(), ("statsu",), ("status",), ("status", ".", "--nonsense")])
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    assert coppice(*arguments).returncode == 2


def test_a_broken_pipe_is_no_traceback(tmp_path: Path) -> None:
    folder = campaign_folder(tmp_path)
    command = f"{sys.executable} -m coppice logs {folder} 00000 | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert "started" in done.stdout
    assert "Traceback" not in done.stderr


def test_commands_to_copy_hold_no_surprise() -> None:
    assert command("resume", Path("a b;$(touch owned)")) == "coppice resume 'a b;$(touch owned)'"
    assert command("status", Path("runs/c")) == "coppice status runs/c"


def test_only_errors_raised_on_purpose_by_our_code_lose_their_traceback() -> None:
    from coppice.orchestrator.report.gather import _change as read_numbers
    from coppice.orchestrator.report.gather import gather

    with pytest.raises(FileNotFoundError) as ours:
        gather(Path("/nowhere"))
    assert is_ours(ours.value)
    with pytest.raises(ValueError, match="invalid literal") as foreign:
        int("one two three")
    assert not is_ours(foreign.value)
    with pytest.raises(KeyError) as slip:
        read_numbers({"type": "structural"})
    assert not is_ours(slip.value), "a bare key is no message"
    assert message_of(KeyError("must be, but is not")) == "must be, but is not"
