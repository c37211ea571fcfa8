"""The folder of a campaign: the only place that knows its file names. Writes are atomic, every file has one writer."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

TRANSIENT = ("metrics", "structural", "skipped", "checkpoint")
"""Event types that a resumed trial writes again for the epochs it repeats."""


def write_atomic(path: Path, content: bytes) -> None:
    """Write `path` so that it has either its old content or all of the new one, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` for a JSON-able value."""
    write_atomic(path, json.dumps(value).encode())


def read_json(path: Path) -> Any:
    """What `write_json` wrote.

    Raises:
        ValueError: the file is damaged; the message names it.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        raise ValueError(f"{path} must be a JSON file, but is damaged; restore it, or delete the trial's folder.") from None


def append_event(path: Path, event: Mapping[str, Any]) -> None:
    """Add one event to a file that has no other writer now; what a killed writer left of its last line is cut off first."""
    with open(path, "ab+") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write(json.dumps(event, separators=(",", ":")).encode() + b"\n")


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of a trial, oldest first; a torn last line (its writer was killed) is left out.

    Raises:
        ValueError: a line before the last is damaged; the message names file and line.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    events = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            events.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}, must be a JSON object, but is damaged; delete that line.") from None
    return events


@contextlib.contextmanager
def exclusive(path: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path`. The lock ends with the process that holds it, however that dies.

    On a file system without locks nothing is held. What the holder writes into the file is shown to those who want it.

    Raises:
        BlockingIOError: another process still holds it after `wait_s` seconds.
    """
    with open(path, "ab") as file:
        deadline = time.monotonic() + wait_s
        while not _lock(file.fileno()):
            if time.monotonic() >= deadline:
                said = path.read_text(errors="replace").strip()
                raise BlockingIOError(
                    f"{path} is held by another process{f' ({said})' if said else ''}; wait until it has ended."
                )
            time.sleep(0.1)
        yield


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
    return True


class TrialFolder:
    """`trials/<id>/`: params.json, events.jsonl, checkpoints/."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_dir():
            path.mkdir(parents=True, exist_ok=True)

    @property
    def name(self) -> str:
        """The trial's id."""
        return self.path.name

    @property
    def params(self) -> Path:
        """What the trial is: its spec, and the sampled values."""
        return self.path / "params.json"

    @property
    def in_use(self) -> Path:
        """Lock file: held by the process that runs the trial."""
        return self.path / ".in-use"

    @property
    def events(self) -> Path:
        """What happened, one JSON object a line."""
        return self.path / "events.jsonl"

    @property
    def checkpoints(self) -> Path:
        """One folder a checkpoint."""
        return self.path / "checkpoints"

    def append_event(self, event: Mapping[str, Any]) -> None:
        """Add one event, unless a newer attempt runs the trial.

        Raises:
            Superseded: it does; see `orchestrator.fence`.
        """
        from orchestrator import fence

        fence.check(self.path)
        append_event(self.events, event)

    def truncate_events(self, epoch: int) -> None:
        """Forget what happened after `epoch`, because the trial goes on from there and will do it again."""
        events = read_events(self.events)
        kept = [e for e in events if e["type"] not in TRANSIENT or e["epoch"] <= epoch]
        if len(kept) != len(events) or not self.events.exists() or not self.events.read_bytes().endswith(b"\n"):
            write_atomic(self.events, b"".join(json.dumps(e, separators=(",", ":")).encode() + b"\n" for e in kept))


class CampaignFolder:
    """`<root>/<campaign>/`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def spec(self) -> Path:
        """The campaign file as it was given."""
        return self.path / "campaign.yaml"

    @property
    def lock(self) -> Path:
        """Resolved configuration, versions, commit and seed."""
        return self.path / "campaign.lock.json"

    @property
    def in_use(self) -> Path:
        """Lock file: held by the process that runs the campaign."""
        return self.path / ".in-use"

    @property
    def jobs(self) -> Path:
        """What concerns Slurm: scripts, logs, the journal of jobs."""
        return self.path / "jobs"

    @property
    def driver_script(self) -> Path:
        """The sbatch script of the campaign's driver."""
        return self.jobs / "driver.sh"

    @property
    def ray_token(self) -> Path:
        """The secret of the campaign's Ray."""
        return self.path / ".ray-token"

    @property
    def dashboard(self) -> Path:
        """Where the campaign's Ray listens."""
        return self.path / "dashboard.json"

    def identity(self) -> str:
        """A few letters that tell this campaign from others of its name."""
        return f"{zlib.crc32(str(self.path.absolute()).encode()):08x}"

    @property
    def tune(self) -> Path:
        """Ray Tune's own files: a cache, never read again."""
        return self.path / "tune"

    @property
    def results(self) -> Path:
        """Parquet tables."""
        return self.path / "results"

    @property
    def report(self) -> Path:
        """The HTML page."""
        return self.path / "report.html"

    @property
    def trials_path(self) -> Path:
        """One folder a trial."""
        return self.path / "trials"

    def trial(self, name: str) -> TrialFolder:
        """The folder of one trial, made when it is missing."""
        return TrialFolder(self.trials_path / name)

    def running(self) -> bool:
        """Whether a process runs the campaign now (on this machine, or where the file system's locks span machines)."""
        if not self.in_use.exists():
            return False
        try:
            with exclusive(self.in_use):
                return False
        except BlockingIOError:
            return True

    def trials(self) -> list[TrialFolder]:
        """All trial folders, by name."""
        if not self.trials_path.is_dir():
            return []
        return [TrialFolder(p) for p in sorted(self.trials_path.iterdir()) if p.is_dir()]
