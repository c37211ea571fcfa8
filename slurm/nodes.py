"""Lists of nodes as Slurm writes them: `node[1-3,07],gpu1`."""

from __future__ import annotations

import re


def expand(nodes: str) -> list[str]:
    """The names in a list of nodes, in its order.

    Raises:
        ValueError: the brackets do not fit.
    """
    names: list[str] = []
    for item in _items(nodes):
        match = re.fullmatch(r"([^\[\]]*)\[([^\[\]]*)\](.*)", item)
        if match is None:
            names.append(item)
            continue
        before, ranges, after = match.groups()
        numbers = [number for part in ranges.split(",") for number in _numbers(part)]
        names += [f"{before}{number}{rest}" for number in numbers for rest in expand(after) or [""]]
    return names


def _items(nodes: str) -> list[str]:
    """Parts between the commas outside of brackets."""
    parts, depth, start = [], 0, 0
    for place, letter in enumerate(nodes):
        depth += (letter == "[") - (letter == "]")
        if depth not in (0, 1):
            break
        if letter == "," and depth == 0:
            parts.append(nodes[start:place])
            start = place + 1
    if depth != 0:
        raise ValueError(f"a list of nodes must have brackets that fit, but is {nodes!r}.")
    return [p for p in (*parts, nodes[start:]) if p]


def _numbers(part: str) -> list[str]:
    first, dash, last = part.partition("-")
    if not dash:
        return [first]
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
