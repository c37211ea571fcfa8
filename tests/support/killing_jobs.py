"""Campaigns whose trials are jobs of Slurm, and whose driver is killed and stays away for several epochs."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.killing import Killed, end
from tests.support.slurm.cluster import OURS, Cluster
from tests.support.slurm.processes import remove_tree

CAMPAIGN = """
name: {name}
root: "{root}"
task: {{dataset: digits, network: "tests.support.chained:anything", network_args: {{x: {{uniform: [0, 1]}}, sleep_s: {sleep}}}}}
training: {{epochs: 8}}
search: {{trials: {trials}, sampler: random, seed: {seed}, max_concurrent: 1, metric: val_accuracy, mode: max,
  scheduler: {{asha: {{max_epochs: 8, reduction_factor: 2}}}}}}
body: tests.support.chained:Chained
resources: {{hours: 1}}
placement: {{{placement}}}
"""
LOCAL, JOBS = "local: {cpus: 1}", "job: {site: generic, poll_s: 0.5}"
EPOCH_S = 0.4
TRIALS = 6


@contextlib.contextmanager
def a_slurm() -> Iterator[dict[str, str]]:
    """A Slurm for as long as it is needed; the environment that leads to it."""
    state = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    cluster = Cluster(state)
    try:
        cluster.up()
        yield {"SLURM_CONF": str(cluster.settings.conf), "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    finally:
        cluster.down()
        remove_tree(state)


def campaign(root: Path, name: str, placement: str, seed: int, environment: dict[str, str]) -> Killed:
    """Whose epochs take `EPOCH_S`, or nearly nothing on this machine."""
    file = root / f"{name}.yaml"
    sleep = EPOCH_S if placement == JOBS else 0.01
    file.write_text(CAMPAIGN.format(name=name, root=root, placement=placement, seed=seed, sleep=sleep, trials=TRIALS))
    return Killed(file, root / name, environment)


def away(killed: Killed, epochs: int, more: int) -> bool:
    """Kill the driver after so many epochs in all, and stay away until `more` were done or the trial's job has ended."""
    with killed.going() as process:
        if not killed.until(lambda: killed.epochs() >= epochs, process):
            return False
        process.send_signal(signal.SIGKILL)
        process.wait()
        end({})
    done, deadline = killed.epochs(), 120
    for _ in range(int(deadline / 0.2)):
        running = [t for t in killed.folder.glob("trials/t*") if b'"finished"' not in _events(t)]
        if killed.epochs() >= done + more or not running:
            return True
        with contextlib.suppress(TimeoutError):
            signal.sigtimedwait([], 0.2)
    return True


def _events(trial: Path) -> bytes:
    path = trial / "events.jsonl"
    return path.read_bytes() if path.exists() else b""


def away_campaigns(
    root: Path, kills: int, seed: int, environment: dict[str, str] | None = None
) -> Iterator[tuple[Killed, Path, int]]:
    """Campaigns of which the drivers were killed, each with the one that ran through, and how often; as many as it takes."""
    if environment is None:
        for name in [n for n in os.environ if n.startswith(OURS)]:
            del os.environ[name]
        with a_slurm() as environment:
            yield from away_campaigns(root, kills, seed, environment)
        return
    draws, number, done = random.Random(seed), 0, 0
    while done < kills:
        whole = campaign(root, f"whole-{number}", LOCAL, seed + number, environment)
        reference = whole.run_through()
        killed = campaign(root, f"away-{number}", JOBS, seed + number, environment)
        total, count, epochs = whole.epochs(), 0, 0
        while done + count < kills:
            epochs = max(epochs, killed.epochs()) + draws.randrange(1, 4)
            if epochs >= total or not away(killed, epochs, draws.randrange(3, 8)):
                break
            count += 1
        killed.finish()
        yield killed, reference, count
        done, number = done + count, number + 1
