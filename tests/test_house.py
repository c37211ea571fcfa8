"""The house: no import goes in a circle, imports stand at the top, files and functions stay small."""

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("methods", "scheduler", "slurm", "orchestrator")
LATE = {
    "ray": "takes a second to import; commands that only look at a folder do without it",
    "torch": "takes two seconds to import; a trial whose body does without PyTorch, and most commands, start without it",
    "submitit": "what is not handed in needs no Slurm library",
    "coppice.orchestrator.trial.process_group": "imports torch",
    "coppice.orchestrator.placement.local": "imports ray",
    "coppice.orchestrator.placement.jobs": "imports ray",
    "coppice.orchestrator.placement.pool": "imports ray",
    "coppice.orchestrator.campaign.pausing": "imports ray",
    "coppice.orchestrator.cli.commands": "the command receives signals before anything that takes long is imported",
    "coppice.orchestrator.cli.output": "likewise",
    "coppice.orchestrator.campaign.decisions": "imports ray",
    "coppice.orchestrator.planning.load": "imports torch; coppice doctor must run where PyTorch does not",
}
"""What may be imported inside a function, and why. Everything else stands at the top of its file."""


def modules() -> dict[str, ast.Module]:
    """Our modules by name, parsed."""
    files = [f for room in (*ROOMS, "coppice/testing") for f in (ROOT / room).rglob("*.py")]
    files += (ROOT / "coppice").glob("*.py")
    return {_name(f): ast.parse(f.read_text()) for f in files}


def _name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "coppice" else ("coppice", *parts)
    return ".".join(parts).removesuffix(".__init__")


@pytest.fixture(scope="module")
def house() -> dict[str, ast.Module]:
    return modules()


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """`(module, name)` of each import in a tree, those for types left out; name is empty where a module itself is imported."""
    for_types = [i for i in ast.walk(tree) if isinstance(i, ast.If) and "TYPE_CHECKING" in ast.dump(i.test)]
    skipped = {id(n) for i in for_types for n in ast.walk(i)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Some modules that import each other in a circle; empty where there are none."""
    done: set[str] = set()
    path: list[str] = []

    def visit(name: str) -> list[str]:
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        path.append(name)
        for other in sorted(edges.get(name, ())):
            if found := visit(other):
                return found
        done.add(path.pop())
        return []

    return next((c for name in sorted(edges) if (c := visit(name))), [])


def test_no_import_goes_in_a_circle(house: dict[str, ast.Module]) -> None:
    edges = {}
    for name, tree in house.items():
        targets = {f"{m}.{n}" if f"{m}.{n}" in house else m for m, n in imports(tree)}
        edges[name] = {t for t in targets if t in house and t != name}
    assert len(edges) > 300 and circle(edges) == []


def test_circles_are_seen() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_imports_stand_at_the_top(house: dict[str, ast.Module]) -> None:
    late = []
    for name, tree in house.items():
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef):
                late += [f"{name}.{function.name} imports {m}" for m, _ in imports(function)
                         if not any(m == known or m.startswith(f"{known}.") for known in LATE)]
    assert late == []


def test_files_and_functions_stay_small(house: dict[str, ast.Module]) -> None:
    lines = [len(f.read_text().splitlines()) for room in ROOMS for f in (ROOT / room).rglob("*.py")]
    lengths = sorted(_length(n) for tree in house.values() for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))
    assert statistics.median(lines) <= 110
    assert lengths[int(0.9 * len(lengths))] <= 16 and lengths[-1] <= 50


def _length(function: ast.FunctionDef) -> int:
    """Lines of a function without its docstring."""
    first = function.body[0]
    told = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    docstring = (first.end_lineno or 0) - first.lineno + 1 if told else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring
