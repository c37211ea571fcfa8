"""Handing in jobs through submitit: single ones, and arrays of those that ask for the same."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from coppice.slurm.client import SlurmError, refusal
from coppice.slurm.site import Site

SIGNAL_DELAY_S = 120
"""How long before its time limit a job is signalled, where the limit is long enough."""
KEPT = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT")
"""Variables that are settings of Slurm's commands, and do not tell of the job that a process is in."""
NAMED = {
    "time": "time", "nodes": "nodes", "ntasks-per-node": "ntasks_per_node", "cpus-per-task": "cpus_per_task", "mem": "mem",
    "mem-per-cpu": "mem_per_cpu", "mem-per-gpu": "mem_per_gpu", "partition": "partition", "qos": "qos", "gres": "gres",
    "gpus-per-node": "gpus_per_node", "constraint": "constraint", "account": "account", "exclude": "exclude",
}  # fmt: skip
"""Options of sbatch that submitit has names for; others are passed on as they are."""
PYTHON = f"{shlex.quote(sys.executable)} -P"
"""How jobs start Python: modules of the directory they run in do not come before installed packages."""
NUMBERS = ("time", "nodes", "ntasks_per_node", "cpus_per_task", "gpus_per_node")


def notice_s(time_min: int, most: int) -> int:
    """How many seconds before a time limit of `time_min` minutes a job is told: `most`, but at most a quarter of the limit.

    Slurm tells jobs at once whose limit is shorter than their notice, and then they would do next to nothing.
    """
    return min(most, 60 * time_min // 4)


def parameters(site: Site, options: Mapping[str, str], name: str, parallel: int) -> dict[str, Any]:
    """submitit's parameters for jobs with these options.

    Args:
        site: whose prologue, wckey and srun arguments apply.
        options: of sbatch, by long name (`coppice.slurm.request.options`).
        name: of the jobs.
        parallel: how many tasks of an array may run at a time.
    """
    known = {NAMED[k]: int(v) if NAMED[k] in NUMBERS else v for k, v in options.items() if k in NAMED}
    further: dict[str, Any] = {k: v or True for k, v in options.items() if k not in NAMED}
    # since Slurm 22.05 srun does not take this over from sbatch, and gives each task one core
    cores = [f"--cpus-per-task={options['cpus-per-task']}"] if "cpus-per-task" in options else []
    notice = notice_s(int(options["time"]), SIGNAL_DELAY_S) if "time" in options else SIGNAL_DELAY_S
    return {
        **known, "job_name": name, "wckey": site.wckey, "signal_delay_s": notice, "stderr_to_stdout": True,
        "array_parallelism": parallel, "setup": list(site.prologue) or None,
        "srun_args": [*cores, *site.srun_args, "--kill-on-bad-exit=1"], "additional_parameters": {"requeue": True, **further},
    }  # fmt: skip


def executor(folder: Path, options: Mapping[str, Any]) -> Any:
    """A submitit executor with these parameters, which keeps its files in `folder`, on a file system that the nodes share.

    Raises:
        SlurmError: submitit or Slurm is not installed here.
    """
    try:
        from submitit import SlurmExecutor

        made = SlurmExecutor(folder, max_num_timeout=0, python=PYTHON)
    except ImportError:
        raise SlurmError("submitit must be installed to hand in jobs, but is not: pip install submitit.") from None
    except RuntimeError as error:
        raise SlurmError(f"jobs are handed in where Slurm is (srun must be on the PATH), but: {error}.") from None
    made.update_parameters(**options)
    return made


def script(folder: Path, site: Site, options: Mapping[str, str], name: str) -> str:
    """The text of the sbatch script with which such a job is handed in; works where there is no Slurm, too."""
    from submitit.slurm.slurm import _make_sbatch_string

    command = f"{PYTHON} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    return str(_make_sbatch_string(command=command, folder=folder, **parameters(site, options, name, 1)))


def submit_all(made: Any, calls: Sequence[Callable[[], Any]]) -> list[str]:
    """Hand in one job for each call, as one array where there are several; returns their ids in this order.

    Raises:
        SlurmUnreachable: Slurm does not answer; whether it has taken the jobs is not known.
        SlurmFull: there are too many, for now or for one array.
        SlurmError: Slurm refused; the message holds what it said.
    """
    from submitit.core.utils import FailedJobError

    try:
        with outside_of_jobs():
            if len(calls) == 1:
                return [str(made.submit(calls[0]).job_id)]
            with made.batch():
                jobs = [made.submit(call) for call in calls]
            return [str(job.job_id) for job in jobs]
    except FailedJobError as error:
        raise refusal(str(error), f"Slurm refused the job: {error}") from error


@contextlib.contextmanager
def outside_of_jobs() -> Iterator[None]:
    """Within: what Slurm has told this process of its own job is out of sight.

    A job that is handed in from within a job inherits the variables of that one, and srun takes those that the new job does not
    set itself for requests: memory, GPUs, distribution.
    """
    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    hidden = {name: value for name, value in os.environ.items() if name.startswith("SLURM_") and name not in KEPT}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)
