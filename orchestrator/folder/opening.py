"""Opening a campaign's folder to run the campaign: making it is one step, and a start that is refused leaves it as it was."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.folder.files import exclusive, write_atomic
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.lock import dump, is_written, load_spec, require_same, write_lock


@dataclass
class Opened:
    """A campaign's folder, held by this process.

    Attributes:
        begun: whether there is no way back: what was made or changed stays.
    """

    _keep: Callable[[], None] = lambda: None
    begun: bool = False

    def begin(self) -> None:
        """Everything is up; what runs from here on can be resumed."""
        if not self.begun:
            self._keep()
        self.begun = True


@contextlib.contextmanager
def made(folder: CampaignFolder, spec: Campaign) -> Iterator[Opened]:
    """Make the folder of a new campaign and hold it meanwhile; unless it is begun, nothing of it is left at the end.

    It is prepared under another name, held, and gets its own name in one step: of two that make it at the same time one does,
    and what is in its lock file is what that one runs.

    Raises:
        FileExistsError: there is something of that name, a campaign or files of another kind.
        OSError: no folder can be made there; the message says where, and why.
    """
    _require_free(folder, spec)
    path = Path(os.path.realpath(folder.path))  # a link may stand for the folder to come
    new_parents = [p for p in path.parents if not p.exists()]
    prepared = CampaignFolder(path.with_name(f".{path.name}.{secrets.token_hex(4)}"))
    opened, was_empty = Opened(), path.is_dir()
    try:
        _make(prepared.trials_path, path.parent)
        write_atomic(prepared.spec, yaml.safe_dump(dump(spec), sort_keys=False).encode())
        write_lock(prepared, spec)
        with exclusive(prepared.in_use):
            prepared.in_use.write_text(_this_process())
            _rename(prepared.path, path, folder, spec)
            try:
                yield opened
            finally:
                if not opened.begun:
                    shutil.rmtree(path, ignore_errors=True)
    finally:
        shutil.rmtree(prepared.path, ignore_errors=True)
        if not opened.begun:
            if was_empty and not path.exists():
                path.mkdir()
            _remove_empty(new_parents)


def _make(folder: Path, root: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise type(error)(f"root {root} must be where you may make folders, but: {error.strerror}; choose another.") from error


def _rename(prepared: Path, path: Path, folder: CampaignFolder, spec: Campaign) -> None:
    try:
        prepared.rename(path)  # an empty folder is replaced
    except OSError:
        _require_free(folder, spec)
        raise


def _require_free(folder: CampaignFolder, spec: Campaign) -> None:
    if folder.lock.exists():
        raise FileExistsError(
            f"a campaign called {spec.name!r} must not exist yet, but {folder.path} holds one; "
            f"go on with it (`coppice resume {folder.path}`, or resume=True) or choose another name."
        )
    if folder.path.exists() and not folder.path.is_dir():
        raise FileExistsError(f"{folder.path} must be a folder to come, but is a file; move it away or choose another name.")
    held = sorted(p.name for p in folder.path.iterdir())[:5] if folder.path.exists() else []
    if held:
        raise FileExistsError(
            f"{folder.path} must not exist yet or be empty, but holds {', '.join(held)} and no campaign; "
            "move that away, or choose another name."
        )


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders as far as nobody has put something into them; the innermost first."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


@contextlib.contextmanager
def reopened(folder: CampaignFolder, spec: Campaign, wait_s: float = 0.0) -> Iterator[Opened]:
    """Hold the folder of a campaign that is to go on as `spec`; unless that is begun, the folder is as before at the end.

    Only its place, the number of trials, how many run at a time, the comparisons, the resources and the placement may have
    changed; `begin` writes them down.

    Args:
        folder: of the campaign.
        spec: the campaign.
        wait_s: how long to wait for another process that holds it.

    Raises:
        FileNotFoundError: there is no campaign in the folder.
        BlockingIOError: another process holds it.
        ValueError: something else has changed; the message names it.
    """
    load_spec(folder)
    with exclusive(folder.in_use, wait_s):
        old = load_spec(folder)
        require_same(old, spec)
        before = {path: path.read_bytes() if path.exists() else None for path in (folder.in_use, folder.cancelled)}
        opened = Opened(lambda: None if is_written(folder, spec) else write_lock(folder, spec))
        folder.in_use.write_text(_this_process())
        folder.cancelled.unlink(missing_ok=True)
        try:
            yield opened
            opened.begin()
        finally:
            if not opened.begun:
                for path, content in before.items():
                    if content is not None:
                        path.write_bytes(content)


def _this_process() -> str:
    """For whoever wonders what holds the campaign."""
    job = os.environ.get("SLURM_JOB_ID", "")
    return f"process {os.getpid()} on {socket.gethostname()}{f', job {job}' if job else ''}"
