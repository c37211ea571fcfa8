"""Whether the place of a campaign is fit for it: writable, large enough, kept for long enough, with short paths."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from coppice.orchestrator.doctor.finding import Finding, ok, output_of, problem, warning
from coppice.orchestrator.folder.files import exclusive
from coppice.orchestrator.folder.layout import DEEPEST
from coppice.orchestrator.user import user_name
from coppice.slurm.site import Scratch

DAY_S = 86400.0
SOON_DAYS = 7
LOOKED_AT = 200_000
"""At most so many files of a campaign are looked at."""
LONGEST_PATH = 255
NEARLY_FULL = 0.95


def check_folder(root: Path, scratch: Scratch, clock: float | None = None) -> list[Finding]:
    """Findings about a folder of campaigns, or of one campaign.

    Args:
        root: the folder; there must be one.
        scratch: of the site.
        clock: seconds since the epoch; None for now.
    """
    return [writable(root), *space(root), *quota(root), *kept(root, scratch, clock or time.time()), paths(root)]


def writable(root: Path) -> Finding:
    """Whether files can be made and locked there."""
    try:
        with tempfile.NamedTemporaryFile(dir=root, prefix=".coppice-doctor-") as file, exclusive(Path(file.name)):
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return problem("folder", f"{root} cannot be written: {error}", "choose another root in the campaign file")
    return ok("folder", f"{root} can be written")


def space(root: Path) -> list[Finding]:
    """Free bytes and files of the file system."""
    disk = os.statvfs(root)
    free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    summary = f"{free / 1e9:,.1f} of {total / 1e9:,.1f} GB free"
    much = free > (1 - NEARLY_FULL) * total or free > 100e9
    findings = [ok("space", summary) if much else warning("space", summary, "delete what is not needed, or choose another root")]
    if disk.f_files:
        summary = f"{disk.f_favail:,} of {disk.f_files:,} files free"
        much = disk.f_favail > (1 - NEARLY_FULL) * disk.f_files or disk.f_favail > 1_000_000
        findings.append(
            ok("files", summary) if much else warning("files", summary, "delete what is not needed, or choose another root")
        )
    return findings


def quota(root: Path) -> list[Finding]:
    """The user's quota there, where a command knows it (`lfs quota`, `quota`)."""
    user = user_name()
    text = output_of("lfs", "quota", "-q", "-u", user, str(root)) or output_of("quota", "-w", "-p")
    findings = []
    for name, used, limit, what in quotas(text):
        summary = f"{used:,.0f} of {limit:,.0f} {what} used on {name}"
        full = used >= NEARLY_FULL * limit
        findings.append(warning("quota", summary, "delete what is not needed, or ask for more") if full else ok("quota", summary))
    return findings


def quotas(text: str) -> Iterator[tuple[str, float, float, str]]:
    """(file system, used, limit, unit) from rows of `file system, kilobytes, soft, hard, grace, files, soft, hard, grace`."""
    for row in re.findall(r"^\s*(/\S+|\S+:/\S*)((?:\s+\S+){7,8})\s*$", text, re.MULTILINE):
        cells = [re.sub(r"\D", "", cell) for cell in row[1].split()]
        if len(cells) < 7 or not all(cells[i].isdigit() for i in (0, 1, 2, 4, 5, 6)):
            continue
        kilobytes, soft, hard, files, soft_files, hard_files = (int(cells[i]) for i in (0, 1, 2, 4, 5, 6))
        if soft or hard:
            yield row[0], kilobytes / 1e6, (soft or hard) / 1e6, "GB"
        if soft_files or hard_files:
            yield row[0], float(files), float(soft_files or hard_files), "files"


def kept(root: Path, scratch: Scratch, clock: float) -> list[Finding]:
    """Whether the site will delete files for their age, and how many there may be."""
    if scratch.days is None and scratch.files is None:
        return []
    ages, count, size = [], 0, 0
    for entry in _files(root):
        try:
            stat = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        ages.append((clock - stat.st_mtime) / DAY_S)
        count, size = count + 1, size + stat.st_size
    findings = []
    if scratch.days is not None:
        findings.append(_expiry(root, scratch.days, ages))
    if scratch.files is not None:
        findings.append(_number(count, size, scratch.files))
    return findings


def _number(count: int, size: int, allowed: int) -> Finding:
    more = " or more" if count >= LOOKED_AT else ""
    summary = f"{count:,}{more} files ({size / 1e9:,.1f} GB) here, {allowed:,} allowed in all"
    if count < allowed / 2:
        return ok("number of files", summary)
    return warning("number of files", summary, "delete campaigns that are over, or keep only their best networks and results")


def _expiry(root: Path, days: int, ages: list[float]) -> Finding:
    oldest = max(ages, default=0.0)
    soon = sum(age > days - SOON_DAYS for age in ages)
    summary = f"files expire after {days} days; the oldest was written {oldest:.0f} days ago"
    advice = f"copy them away, or (where the site permits) find {shlex.quote(str(root))} -type f -exec touch -c {{}} +"
    if oldest > days:
        return problem("expiry", f"{summary}: {sum(a > days for a in ages):,} may be deleted at any time", advice)
    if soon:
        return warning("expiry", f"{summary}: {soon:,} expire within {SOON_DAYS} days", advice)
    return ok("expiry", summary)


def _files(root: Path) -> Iterator[os.DirEntry[str]]:
    waiting, seen = [str(root)], 0
    while waiting and seen < LOOKED_AT:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            else:
                seen += 1
                yield entry


def paths(root: Path) -> Finding:
    """Whether a campaign's longest path is short enough."""
    longest = len(os.fsencode(str(root / DEEPEST)))
    summary = f"the longest path of a campaign here has about {longest} bytes"
    if longest > LONGEST_PATH:
        return warning("paths", summary, f"some tools take no more than {LONGEST_PATH}: choose a shorter root")
    return ok("paths", summary)


def existing(path: Path) -> Path:
    """The nearest folder above a path that exists, or itself."""
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path
