"""Coppice: neural networks that grow and prune themselves while they train, and the search for when, where and how.

The names of this package are listed in `__init__.pyi` beside this file, each with the module that it comes from. That module is
imported when the name is first used: `import coppice` itself costs nothing.
"""

import ast
import importlib
from pathlib import Path
from typing import Any


def _listed() -> dict[str, str]:
    """Names by the module they come from."""
    lines = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
    return {name.name: str(line.module) for line in lines if isinstance(line, ast.ImportFrom) for name in line.names}


_MODULES = _listed()
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'coppice' has no attribute {name!r}; it has {', '.join(__all__)}.")
    value = globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
