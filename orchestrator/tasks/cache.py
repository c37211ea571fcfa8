"""Keeps what is slow to decode, in one uncompressed file a split, in ~/.cache/coppice or the folder COPPICE_CACHE names."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from coppice.orchestrator.tasks.dataset import Split
from coppice.orchestrator.user import home

FORMAT = "1"
_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where decoded data is kept."""
    return Path(os.environ.get("COPPICE_CACHE") or home() / ".cache" / "coppice")


def cached(name: str, sources: Sequence[Path], options: str, decode: Callable[[], Split]) -> Split:
    """What `decode` returns, from the cache when the sources have not changed since it was written.

    Args:
        name: begins the file's name.
        sources: files that the result comes from; name, size, time of change and last bytes of each are the key.
        options: whatever else the result depends on.
        decode: makes the result; called when it is not in the cache, or is damaged there.
    """
    path = cache_folder() / f"{name}-{_key(sources, options)}.safetensors"
    split = _read(path)
    if split is None:
        split = decode()
        _write(path, split)
    return split


def _key(sources: Sequence[Path], options: str) -> str:
    states = [(p.name, p.stat().st_size, p.stat().st_mtime_ns, _last_bytes(p)) for p in sources]
    return hashlib.sha256(repr((FORMAT, options, states)).encode()).hexdigest()[:20]


def _last_bytes(path: Path) -> bytes:
    """The end of a file: where Parquet keeps its index, which differs between files that agree in all else."""
    with path.open("rb") as file:
        file.seek(-min(2**16, path.stat().st_size), os.SEEK_END)
        return file.read()


def _checksum(split: Split) -> str:
    return str(zlib.crc32(split.targets.numpy().data, zlib.crc32(split.inputs.contiguous().numpy().data)))


def _read(path: Path) -> Split | None:
    try:
        with safe_open(path, framework="pt") as file:
            split = Split(file.get_tensor("inputs"), file.get_tensor("targets"))
            stored = (file.metadata() or {}).get("crc32")
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, ValueError) as error:
        _log.warning("the cached %s is damaged (%s) and is made again", path, error)
        return None
    if stored != _checksum(split):
        _log.warning("the cached %s is damaged (its checksum is wrong) and is made again", path)
        return None
    return split


def _write(path: Path, split: Split) -> None:
    """Write whole or not at all; a cache that cannot be written is only slower."""
    tensors = {"inputs": split.inputs.contiguous(), "targets": split.targets.contiguous()}
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.stem}-", dir=path.parent)
        os.close(descriptor)
        temporary = Path(name)
        save_file(tensors, temporary, metadata={"crc32": _checksum(split)})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        _log.warning("decoded images cannot be kept in %s (%s); they will be decoded again next time", path.parent, error)
        if temporary is not None:
            temporary.unlink(missing_ok=True)
