"""The command itself: it starts fast, exit codes are as documented, our errors are one message, others keep their traceback."""

import ast
import importlib.metadata
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

from coppice.orchestrator.cli import commands
from coppice.orchestrator.cli.commands import COMMANDS, HIDDEN, function_of, help_of
from coppice.orchestrator.cli.output import command, is_ours, message_of
from tests.support.folders import campaign_folder
from tests.support.waiting import LIMIT_S

HEAVY = ("torch", "ray", "optuna", "pyarrow", "sklearn", "pydantic")


def coppice(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "coppice", *(str(a) for a in arguments)]
    known = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=known, timeout=LIMIT_S)


def loaded_by(code: str) -> set[str]:
    """Which of the packages that take long to import a fresh process has imported after `code`."""
    script = f"import sys\n{code}\nprint([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(ast.literal_eval(done.stderr))


def test_help_lists_every_command_and_the_exit_codes() -> None:
    done = coppice("--help")
    assert done.returncode == 0
    listed = [line.split()[0] for line in done.stdout.partition("Commands:\n")[2].splitlines() if line[2:3].strip()]
    assert listed == [name for name in COMMANDS if name not in HIDDEN]
    assert "Exit codes" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_is_its_docstring(name: str) -> None:
    assert help_of(name) == inspect.getdoc(function_of(name))
    assert help_of(name).partition("\n")[0].endswith(".")


def test_every_module_with_a_command_is_named() -> None:
    folder = Path(commands.__file__).parent
    takes_options = {p.stem for p in folder.glob("*.py") if "options import" in p.read_text()}
    assert takes_options == set(COMMANDS.values())


def test_help_imports_nothing_heavy() -> None:
    assert loaded_by("from coppice.orchestrator.cli.commands import app\napp(['--help'], standalone_mode=False)") == set()


@pytest.mark.parametrize("name", ["status", "logs", "report", "doctor", "top", "dashboard", "cancel", "retry"])
def test_what_looks_after_a_campaign_starts_without_torch_and_ray(name: str) -> None:
    code = f"from coppice.orchestrator.cli.commands import function_of\nfunction_of({name!r})"
    assert loaded_by(code).isdisjoint({"torch", "ray", "optuna", "sklearn"})


def test_the_version_is_that_of_the_distribution() -> None:
    assert coppice("--version").stdout == f"coppice {importlib.metadata.version('coppice-nn')}\n"


def test_own_modules_of_a_user_do_not_stand_in_the_way(tmp_path: Path) -> None:
    """Files that are called like our folders, or like an installed package, are the user's own and are not taken for ours."""
    for name in ("methods", "scheduler", "slurm", "orchestrator", "torch"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this file must not be imported')")
    (tmp_path / "nets.py").write_text("import torch\n\ndef build():\n    return torch.nn.Linear(3, 2)\n")
    script = "from coppice.orchestrator.cli.main import main\nmain()"
    command = [sys.executable, "-P", "-c", script, "elements", "nets:build", "--input", "1,3"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment, timeout=LIMIT_S)
    assert done.returncode == 0 and "8 parameters" in done.stdout, done.stderr


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
    command = f"{sys.executable} -m coppice logs {folder} t0000 | head -1"
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
