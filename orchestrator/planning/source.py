"""The text of a campaign file: its tree, and the line of every place in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from coppice.orchestrator.planning.problems import Fault, Place, Problem

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


def parse(text: str) -> Any:
    """The YAML tree; `1e-4`, which YAML takes for a string, is a number."""
    return _numbers(yaml.safe_load(text))


def _numbers(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {k: _numbers(v) for k, v in tree.items()}
    if isinstance(tree, list):
        return [_numbers(v) for v in tree]
    return float(tree) if isinstance(tree, str) and NUMBER.fullmatch(tree) else tree


class Lines:
    """The line of every place in a YAML tree.

    Attributes:
        duplicates: keys that are there twice.
    """

    def __init__(self, root: yaml.Node) -> None:
        self._lines: dict[Place, int] = {}
        self.duplicates = tuple(self._read(root, ()))

    def _read(self, node: yaml.Node, place: Place) -> Iterator[Problem]:
        """Note the lines of everything below `node`; yields keys that are there twice."""
        self._lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            keys = set()
            for key, value in node.value:
                inner = (*place, key.value)
                line = self._lines[inner] = key.start_mark.line + 1
                if key.value in keys:
                    yield Problem(line, path_of(inner), "the key is there twice; delete one")
                keys.add(key.value)
                yield from self._read(value, inner)
        elif isinstance(node, yaml.SequenceNode):
            for i, value in enumerate(node.value):
                yield from self._read(value, (*place, i))

    def problem(self, fault: Fault) -> Problem:
        """A fault with its line: that of its place, or of the nearest place above that is in the file."""
        place, message = fault
        known = place
        while known not in self._lines:
            known = known[:-1]
        return Problem(self._lines[known], path_of(place), message)


def path_of(place: Place) -> str:
    """A place as it is written in messages: keys with dots between."""
    return ".".join(map(str, place))
