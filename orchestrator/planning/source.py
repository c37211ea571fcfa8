"""The text of a campaign file: its tree, and the line of every place in it."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from coppice.orchestrator.planning.problems import CampaignError, Fault, Place, Problem
from coppice.orchestrator.planning.yaml_core import CoreLoader, Refused

MOST_BYTES = 2**18
"""Of a campaign file."""


def read_text(path: Path) -> str:
    """The text of a campaign file.

    Raises:
        CampaignError: it is no file, cannot be read, is too long, or is no UTF-8.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, a device or a socket"
            raise _unreadable(path, f"a campaign file must be a file, but this is {kind}; name the file")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, f"the file must be readable, but {error.strerror}") from None
    except ValueError as error:  # a NUL byte in the path
        raise _unreadable(path, f"the file must have a path, but {error}") from None
    if len(content) > MOST_BYTES:
        raise _unreadable(path, f"a campaign file must have at most {MOST_BYTES:,} bytes, but this has more; name another file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        problem = f"the text must be UTF-8, but the byte 0x{content[error.start]:02x} is none; save the file as UTF-8"
        raise CampaignError(str(path), [Problem(line, "", problem)]) from None


def _unreadable(path: Path, message: str) -> CampaignError:
    return CampaignError(str(path), [Problem(0, "", message)])


def parse(text: str) -> Any:
    """The YAML tree, by the core schema of YAML 1.2.

    Raises:
        yaml.YAMLError: it is none; see `syntax_problem`.
    """
    return _read(text)[0]


def parse_with_lines(text: str) -> tuple[Any, Lines | None]:
    """The YAML tree and the lines of what is in it; None for an empty text.

    Raises:
        yaml.YAMLError: it is none; see `syntax_problem`.
    """
    tree, root = _read(text)
    return tree, None if root is None else Lines(root)


def _read(text: str) -> tuple[Any, yaml.Node | None]:
    loader = CoreLoader(text)
    try:
        root = loader.get_single_node()
        return None if root is None else loader.construct_document(root), root
    finally:
        loader.dispose()


def syntax_problem(text: str, error: yaml.YAMLError) -> Problem:
    """Why a text is no YAML, with the line."""
    if isinstance(error, yaml.reader.ReaderError):
        line = text[: error.position].count("\n") + 1
        character = error.character if isinstance(error.character, int) else ord(error.character)
        return Problem(line, "", f"a text must have no control characters, but has U+{character:04X}; delete it")
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    said = getattr(error, "problem", None) or str(error)
    if isinstance(error, Refused):
        return Problem(mark.line + 1 if mark else 1, "", said)
    hint = "; indent with blanks" if "'\\t'" in said else ""
    return Problem(mark.line + 1 if mark else 1, "", f"not valid YAML: {said}{hint}")


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
