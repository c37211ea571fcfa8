"""What a driver costs that watches 1,000 trials running as jobs. Goals: at most 2 MB a trial, at most 4 Slurm calls a minute.

The campaign, Ray Tune, the broker and all files are real; only the jobs are simulated: `sbatch` and `squeue` are stand-ins, and a
process writes what the jobs would write. Beside it: memory and start of one Ray actor a trial, and how often submitit asks Slurm
about as many jobs.

    python benchmarks/broker.py [TRIALS]
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from submitit.slurm.slurm import SlurmJob

from coppice.orchestrator.campaign.run import run
from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.placement.ray_session import ray_session

EPOCHS, EPOCH_S, POLL_S = 3, 30.0, 30.0
SBATCH = """#!/bin/sh
n=$(cat {state}/number 2>/dev/null || echo 1); echo $((n + 1)) > {state}/number
echo "$(sed -n 's/.*--array=0-\\([0-9]*\\)%.*/\\1/p' "$1") $n" >> {state}/handed
echo "Submitted batch job $n"
"""
SQUEUE = """#!/bin/sh
echo squeue >> {state}/calls
cat {state}/queue 2>/dev/null || true
"""
SACCT = """#!/bin/sh
echo sacct >> {state}/calls
"""


def stand_ins(state: Path) -> None:
    """Put stand-ins of Slurm's commands on the PATH."""
    nothing = "#!/bin/sh\n"
    commands = {"sbatch": SBATCH, "squeue": SQUEUE, "sacct": SACCT, "srun": nothing, "scancel": nothing}
    for name, text in commands.items():
        (state / name).write_text(text.format(state=state))
        (state / name).chmod(0o755)
    os.environ["PATH"] = f"{state}:{os.environ['PATH']}"


def simulate(state: str, campaign: str) -> None:
    """The jobs: write the events of every trial that was handed in, epoch by epoch."""
    trials: dict[str, int] = {}
    while True:
        began = time.monotonic()
        journal = Path(campaign) / "jobs" / "journal.jsonl"
        attempts = [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
        jobs = {attempt["key"]: attempt["job"] for attempt in attempts if attempt["job"]}
        for key in sorted(jobs):
            trials[key] = trials.get(key, 0) + 1
            write_epoch(Path(campaign) / "trials" / key, trials[key])
        states = {k: "RUNNING" if trials[k] <= EPOCHS else "COMPLETED" for k in trials}
        rows = [f"{jobs[k].replace('_', ';')};{i};{states[k]};None;node1;0;N/A;coppice;" for i, k in enumerate(trials)]
        new = Path(state) / "queue.new"
        new.write_text("\n".join(rows) + "\n")
        new.rename(Path(state) / "queue")
        time.sleep(max(0.0, EPOCH_S - (time.monotonic() - began)))


def write_epoch(trial: Path, epoch: int) -> None:
    head = {"trial": trial.name, "time": time.time(), "epoch": min(epoch, EPOCHS), "step": epoch}
    events: list[dict[str, Any]] = []
    if epoch == 1:
        events.append({"type": "status", **head, "status": "started"})
    if epoch <= EPOCHS:
        values = {"val_accuracy": 0.1 * epoch, "val_loss": 1.0 / epoch, "compute": float(epoch)}
        events.append({"type": "metrics", **head, **values, "parameters": 1.0, "flops": 1.0, "seconds": 1.0})
    if epoch == EPOCHS:
        events.append({"type": "status", **head, "status": "finished"})
    with open(trial / "events.jsonl", "ab") as file:
        file.write(b"".join(json.dumps(e).encode() + b"\n" for e in events))


def memory_mb() -> float:
    """Private memory of this process."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_", "Pss_Shmem"))) / 1024


def driver(state: Path, count: int) -> tuple[float, float, float, float]:
    """Run the campaign; returns MB a trial, CPU seconds, minutes, Slurm calls a minute."""
    spec = Campaign.model_validate({
        "name": "many", "root": state,
        "task": {"dataset": "digits", "network": "mlp", "network_args": {"x": {"uniform": [0, 1]}}},
        "training": {"epochs": EPOCHS}, "search": {"trials": count, "sampler": "random"},
        "placement": {"job": {"site": "generic", "poll_s": POLL_S}},
    })  # fmt: skip
    process = multiprocessing.get_context("spawn").Process(target=simulate, args=(str(state), str(state / "many")), daemon=True)
    with ray_session(num_cpus=1, num_gpus=0):
        before, cpu, began = memory_mb(), resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        peak = Peak()
        process.start()
        outcome = run(spec)
        process.terminate()
        after, minutes = resource.getrusage(resource.RUSAGE_SELF), (time.monotonic() - began) / 60
    assert len(outcome.trials) == count and all(t.state == "finished" for t in outcome.trials), "all trials must finish"
    calls = len((state / "calls").read_text().split())
    spent = after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime
    return (peak.stop() - before) / count, spent, minutes, calls / minutes


class Peak(threading.Thread):
    """Watches the largest memory of this process."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.value, self.ended = 0.0, threading.Event()
        self.start()

    def run(self) -> None:
        while not self.ended.wait(1.0):
            self.value = max(self.value, memory_mb())

    def stop(self) -> float:
        self.ended.set()
        return self.value


ACTORS = """
import time, ray
from pathlib import Path
ray.init(num_cpus=64, include_dashboard=False, log_to_driver=False)
@ray.remote(num_cpus=1)
class Watcher:
    def __init__(self):
        import coppice.orchestrator.placement.local.trainable
    def memory(self):
        text = Path("/proc/self/smaps_rollup").read_text().splitlines()
        usage = __import__("resource").getrusage(0)
        return sum(int(l.split()[1]) for l in text if l.startswith("Private_")) / 1024, usage.ru_utime + usage.ru_stime
watchers = [Watcher.remote() for _ in range({count})]
used = ray.get([w.memory.remote() for w in watchers])
print(sum(m for m, _ in used) / {count}, sum(c for _, c in used) / {count})
"""


def actors(count: int) -> tuple[float, float]:
    """MB and CPU seconds of one actor a trial."""
    text = ACTORS.replace("{count}", str(count))
    printed = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout
    memory, cpu = printed.strip().split("\n")[-1].split()
    return float(memory), float(cpu)


def submitit_calls(state: Path, count: int, minutes: float) -> float:
    """How often submitit asks Slurm in a minute when `done` of every job is asked every ten seconds."""
    (state / "calls").write_text("")
    jobs: list[Any] = [SlurmJob(state, str(100 + i)) for i in range(count)]
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        for job in jobs:
            job.done()
        time.sleep(10)
    return len((state / "calls").read_text().split()) / minutes


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory(prefix="broker-") as folder:
        state = Path(folder)
        stand_ins(state)
        memory, cpu, minutes, calls = driver(state, count)
        actor_memory, actor_cpu = actors(4)
        their_calls = submitit_calls(state, count, 0.5)
    print(f"{count} trials as jobs, {EPOCHS} epochs each, {minutes:.1f} min:")
    print(f"  memory a trial: {memory:.2f} MB (goal <= 2), an actor: {actor_memory:.0f} MB: {actor_memory / memory:.0f}x")
    print(f"  CPU a trial: {1000 * cpu / count:.0f} ms in all, the start of an actor: {1000 * actor_cpu:.0f} ms")
    print(f"  Slurm calls a minute: {calls:.1f} (goal <= 4); submitit for as many jobs: {their_calls:.1f}")


if __name__ == "__main__":
    main()
