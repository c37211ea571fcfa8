"""Stand-ins of Slurm's commands and answers, for what a real one says only under conditions that a test cannot make."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from coppice.slurm.broker.broker import Broker
from coppice.slurm.broker.journal import Journal
from coppice.slurm.broker.work import Work
from coppice.slurm.client import Client, Job, SlurmError, SlurmUnreachable
from coppice.slurm.site import Site

SBATCH = """#!/bin/sh
n=$(sed -n 's/.*--array=0-\\([0-9]*\\)%.*/\\1/p' "$1"); n=$((${{n:-0}} + 1))
if [ -f {state}/array ] && [ $n -gt $(cat {state}/array) ]; then
    echo "sbatch: error: Batch job submission failed: Invalid job array specification" >&2; exit 1
fi
if [ -f {state}/room ] && [ $n -gt $(cat {state}/room) ]; then
    echo "sbatch: error: AssocMaxSubmitJobLimit" >&2
    echo "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit" >&2; exit 1
fi
if [ -f {state}/refuse ] && grep -q -e "$(head -1 {state}/refuse)" "$1"; then sed 1d {state}/refuse >&2; exit 1; fi
job=$(($(cat {state}/number 2>/dev/null || echo 99) + 1)); echo $job > {state}/number
echo "$n $job $(grep -o 'exclude=.*' "$1")" >> {state}/taken
[ -f {state}/room ] && echo $(($(cat {state}/room) - n)) > {state}/room
if [ -f {state}/lost ]; then cat {state}/lost >&2; exit 1; fi
echo "Submitted batch job $job"
"""


@dataclass
class FakeClient(Client):
    """Answers with what the test has put here."""

    jobs: dict[str, Job] = field(default_factory=dict)
    accounts: dict[str, Job] = field(default_factory=dict)
    away: str = ""
    refuses: str = ""
    without_accounts: bool = False
    accounts_away: bool = False
    may_not_cancel: bool = False
    cancelled: list[str] = field(default_factory=list)

    def _answer(self) -> None:
        if self.away:
            raise SlurmUnreachable(self.away)
        if self.refuses:
            raise SlurmError(self.refuses)

    def live(self) -> dict[str, Job]:
        self._answer()
        return dict(self.jobs)

    def ended(self, ids: Iterable[str]) -> dict[str, Job]:
        self._answer()
        if self.accounts_away:
            raise SlurmUnreachable("sacct: error: Unable to contact slurmdbd")
        if self.without_accounts:
            raise SlurmError("sacct ended with 1: Slurm accounting storage is disabled")
        return {i: self.accounts[i] for i in ids if i in self.accounts}

    def cancel(self, ids: Iterable[str], signal: str | None = None, patience_s: float | None = None) -> None:
        self._answer()
        if self.may_not_cancel and set(ids):
            raise SlurmError("scancel: error: Kill job error on job id 9: Access/permission denied")
        self.cancelled += sorted(ids)


class Stage:
    """A broker before stand-ins; `at` is its clock."""

    def __init__(self, state: Path, patch: pytest.MonkeyPatch, **site: object) -> None:
        self.state, self.at, self.client = state, 0.0, FakeClient()
        for name, text in {"sbatch": SBATCH.format(state=state), "srun": "#!/bin/sh\n"}.items():
            (state / name).write_text(text)
            (state / name).chmod(0o755)
        patch.setenv("PATH", f"{state}:/usr/bin:/bin")
        (state / "jobs").mkdir(exist_ok=True)
        self.site = Site.model_validate({"name": "there", "queues": [{"max_min": 100}], "limits": {"poll_every_s": 30}, **site})
        self.broker = self.driver()

    def driver(self) -> Broker:
        journal = Journal(self.state / "jobs" / "journal.jsonl")
        return Broker("ours", self.state / "jobs", self.site, journal, client=self.client, clock=lambda: self.at)

    def set(self, name: str, text: str) -> None:
        (self.state / name).write_text(text)

    def unset(self, name: str) -> None:
        (self.state / name).unlink()

    def taken(self) -> list[str]:
        """Every array that sbatch has taken: tasks, id, exclude."""
        path = self.state / "taken"
        return path.read_text().splitlines() if path.exists() else []

    def poll(self, times: int = 1) -> None:
        for _ in range(times):
            self.at += 301.0  # longer than the slowest pace
            self.broker.poll()

    def add(self, count: int, **options: str) -> list[str]:
        keys = [f"w{i}" for i in range(count)]
        for key in keys:
            self.broker.add(Work(key, print, {"time": "5", **options}))
        return keys

    def runs(self, key: str, state: str = "RUNNING", **about: str) -> str:
        """Slurm says this of the work's job."""
        attempt = self.broker.tracked(key).attempt
        assert attempt is not None
        self.client.jobs[attempt.job] = Job(attempt.job, "ours", state, **{"nodes": "node1", **about})  # type: ignore[arg-type]
        return attempt.job

