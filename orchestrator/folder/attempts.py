"""Keeps an older attempt at a trial from writing over a newer one.

A node that has lost the network goes on running its job while Slurm runs the job again elsewhere. Each attempt has a token that
grows; the newest one is written into the trial's folder, and an attempt that finds a newer token there ends before it writes.
"""

from __future__ import annotations

from pathlib import Path

from coppice.orchestrator.folder.files import read_json, write_json

Token = tuple[int, int]
"""(number of the job, how often Slurm has requeued it)."""
NAME = "attempt.json"
CLOSED = 2**31
"""In the place of the number of requeues: no attempt under that job number may write any more."""
_CLAIMED: dict[Path, Token] = {}


class Superseded(BaseException):
    """A newer attempt runs this trial. Not an Exception: nothing of this attempt may handle it by writing."""


def newest(trial: Path) -> Token | None:
    """Token of the newest attempt at a trial; None where it never ran as a job."""
    path = trial / NAME
    if not path.exists():
        return None
    number, restarts = read_json(path)["token"]
    return int(number), int(restarts)


def claim(trial: Path, token: Token) -> None:
    """From here on this process is attempt `token` at the trial.

    Raises:
        Superseded: there is a newer one.
    """
    current = newest(trial)
    if current is not None and current > token:
        raise Superseded(f"{trial} is run by the newer attempt {current}, so attempt {token} ends.")
    write_json(trial / NAME, {"token": list(token)})
    _CLAIMED[trial.absolute()] = token


def supersede(trial: Path) -> Token:
    """A token for a new attempt; whoever runs the trial with an older one ends before it writes again.

    Only for the process that starts all attempts: numbers of jobs stay as they are, so that a later job has a larger token.
    """
    number, restarts = newest(trial) or (0, 0)
    write_json(trial / NAME, {"token": [number, restarts + 1]})
    return number, restarts + 1


def check(trial: Path) -> None:
    """Call before anything is written into a trial's folder. Costs nothing where trials are not jobs.

    Raises:
        Superseded: a newer attempt runs the trial.
    """
    token = _CLAIMED.get(trial.absolute()) if _CLAIMED else None
    if token is not None and newest(trial) != token:
        raise Superseded(f"{trial} is run by the newer attempt {newest(trial)}, so attempt {token} ends.")


def held(trial: Path) -> bool:
    """Whether this process is an attempt at the trial: others may be under way."""
    return trial.absolute() in _CLAIMED


def close(trial: Path) -> None:
    """Let no attempt so far write any more; a later one may. Nothing where the trial never ran as a job."""
    current = newest(trial)
    if current is not None:
        write_json(trial / NAME, {"token": [current[0], CLOSED]})


def release(trial: Path) -> None:
    """This process has nothing to do with the trial any more."""
    _CLAIMED.pop(trial.absolute(), None)
