"""YAML by the core schema of YAML 1.2, with limits: what a campaign file needs, and nothing that surprises or explodes.

`yes`, `no`, `on` and `off` are words, `1:30` is a word, `1e-4` is a number. Numbers that two versions of YAML read differently
(`010`), that are not finite, or that no machine holds are errors, and so are tags, keys that are no words, and deep nesting.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

DEEPEST = 40
"""Levels of nesting that a file may have."""
MOST_VALUES = 20_000
"""Values that a file may have, with those that references (`*name`) repeat."""
LARGEST = 2**63 - 1
"""Largest whole number."""
MAP, SEQ, STR, INT, FLOAT, BOOL, NULL, MERGE = (
    f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null", "merge"))
WORDS = "~nNtTfF"
NUMERIC = "-+.0123456789"
RESOLVERS = (
    (NULL, r"~|null|Null|NULL|", ["", *WORDS]),
    (BOOL, r"true|True|TRUE|false|False|FALSE", list(WORDS)),
    (INT, r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list(NUMERIC)),
    (FLOAT, r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list(NUMERIC)),
    (MERGE, "<<", ["<"]),
)  # fmt: skip


class Refused(yaml.MarkedYAMLError):
    """YAML that is well formed, but not for a campaign file."""

    def __init__(self, problem: str, node: Any) -> None:
        super().__init__(problem=problem, problem_mark=node.start_mark)


class CoreLoader(yaml.SafeLoader):
    """Composes and constructs as the module says."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth, self._values = 0, 0
        self._sizes: dict[int, int] = {}
        self._open: set[str] = set()

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """One node and all below it, counted."""
        event = self.peek_event()
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.AliasEvent):
            if anchor in self._open:
                raise Refused(f"*{anchor} must stand outside of what it refers to, but is in it; write the value out", event)
            node = super().compose_node(parent, index)
            self._count(self._sizes.get(id(node), 1), event)
            return node
        if getattr(event, "tag", None) is not None:
            raise Refused(f"values must have no tags, but one has {event.tag!r}; write the value alone", event)
        before, self._depth = self._values, self._depth + 1
        if self._depth > DEEPEST:
            raise Refused(f"values must be nested at most {DEEPEST} deep, but go deeper here; close the brackets before", event)
        self._count(1, event)
        self._open.add(anchor or "")
        node = super().compose_node(parent, index)
        self._open.discard(anchor or "")
        self._depth -= 1
        self._sizes[id(node)] = self._values - before
        return node

    def _count(self, values: int, event: yaml.Event) -> None:
        self._values += values
        if self._values > MOST_VALUES:
            raise Refused(f"a file must have at most {MOST_VALUES:,} values, but this one has more; delete some", event)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys are words."""
        for key, _ in node.value:
            if key.tag not in (STR, MERGE):
                written = repr(key.value) if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                hint = " in quotes" if isinstance(key, yaml.ScalarNode) else ""
                raise Refused(f"a key must be a word, but is {written}; write a word{hint}", key)
        return super().construct_mapping(node, deep)


def _whole(loader: CoreLoader, node: yaml.ScalarNode) -> int:
    """A whole number, in decimal, `0o17` or `0x1f`."""
    text = node.value
    sign, digits = text[: text[0] in "-+"], text.lstrip("-+")
    if len(digits) > 1 and digits[0] == "0" and digits[1] not in "ox":
        raise Refused(f"a number must not begin with 0, which some take for octal, but is {_short(text)}; leave the 0 out", node)
    base = {"0o": 8, "0x": 16}.get(digits[:2].lower(), 10)
    number = int(sign + digits, base) if len(digits) < 30 else LARGEST + 1
    if abs(number) > LARGEST:
        raise Refused(f"a whole number must lie within {-LARGEST} and {LARGEST}, but is {_short(text)}", node)
    return number


def _real(loader: CoreLoader, node: yaml.ScalarNode) -> float:
    text = node.value
    number = math.nan if text.lower().lstrip("-+") in (".inf", ".nan") else float(text)
    if not math.isfinite(number):
        raise Refused(f"a number must be finite, but is {_short(text)}; leave out what shall have no limit", node)
    return number


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:20]}... ({len(text)} characters)"


def _text(loader: CoreLoader, node: yaml.ScalarNode) -> str:
    text: str = node.value
    control = next((c for c in text if (ord(c) < 32 and c not in "\n\t") or ord(c) == 127), None)
    if control is not None:
        raise Refused(f"a text must have no control characters, but has U+{ord(control):04X}; delete it", node)
    return text


def _truth(loader: CoreLoader, node: yaml.ScalarNode) -> bool:
    return node.value.lower() == "true"


for _tag, _pattern, _first in RESOLVERS:
    CoreLoader.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), _first)
for _tag, _construct in ((INT, _whole), (FLOAT, _real), (BOOL, _truth), (STR, _text)):
    CoreLoader.add_constructor(_tag, _construct)
