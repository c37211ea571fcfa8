"""`import coppice` is the front door: light, complete, documented, and the only name for what is behind it."""

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import coppice
from coppice.methods.catalog import TABLES
from coppice.scheduler.triggers import TRIGGERS
from tests.support.waiting import LIMIT_S

ROOT = Path(__file__).parents[1]
ROOMS = ("coppice", "methods", "scheduler", "slurm", "orchestrator")
HEAVY = ("torch", "ray", "numpy", "pydantic", "optuna", "typer", "rich")


def python(code: str, cwd: Path = ROOT) -> str:
    """What `code` prints in a fresh process that finds the checkout as an installed package is found: not first."""
    script = f"import sys; sys.path.append({str(ROOT)!r})\n{code}"
    done = subprocess.run([sys.executable, "-c", script], cwd=cwd, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_it_loads_nothing_heavy() -> None:
    assert json.loads(python(f"import coppice, json; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))")) == []


@pytest.mark.parametrize("name", coppice.__all__)
def test_every_name_is_there_and_says_what_it_is(name: str) -> None:
    value = getattr(coppice, name)
    assert value.__module__.startswith("coppice.") and value.__name__ == name
    assert len((value.__doc__ or "").split()) > 3, f"{name} must have a docstring that a stranger understands"


def test_every_method_trigger_and_selection_is_there() -> None:
    classes = [kind for table in (*TABLES.values(), TRIGGERS) for kind in table.values()]
    missing = [kind.__name__ for kind in classes if getattr(coppice, kind.__name__, None) is not kind]
    assert not missing and len(classes) > 60


def test_nothing_else_is_there() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'Nonsense'; it has .*GradMax"):
        _ = coppice.Nonsense  # type: ignore[attr-defined]
    assert dir(coppice) == sorted(coppice.__all__) and len(set(coppice.__all__)) == len(coppice.__all__)


@pytest.mark.parametrize("room", ROOMS[1:])
def test_nothing_is_importable_under_two_names(room: str) -> None:
    message = python(f"sys.path.insert(0, '')\ntry:\n    import {room}\nexcept ImportError as error:\n    print(error)")
    assert f"coppice.{room}" in message
    module = importlib.import_module(f"coppice.{room}")
    assert Path(str(module.__file__)).parent.name == room


def test_no_file_of_ours_is_loaded_twice() -> None:
    files: dict[str, list[str]] = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and name != "__main__" and any(Path(file).resolve().is_relative_to(ROOT / room) for room in ROOMS):
            files.setdefault(os.path.realpath(file), []).append(name)
    assert len(files) > 100 and {k: v for k, v in files.items() if len(v) > 1} == {}


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def imports_in(text: str) -> list[tuple[str, str]]:
    """`(module, name)` of every import of ours in the Python blocks of a page, also indented ones."""
    lines = re.findall(r"^\s*(?:>>> )?((?:from coppice[\w.]* import [\w, ]+)|(?:import coppice[\w.]*))", text, re.M)
    nodes = [node for line in lines for node in ast.parse(line).body]
    return [(str(n.module), a.name) for n in nodes if isinstance(n, ast.ImportFrom) for a in n.names]


@pytest.mark.parametrize("page", pages(), ids=lambda p: p.name)
def test_pages_use_the_front_door(page: Path) -> None:
    text = re.sub(r"<!--.*?-->", "", page.read_text(), flags=re.S)
    for module, name in imports_in(text):
        assert module in ("coppice", "coppice.testing"), f"{page.name} imports {name} from {module}"
        assert hasattr(importlib.import_module(module), name)
    used = set(re.findall(r"\bcoppice\.([A-Za-z_]\w*)\(", text))
    assert used <= set(coppice.__all__), f"{page.name} uses {sorted(used - set(coppice.__all__))}"
