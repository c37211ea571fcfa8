"""Slurm's commands, without a shell: arguments are lists, times are limited, a controller that is away is asked again."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

ENDED = frozenset(
    ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT")
)
"""States that a job does not leave, unless it is requeued."""
UNREACHABLE = (
    "Unable to contact slurm controller", "Socket timed out", "Connection refused", "Zero Bytes were transmitted",
    "Resource temporarily unavailable", "slurm_persist_conn_open", "Connection timed out", "temporarily unable to accept job",
    "temporarily disabled", "Unable to contact slurmdbd", "backup controller",
)  # fmt: skip
"""What Slurm's commands say while its daemons are away or busy: trying again helps."""
FULL = re.compile(r"Max\w*Submit|job submit limit reached|job queue full|Invalid job array specification")
"""How Slurm refuses jobs because they are too many, of this user or in one array: fewer are taken, or later."""
UNKNOWN_JOB = ("Invalid job id", "already completing or completed", "Job has already finished")
"""What scancel says of jobs that have ended long ago: there is nothing to cancel."""


class SlurmError(RuntimeError):
    """A Slurm command was refused; the message holds what it said."""


class SlurmUnreachable(SlurmError):
    """Slurm's controller or accounting did not answer; nothing is known, and nothing was changed as far as one can tell."""


class SlurmFull(SlurmError):
    """Slurm takes no more jobs of this user now, or not so many in one array."""


def refusal(printed: str, message: str) -> SlurmError:
    """The kind of error that Slurm's words mean.

    Args:
        printed: by the command.
        message: of the error.
    """
    if any(phrase in printed for phrase in UNREACHABLE):
        return SlurmUnreachable(message)
    return SlurmFull(message) if FULL.search(printed) else SlurmError(message)


@dataclass(frozen=True)
class Job:
    """A job (or one task of an array) as Slurm knows it.

    Attributes:
        id: `123` or `123_4`.
        name: given when it was handed in; empty where the accounts were asked.
        state: PENDING, RUNNING, COMPLETED, ...
        reason: why it waits, or how it ended.
        nodes: where it runs or ran, as Slurm writes lists of nodes.
        restarts: how often it has been requeued.
        exit: `code:signal`; empty while it is under way.
        start: when it started or, where Slurm has an idea, when it will (local time, ISO 8601); else empty.
    """

    id: str
    name: str
    state: str
    reason: str = ""
    nodes: str = ""
    restarts: int = 0
    exit: str = ""
    start: str = ""

    @property
    def ended(self) -> bool:
        """Whether it will not run again by itself."""
        return self.state in ENDED


@dataclass
class Client:
    """Runs Slurm's commands.

    Attributes:
        timeout_s: of one command.
        patience_s: how long a controller that does not answer is asked again.
        sleep: waits between tries.
        calls: how often each command was run.
    """

    timeout_s: float = 60.0
    patience_s: float = 30.0
    sleep: Callable[[float], None] = time.sleep
    calls: dict[str, int] = field(default_factory=dict)

    def run(self, *command: str, patience_s: float | None = None) -> str:
        """What a command prints.

        Raises:
            SlurmUnreachable: no answer within the patience.
            SlurmError: it is not installed, or it refused.
        """
        if shutil.which(command[0]) is None:
            raise SlurmError(f"{command[0]} must be installed where campaigns are started, but is not on the PATH.")
        left, pause = self.patience_s if patience_s is None else patience_s, 0.5
        while True:
            self.calls[command[0]] = self.calls.get(command[0], 0) + 1
            message = self._try(command)
            if isinstance(message, str):
                return message
            if left <= 0:
                raise message
            self.sleep(min(pause, left))
            left, pause = left - pause, pause * 2

    def _try(self, command: Sequence[str]) -> str | SlurmUnreachable:
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=self.timeout_s, stdin=subprocess.DEVNULL, check=False
            )
        except subprocess.TimeoutExpired:
            return SlurmUnreachable(f"{command[0]} did not answer within {self.timeout_s:g} s.")
        if done.returncode == 0:
            return done.stdout
        said = (done.stderr or done.stdout).strip()
        error = refusal(said, f"{' '.join(command[:2])} ended with {done.returncode}: {said}")
        if isinstance(error, SlurmUnreachable):
            return error
        raise error

    def live(self) -> dict[str, Job]:
        """Every job of this user that the controller still knows, tasks of arrays one by one, by id: one call.

        Raises:
            SlurmUnreachable: the controller does not answer.
        """
        fields = ("ArrayJobID", "ArrayTaskID", "JobID", "State", "Reason", "NodeList", "RestartCnt", "StartTime", "Name")
        form = ",".join(f"{name}:;" for name in fields)
        user = str(os.getuid())  # by number: names in the environment may be another user's
        printed = self.run("squeue", "-h", "-r", "-t", "all", "-u", user, "-O", form, patience_s=0.0)
        return {job.id: job for job in map(_live_job, printed.splitlines()) if job is not None}

    def ended(self, ids: Iterable[str]) -> dict[str, Job]:
        """How jobs ended, from the accounts: one call; those that the accounts do not know (yet) are left out.

        Raises:
            SlurmError: there are no accounts at this site.
            SlurmUnreachable: they do not answer.
        """
        wanted = sorted(set(ids))
        if not wanted:
            return {}
        form = "JobID,State,Reason,NodeList,ExitCode"
        printed = self.run("sacct", "-n", "-X", "-P", "-j", ",".join(wanted), "-o", form, patience_s=0.0)
        return {job.id: job for job in map(_ended_job, printed.splitlines()) if job is not None}

    def cancel(self, ids: Iterable[str], signal: str | None = None, patience_s: float | None = None) -> None:
        """Cancel jobs (or signal them and their batch scripts); those that have ended are none of its business.

        Raises:
            SlurmUnreachable: no answer within the patience.
            SlurmError: a job may not be cancelled.
        """
        wanted = sorted(set(ids))
        if not wanted:
            return
        try:
            self.run("scancel", *(["--full", f"--signal={signal}"] if signal else []), *wanted, patience_s=patience_s)
        except SlurmUnreachable:
            raise
        except SlurmError as error:
            lines = [line for line in str(error).splitlines() if "error" in line]
            if not lines or not all(any(phrase in line for phrase in UNKNOWN_JOB) for line in lines):
                raise


def _live_job(line: str) -> Job | None:
    """A row of squeue; the name comes last, since it may hold anything."""
    parts = line.split(";", 8)
    if len(parts) < 9:
        return None
    array, task, single, state, reason, nodes, restarts, start = (p.strip() for p in parts[:8])
    job = f"{array}_{task}" if task not in ("", "N/A") else single
    name = parts[8].rstrip().removesuffix(";")
    begins = "" if start == "N/A" else start
    return Job(job, name, state, _or_none(reason), nodes, int(restarts) if restarts.isdigit() else 0, start=begins)


def _ended_job(line: str) -> Job | None:
    """A row of sacct. Names are left out: until the start of a job is accounted for they are wrong."""
    parts = line.split("|")
    if len(parts) < 5:
        return None
    job, state, reason, nodes, code = parts[:5]
    return Job(job, "", state.split()[0] if state else "", _or_none(reason), nodes, 0, code)


def _or_none(reason: str) -> str:
    return "" if reason == "None" else reason
