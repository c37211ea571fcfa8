"""What the site says that the code knows: the campaign file's keys, the tables of methods, the list of public names."""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import campaign_file  # noqa: E402

from coppice.methods.catalog import GROWTH, PRUNING, SELECTIONS  # noqa: E402
from coppice.orchestrator.cli.method_tables import entries  # noqa: E402
from coppice.scheduler.triggers import TRIGGERS  # noqa: E402

GROUPS = {
    "Networks and what changes them": ("coppice.methods.",),
    "Campaigns and trials": ("coppice.orchestrator.",),
    "When": ("coppice.scheduler.",),
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in the places that are marked in the pages."""
    for mark, make in MARKS.items():
        if mark in markdown:
            markdown = markdown.replace(mark, make())
    return markdown


def reference() -> str:
    """A heading for each group, and mkdocstrings' mark for each public name that the page of methods does not show."""
    lines = ast.parse((ROOT / "coppice" / "__init__.pyi").read_text()).body
    names = [(str(line.module), n.name) for line in lines if isinstance(line, ast.ImportFrom) for n in line.names]
    by_name = {kind.__name__ for table in CLASSES.values() for kind in table.values()}
    parts = []
    for title, places in GROUPS.items():
        parts.append(f"## {title}\n")
        for module, name in sorted(names, key=lambda pair: pair[1].lower()):
            if module.startswith(places) and name not in by_name:
                parts.append(f"::: {module}.{name}\n")
    return "\n".join(parts)


def tables() -> str:
    """Every method, trigger and selection in full."""
    parts, kind = [], ""
    for entry in entries():
        if entry.kind != kind:
            kind = entry.kind
            parts.append(f"## {TITLES[kind]}\n")
        about = entry.in_full().partition("\n")[2].strip()
        python = f"In Python: `coppice.{CLASSES[kind][entry.name].__name__}`"
        parts.append(f"### {entry.name} {{ #{kind}-{entry.name} }}\n\n{python}\n\n```text\n{about}\n```\n")
    return "\n".join(parts)


CLASSES: dict[str, Mapping[str, type]] = {"grow": GROWTH, "prune": PRUNING, "when": TRIGGERS, "where": SELECTIONS}
TITLES = {"grow": "How to grow", "prune": "How to prune", "when": "When", "where": "Where"}


MARKS = {"@@reference@@": reference, "@@tables@@": tables, "@@campaign file@@": campaign_file.tables}
