"""Texts that come from files, jobs and other people, without what would steer the terminal on which they are shown."""

from __future__ import annotations

import re

SEQUENCES = re.compile(
    r"(?:\x1b[PX^_\]]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"  # titles, clipboards, fonts: up to their end
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # colours, the cursor, the screen
    r"|\x1b[ -/]*[0-~]?"
)
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
"""What is not seen, but moves the cursor, rings, or turns the direction of what follows. Newlines and tabs stay."""
SURROGATES = re.compile("[\ud800-\udfff]")
"""Bytes of file names that are no text; no terminal can show them."""


def plain(text: str) -> str:
    """`text` with nothing in it that a terminal would obey but newlines and tabs."""
    return SURROGATES.sub("?", CONTROLS.sub("", SEQUENCES.sub("", text)))


def plain_line(text: str) -> str:
    """`plain`, in one line: for names and other things that must not look like several."""
    return " ".join(plain(text).split("\n")).replace("\t", " ")
