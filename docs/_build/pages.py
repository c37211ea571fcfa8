"""What the site says that the code knows: the campaign file's keys, the tables of methods, the list of public names."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import campaign_file  # noqa: E402

from coppice.orchestrator.cli.method_tables import entries  # noqa: E402

GROUPS = {
    "Networks and what changes them": ("coppice.methods.",),
    "Campaigns and trials": ("coppice.orchestrator.",),
    "Triggers": ("coppice.scheduler.",),
}
CHOSEN_BY_NAME = ("methods.growth", "methods.pruning", "methods.selection.", "scheduler.triggers.")
"""Classes that the page of methods shows already."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in the places that are marked in the pages."""
    for mark, make in MARKS.items():
        if mark in markdown:
            markdown = markdown.replace(mark, make())
    return markdown


def reference() -> str:
    """A heading for each group, and mkdocstrings' mark for each public name that is not one of the tables."""
    lines = ast.parse((ROOT / "coppice" / "__init__.pyi").read_text()).body
    names = [(str(line.module), n.name) for line in lines if isinstance(line, ast.ImportFrom) for n in line.names]
    parts = []
    for title, places in GROUPS.items():
        parts.append(f"## {title}\n")
        for module, name in sorted(names, key=lambda pair: pair[1].lower()):
            by_name = any(module.startswith(f"coppice.{place}") for place in CHOSEN_BY_NAME)
            if module.startswith(places) and not by_name:
                parts.append(f"::: {module}.{name}\n")
    return "\n".join(parts)


def tables() -> str:
    """Every method, trigger and selection in full."""
    parts, kind = [], ""
    for entry in entries():
        if entry.kind != kind:
            kind = entry.kind
            parts.append(f"## {TITLES[kind]}\n")
        parts.append(f"### {entry.name} {{ #{kind}-{entry.name} }}\n\n```text\n{entry.in_full().partition(chr(10))[2].strip()}\n```\n")
    return "\n".join(parts)


TITLES = {"grow": "How to grow", "prune": "How to prune", "when": "When", "where": "Where"}


MARKS = {"@@reference@@": reference, "@@tables@@": tables, "@@campaign file@@": campaign_file.tables}
