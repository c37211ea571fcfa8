"""How a job that must end before its work is done hands over to another one, its successor."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from coppice.slurm.client import Client, SlurmError

NOT_DONE = 75
"""Exit code of a job whose work goes on in another one (EX_TEMPFAIL): what `afternotok` waits for."""


@dataclass
class Successor:
    """The job that goes on when this one has ended without success.

    A successor is queued beforehand, so that one is there even after this job is killed without a word. Where the site does not
    let jobs hand in jobs, this one asks to be requeued instead, when its time comes.

    Attributes:
        script: of this job, which is also its successor's.
        client: Slurm's commands.
        job: this job's id; empty outside of Slurm.
        id: of the job that waits; empty when there is none.
    """

    script: Path
    client: Client
    job: str = ""
    id: str = ""

    @staticmethod
    def of_this_job(script: Path, client: Client) -> Successor:
        """For the job that this process runs in."""
        return Successor(script, client, os.environ.get("SLURM_JOB_ID", ""))

    @property
    def note(self) -> Path:
        """Where the successor is written down: a requeued job finds it again."""
        return self.script.with_suffix(".successor")

    def prepare(self) -> None:
        """Queue a successor; where Slurm refuses, there is none."""
        if not self.job:
            return
        written = self.note.read_text().split() if self.note.exists() else []
        if len(written) == 2 and written[0] == self.job:
            self.id = written[1]
            return
        after = (f"--dependency=afternotok:{self.job}", "--kill-on-invalid-dep=yes")
        try:
            self.id = self.client.run("sbatch", "--parsable", *after, str(self.script)).strip().split(";")[0]
        except SlurmError:
            return
        self.note.write_text(f"{self.job} {self.id}")

    def _waits(self) -> bool:
        """Whether there is a successor, as far as Slurm says."""
        if not self.id:
            return False
        try:
            job = self.client.live().get(self.id)
        except SlurmError:
            return True
        return job is not None and not job.ended

    def done(self) -> None:
        """The work is done: no successor is needed."""
        if self.id:
            self.client.cancel([self.id])
        self.note.unlink(missing_ok=True)

    def hand_over(self) -> bool:
        """Whether another job goes on once this one has ended with `NOT_DONE`. A successor that is gone is replaced."""
        if not self.job:
            return False
        if not self._waits():
            self.note.unlink(missing_ok=True)
            self.id = ""
            self.prepare()
        if self.id:
            return True
        try:
            self.client.run("scontrol", "requeue", self.job)
        except SlurmError:
            return False
        return True
