"""Which modules of the user's a campaign runs: those that its values name, and what these import from the user's folders."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coppice
from coppice.user_code import is_users

REFERENCE = re.compile(r"([A-Za-z_][\w.]*):[A-Za-z_][\w.]*")


def users_modules(values: Any) -> dict[str, Path]:
    """The files of the user's modules by their names, sorted; `values` is a campaign in its JSON form.

    What cannot be found is left out: whoever imports it will say so.
    """
    waiting, found, seen = list(_named(values)), {}, set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        file = _file_of(name)
        if file is not None and is_users(name, str(file)):
            found[name] = file
            waiting += _imported(name, file)
    return dict(sorted(found.items()))


def root_of(module: str, file: Path) -> Path:
    """The folder that must be searched for the module to be found."""
    package = file.name == "__init__.py"
    return file.parents[module.count(".") + package]


def digest(*files: Path) -> str:
    """Of the contents."""
    whole = hashlib.sha256()
    for file in files:
        whole.update(hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()[:16]


def our_digest() -> str:
    """Of our own source."""
    found = []
    for folder, _, names in os.walk(Path(coppice.__file__).parent, followlinks=True):
        found += [Path(folder, name) for name in names if name.endswith(".py")]
    return digest(*sorted(found))


def _named(values: Any) -> Iterator[str]:
    """Modules of references, whether they stand as values or as keys."""
    if isinstance(values, str):
        match = REFERENCE.fullmatch(values)
        if match:
            yield match[1]
    elif isinstance(values, dict):
        for key, value in values.items():
            yield from _named(key)
            yield from _named(value)
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _named(value)


def _file_of(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except Exception:  # its package runs, and may do anything
        return None
    return Path(spec.origin).absolute() if spec and spec.origin and spec.has_location else None


def _imported(module: str, file: Path) -> Iterator[str]:
    """Names that may be modules, of all import statements of a module, wherever they stand."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_packages(alias.name)
        elif isinstance(node, ast.ImportFrom):
            start = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield from _with_packages(base)
            yield from (f"{base}.{alias.name}" for alias in node.names if base and alias.name != "*")


def _with_packages(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[: n + 1]) for n in range(len(parts)) if name)
