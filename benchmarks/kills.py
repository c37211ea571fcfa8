"""Campaigns that are killed at random moments and resumed: each must end as the one that ran through. Nothing lost, none hung.

On this machine: driver, worker, raylet, gcs or all processes at once, half of the kills after a first checkpoint, some of them
while one is written; {no trial scheduler, ASHA} x {TPE, random} x {MLP, ResNet}. On a Slurm that is started for it (needs what
`make slurm` installs): the driver is killed while its trials' jobs go on for several epochs, with ASHA.

    python benchmarks/kills.py [--local 64] [--slurm 20] [--seed 0] [--trials 4] [--epochs 5]
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' Slurm

from tests.support.killing import VICTIMS, Killed, Kind, differences, fingerprint, local_campaign
from tests.support.killing_jobs import away_campaigns

KILLS_A_CAMPAIGN = 4
KINDS = tuple(itertools.product(("none", "asha"), ("tpe", "random"), ("mlp", "resnet")))
"""Trial scheduler, sampler and network."""


@dataclass
class Matrix:
    """What came of the kills.

    Attributes:
        kills: by what was killed.
        late: kills after a first checkpoint.
        wrong: what differs from the campaign that ran through.
        hung: campaigns that did not end.
    """

    kills: Counter[str] = field(default_factory=Counter)
    late: int = 0
    wrong: list[str] = field(default_factory=list)
    hung: list[str] = field(default_factory=list)
    campaigns: int = 0

    def compare(self, killed: Killed, reference: Path) -> None:
        """Look at a campaign that has come to its end."""
        self.campaigns += 1
        wrong = [f"{killed.folder.name}: {d}" for d in differences(fingerprint(reference), fingerprint(killed.folder))]
        self.wrong += wrong
        self.hung += [killed.folder.name] if killed.hung else []
        print(f"  {killed.folder.name}: {self.kills.total()} kills so far", *wrong, sep="\n    ", flush=True)

    def show(self, where: str) -> None:
        """Print the counts."""
        each = ", ".join(f"{victim} {count}" for victim, count in sorted(self.kills.items()))
        kills = f"{self.kills.total()} kills ({each}) over {self.campaigns} campaigns, {self.late} after a first checkpoint"
        print(f"{where}: {kills}: {len(self.wrong)} differences, {len(self.hung)} hung", flush=True)


def here(
    root: Path, kills: int, seed: int, size: tuple[int, int], kinds: Iterable[Kind] = KINDS, victims: Iterable[str] = VICTIMS
) -> Matrix:
    """The kills on this machine; `size` is the number of trials and of epochs of each campaign."""
    draws, matrix, references = random.Random(seed), Matrix(), {}
    next_victim = itertools.cycle(victims)
    for number, kind in enumerate(itertools.cycle(kinds)):
        if matrix.kills.total() >= kills:
            break
        if kind not in references:
            references[kind] = local_campaign(root, "-".join(kind), kind, size).run_through()
        killed = local_campaign(root, f"{'-'.join(kind)}-{number}", kind, size)
        share = max(1, size[0] * size[1] // KILLS_A_CAMPAIGN)
        for part in range(min(KILLS_A_CAMPAIGN, kills - matrix.kills.total())):
            victim, epoch = next(next_victim), draws.randrange(share) + part * share
            if killed.kill(victim, epoch, draws.uniform(0, 0.3)):
                matrix.kills[victim] += 1
                matrix.late += any(killed.folder.glob("trials/*/checkpoints/0*"))
        killed.finish()
        matrix.compare(killed, references[kind])
    return matrix


def at_slurm(root: Path, kills: int, seed: int) -> Matrix:
    """The kills of drivers whose trials are jobs."""
    matrix = Matrix()
    for killed, reference, count in away_campaigns(root, kills, seed):
        matrix.kills["driver"] += count
        matrix.late += count
        matrix.compare(killed, reference)
    return matrix


def main() -> int:
    """Exit status 1 where something differs or hangs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("local", 64), ("slurm", 20), ("seed", 0), ("trials", 4), ("epochs", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory(prefix="kills-", dir="/tmp") as folder:
        for where in ("local", "slurm"):
            root, kills = Path(folder, where), getattr(given, where)
            root.mkdir()
            if kills:
                size = (given.trials, given.epochs)
                matrix = here(root, kills, given.seed, size) if where == "local" else at_slurm(root, kills, given.seed)
                matrix.show(where)
                failed |= bool(matrix.wrong or matrix.hung)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
