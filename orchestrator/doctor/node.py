"""A tiny job that looks at a compute node from within, handed in like every other job."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coppice.orchestrator.doctor import machine
from coppice.orchestrator.doctor.finding import Finding, ok, problem, warning
from coppice.orchestrator.folder.files import read_json, write_json
from coppice.slurm.client import Client, Job, SlurmError
from coppice.slurm.reasons import explained
from coppice.slurm.request import Request, options
from coppice.slurm.site import Site, SiteError
from coppice.slurm.submission import executor, parameters, submit_all

MINUTES = 10
CLOCK_S = 2.0
"""Clocks that differ by more make times in logs misleading."""
REQUEUED_WITHIN_S = 60.0
"""How long the job waits to be killed once it has asked to be requeued."""
ENDS_WITHIN_S = 10.0
"""How long the job may take to end once it has written what it saw; its folder is deleted then."""
POLL_S = 2.0


@dataclass(frozen=True)
class Probe:
    """Runs on the node.

    Attributes:
        folder: shared with the machine that asks.
        secret: what a file written there must hold.
        local_disk: of the site file.
        requeue: whether the job asks to be requeued, once.
    """

    folder: Path
    secret: str
    local_disk: str | None
    requeue: bool

    def __call__(self) -> str:
        """Look around, and write down what there is."""
        said = self.folder / "said"
        seen = said.read_text() if said.exists() else ""
        restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        refused = self._requeue() if self.requeue and restarts == 0 else ""
        stamp = self.folder / "stamp"
        stamp.write_text("node")
        ahead_s = time.time() - stamp.stat().st_mtime
        own = {"secret": seen, "restarts": restarts, "refused": refused, "ahead_s": ahead_s}
        write_json(self.folder / "facts.json", {**machine.described(self.local_disk), **own})
        return "seen"

    def _requeue(self) -> str:
        """Ask to be requeued; returns why that was refused, since otherwise this process is killed."""
        job = os.environ["SLURM_JOB_ID"]
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode == 0:
            time.sleep(REQUEUED_WITHIN_S)
            return "Slurm agreed, but nothing happened"
        return (done.stderr or done.stdout).strip() or f"scontrol ended with {done.returncode}"


def on_node(
    root: Path, site: Site, request: Request, client: Client, *, wait_s: float, requeue: bool, tell: Callable[[str], None]
) -> list[Finding]:
    """Hand in a tiny job, wait for it, and judge what it has seen.

    Args:
        root: folder of campaigns, or of one.
        site: where.
        request: of a trial: the tiny job asks for one such GPU where a trial has any.
        client: Slurm's commands.
        wait_s: for how long; the job is cancelled then.
        requeue: whether to try what requeueing does.
        tell: gets a line whenever something changes.
    """
    small = replace(request, time_min=MINUTES, nodes=1, gpus=min(request.gpus, 1), cpus=None, memory_gb=None)
    folder = Path(tempfile.mkdtemp(prefix=".coppice-doctor-", dir=root))
    secret = secrets.token_hex(16)
    (folder / "said").write_text(secret)
    job = ""
    try:
        probe = Probe(folder, secret, site.local_disk, requeue)
        slurm = executor(folder, parameters(site, options(site, small), "coppice-doctor", 1))
        job = submit_all(slurm, [probe])[0]
        tell(f"The node is looked at by job {job}; this takes as long as the queue does, at most {wait_s:g} s.")
        last = _wait(folder, job, client, wait_s, tell)
        return _findings(folder, last, secret, small.gpus, wait_s, requeue)
    except (SlurmError, SiteError) as error:
        return [problem("node", str(error), "see the checks above")]
    finally:
        if job:
            _cancel(client, job)
        shutil.rmtree(folder, ignore_errors=True)


def _cancel(client: Client, job: str) -> None:
    try:
        client.cancel([job])
    except SlurmError:
        return


def _wait(folder: Path, job: str, client: Client, wait_s: float, tell: Callable[[str], None]) -> Job:
    """Until the job has written what it saw, has ended, or the time is up; how it was last seen."""
    deadline = time.monotonic() + wait_s
    last, shown = Job(job, "", "PENDING"), ""
    while not (folder / "facts.json").exists() and time.monotonic() < deadline and not last.ended:
        try:
            last = client.live().get(job, last)
        except SlurmError as error:
            tell(str(error))
        where = f" on {last.nodes}" if last.nodes else ""
        line = f"job {job} {last.state.lower()}{where}{' (' + explained(last.reason) + ')' if last.reason else ''}"
        if line != shown:
            tell(line)
            shown = line
        time.sleep(min(POLL_S, wait_s))
    deadline = time.monotonic() + ENDS_WITHIN_S
    while (folder / "facts.json").exists() and not any(folder.glob("*_result.pkl")) and time.monotonic() < deadline:
        time.sleep(0.1)
    return last


def _findings(folder: Path, last: Job, secret: str, gpus: int, wait_s: float, requeue: bool) -> list[Finding]:
    if not (folder / "facts.json").exists():
        return [_silent(folder, last, wait_s)]
    there = read_json(folder / "facts.json")
    here = machine.described()
    findings = [
        machine.compared(here, there),
        *machine.check_machine(there, gpus, "node: ")[1:],
        _shared(there, secret),
        _clock(folder, there),
    ]
    return [*findings, _requeued(there)] if requeue else findings


def _silent(folder: Path, last: Job, wait_s: float) -> Finding:
    if not last.ended:
        reason = f": {explained(last.reason)}" if last.reason else ""
        summary = f"job {last.id} has not run within {wait_s:g} s, it is {last.state.lower()}{reason}; it was cancelled"
        return warning("node", summary, "try again with a longer --wait")
    log = "\n".join(p.read_text(errors="replace").strip() for p in sorted(folder.glob(f"{last.id}_*_log.out")))
    summary = f"job {last.id} on {last.nodes or 'no node'} ended as {last.state}{f' ({last.reason})' if last.reason else ''}"
    if not log:
        advice = "the folder must be on a file system that the nodes share: choose another root"
        return problem("node", f"{summary}, and nothing of it can be seen in {folder.parent}", advice)
    end = " / ".join(log.splitlines()[-4:])
    return problem("node", f"{summary}; its log ends: {end}", "the environment must work on the nodes, too")


def _shared(there: Any, secret: str) -> Finding:
    if there["secret"] != secret:
        summary = f"{there['host']} can write there, but does not see what is written here"
        return problem("node: folder", summary, "choose a root on a file system that all nodes share")
    return ok("node: folder", f"{there['host']} sees what is written here, and the other way round")


def _clock(folder: Path, there: Any) -> Finding:
    """Both clocks against the file system's, which stamps what they write."""
    stamp = folder / "stamp-here"
    stamp.write_text("here")
    difference = float(there["ahead_s"]) - (time.time() - stamp.stat().st_mtime)
    summary = f"differs from this machine's by {abs(difference):.1f} s"
    if abs(difference) > CLOCK_S:
        return warning("node: clock", summary, "times in logs and tables are off by that; tell the site")
    return ok("node: clock", summary)


def _requeued(there: Any) -> Finding:
    if there["restarts"]:
        return ok("node: requeue", "the job has requeued itself and was run again")
    advice = "set requeue to no in the site file; drivers queue their successors beforehand anyway"
    return warning("node: requeue", f"the job could not requeue itself: {there['refused']}", advice)
