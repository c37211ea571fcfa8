"""Checkpoints: what the network is, its tensors, its optimizer and the trial's state; atomic, verified, no pickle.

A checkpoint is a folder `checkpoints/<epoch>/` with `architecture.json`, `model.safetensors`, `optimizer.safetensors`,
`state.json`, a copy of the trial's `events.jsonl` and, written last, `MANIFEST.json` with the size and CRC-32 of each: enough to
tell a file that was truncated, edited or damaged, and cheap beside writing it (a cryptographic hash takes as long as the disk).
The folder is filled under a temporary name, synced and renamed; without a valid manifest it does not exist.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import re
import shutil
import stat
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from coppice.orchestrator.folder.events import EVENTS
from coppice.orchestrator.folder.manifest import FORMAT, MANIFEST, STATE, CheckpointError, available, manifest, verified

__all__ = ["MANIFEST", "Checkpoint", "CheckpointError", "available", "keep_newest", "latest", "read", "write"]

ARCHITECTURE, MODEL, OPTIMIZER = "architecture.json", "model.safetensors", "optimizer.safetensors"
AVERAGE, COMPANION, DATA = "ema|", "companion|", "data|"
"""Prefixes of tensors that are not the network's own: its moving average, what methods keep beside it, how its data is scaled."""
KEPT_CHECKPOINTS = 2
"""A trial keeps so many, so that it can go on where the newest is damaged."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint.

    Attributes:
        architecture: record of the network (`coppice.methods.record.architecture.record`).
        tensors: the network's tensors by name.
        optimizer: the optimizer's tensors by `state.name`.
        state: JSON-able rest: epoch, step, compute, history, schedules, the optimizer's scalars.
        events: the trial's file of events as it was, from which that file is restored; empty where its writer keeps none.
    """

    architecture: dict[str, Any]
    tensors: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    state: dict[str, Any]
    events: bytes = b""


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def own_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's own tensors among those of a checkpoint."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith((AVERAGE, COMPANION, DATA))}


def write(folder: Path, epoch: int, checkpoint: Checkpoint) -> Path:
    """Write `folder/<epoch>` atomically and return its path.

    Raises:
        CheckpointError: the disk is full or refuses; earlier checkpoints are untouched.
    """
    target = folder / f"{epoch:06d}"
    temporary = folder / f".{target.name}.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        _write_files(temporary, checkpoint)
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
        _sync_folder(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        why = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error)
        raise CheckpointError(
            f"checkpoint {target} must be writable, but {why}; earlier checkpoints are untouched: make room and resume."
        ) from error
    return target


def _write_files(folder: Path, checkpoint: Checkpoint) -> None:
    writers: dict[str, Callable[[Path], None]] = {
        MODEL: lambda path: _write_tensors(path, checkpoint.tensors),
        OPTIMIZER: lambda path: _write_tensors(path, checkpoint.optimizer),
        ARCHITECTURE: lambda path: _write_json(path, checkpoint.architecture),
        STATE: lambda path: _write_json(path, checkpoint.state),
    }
    if checkpoint.events:
        writers[EVENTS] = lambda path: _write_bytes(path, checkpoint.events)
    entries = {name: _write_file(folder / name, write) for name, write in writers.items()}
    _write_file(folder / MANIFEST, lambda path: _write_json(path, {"format": FORMAT, "files": entries}))
    _sync_folder(folder)


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors; who may read them is for the umask to say, as for any other file (safetensors closes its own to others)."""
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    save_file(dict(tensors), path)
    path.chmod(mode)


def _write_json(path: Path, value: Any) -> None:
    _write_bytes(path, json.dumps(value, separators=(",", ":")).encode())


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _write_file(path: Path, write: Callable[[Path], None]) -> dict[str, Any]:
    """Write and sync a file; returns its entry in the manifest."""
    try:
        write(path)
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        raise OSError(int(code[1]) if code else errno.EIO, str(error)) from error
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return {"bytes": len(content), "crc32": zlib.crc32(content)}


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises:
        CheckpointError: a file is missing, truncated or was edited; the message names it.
    """
    files = manifest(path)
    content = {name: verified(path / name, entry) for name, entry in files.items()}
    for name in (ARCHITECTURE, MODEL, OPTIMIZER, STATE):
        if name not in content:
            raise CheckpointError(f"{path / MANIFEST} must list {name}, but it does not; use an earlier checkpoint.")
    try:
        return Checkpoint(
            json.loads(content[ARCHITECTURE]), load(content[MODEL]), load(content[OPTIMIZER]), json.loads(content[STATE]),
            content.get(EVENTS, b""),
        )
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"the files of checkpoint {path} must be readable, but: {error}; use an earlier one.") from error


def latest(folder: Path) -> tuple[Path, Checkpoint, list[str]] | None:
    """The newest valid checkpoint of `folder`, with what is wrong with newer ones; None where there is none at all.

    Raises:
        CheckpointError: there are checkpoints, but none is valid.
    """
    problems: list[str] = []
    for path in reversed(available(folder)):
        try:
            return path, read(path), problems
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        raise CheckpointError(f"no valid checkpoint is left in {folder}: " + " ".join(problems))
    return None


def keep_newest(folder: Path, count: int) -> None:
    """Delete all but the newest `count` checkpoints, and what interrupted writes have left."""
    for path in available(folder)[:-count]:
        (path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".*.tmp"):
        shutil.rmtree(path, ignore_errors=True)
