"""Starts a trial on several ranks of this machine, each a process of its own, as the tasks of a Slurm job."""

import json
import os
import subprocess
import sys
from pathlib import Path

from coppice.orchestrator.config.models import TrialSpec
from coppice.orchestrator.folder.files import write_json
from coppice.orchestrator.folder.layout import TrialFolder

TASK = """
import sys, json
from coppice.orchestrator.placement.jobs.trial_job import TrialJob
print(TrialJob(json.loads(sys.argv[1]))(int(sys.argv[2])), flush=True)
"""


def prepare(spec: TrialSpec, folder: Path) -> dict[str, object]:
    """The trial's folder, and the task that its job runs."""
    write_json(TrialFolder(folder).params, {"spec": json.loads(spec.model_dump_json())})
    return {"folder": str(folder), "body": "coppice.orchestrator.trial.trial:Trial", "metrics": ["val_loss"], "mode": "min"}


def start(task: dict[str, object], size: int, attempt: int = 1) -> list[subprocess.Popen[str]]:
    """One process for each rank."""
    processes = []
    for rank in range(size):
        slurm = {"SLURM_PROCID": rank, "SLURM_NTASKS": size, "SLURM_LOCALID": rank, "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1"}
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **{k: str(v) for k, v in slurm.items()}}
        command = [sys.executable, "-c", TASK, json.dumps(task), str(attempt)]
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    return processes


def results(processes: list[subprocess.Popen[str]], timeout: float = 120) -> list[tuple[int, str, str]]:
    """(exit code, what was printed, errors) of each, when all have ended."""
    try:
        printed = [p.communicate(timeout=timeout) for p in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [(p.returncode, out.strip(), errors) for p, (out, errors) in zip(processes, printed, strict=True)]
