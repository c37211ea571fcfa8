"""The manifest of a checkpoint: which files it has, whole or not; without PyTorch, for those who only read what is said of it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHECKPOINTS = "checkpoints"
"""Name of the folder in a trial's folder."""
MANIFEST, STATE, FORMAT = "MANIFEST.json", "state.json", "coppice-checkpoint/1"


class CheckpointError(RuntimeError):
    """A checkpoint is missing, damaged or cannot be written; the message names the file."""


def read_file(path: Path, name: str) -> bytes | None:
    """The content of one file of a checkpoint; None where it has no such file.

    Raises:
        CheckpointError: the manifest or the file is missing, truncated or was edited.
    """
    entry = manifest(path).get(name)
    return None if entry is None else verified(path / name, entry)


def manifest(path: Path) -> dict[str, Any]:
    """What a checkpoint's manifest says of its files, by name; errors as those of `read_file`."""
    file = path / MANIFEST
    try:
        manifest = json.loads(file.read_bytes())
        if manifest["format"] != FORMAT:
            raise CheckpointError(f"{file} must have format {FORMAT!r}, but has {manifest['format']!r}.")
        files: dict[str, Any] = manifest["files"]
        return files
    except FileNotFoundError:
        raise CheckpointError(f"{file} must exist, but does not: the checkpoint is not finished; use an earlier one.") from None
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{file} must be a JSON manifest, but is damaged; use an earlier checkpoint.") from None


def verified(file: Path, entry: Mapping[str, Any]) -> bytes:
    """The content of a file, when it is what the manifest says of it; errors as those of `read_file`."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file} must be readable, but {error.strerror}; use an earlier checkpoint.") from error
    if len(content) != entry["bytes"]:
        raise CheckpointError(f"{file} must have {entry['bytes']} bytes, but has {len(content)}; use an earlier checkpoint.")
    if zlib.crc32(content) != entry["crc32"]:
        raise CheckpointError(f"{file} was changed after it was written (CRC-32 differs); use an earlier checkpoint.")
    return content


def available(folder: Path) -> list[Path]:
    """Finished checkpoint folders in `folder`, oldest first (not verified)."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.name.isdigit() and p.is_dir())
