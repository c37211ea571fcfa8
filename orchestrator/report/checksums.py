"""SHA256SUMS beside files that are handed on: whoever loads them knows that they are whole (`sha256sum -c SHA256SUMS`)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from coppice.orchestrator.folder.files import write_atomic

SUMS = "SHA256SUMS"


def write_sums(folder: Path, names: Sequence[str]) -> None:
    """Write the checksums of these files of `folder`."""
    write_atomic(folder / SUMS, "".join(f"{_sum(folder / name)}  {name}\n" for name in names).encode())


def check_sums(folder: Path, names: Sequence[str]) -> None:
    """Check these files of `folder`; one that was written before there were checksums counts as whole.

    Raises:
        ValueError: one is not what was written, or its checksum is not there; the message names the file.
        OSError: one cannot be read.
    """
    path = folder / SUMS
    if not path.exists():
        return
    lines = (line.split(maxsplit=1) for line in path.read_text(errors="replace").splitlines())
    sums = {parts[1]: parts[0] for parts in lines if len(parts) == 2}
    for name in names:
        if sums.get(name) != _sum(folder / name):
            raise ValueError(
                f"{folder / name} must be what {SUMS} beside it says, but is damaged, or {SUMS} is; write it again: coppice best."
            )


def _sum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
