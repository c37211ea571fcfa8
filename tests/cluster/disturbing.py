"""What tests of disturbed campaigns share: the campaign, and the looks at it afterwards."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from coppice.orchestrator.campaign import load_spec
from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.folder.layout import CampaignFolder, TrialFolder
from coppice.orchestrator.folder.trials import TrialRecords
from tests.support.chained import RAN, accuracy, link
from tests.support.slurm.cluster import Cluster
from tests.support.slurm.processes import wait_for
from tests.support.waiting import LIMIT_S

CAMPAIGN = """
name: {name}
root: "{root}"
task: {{dataset: digits, network: "tests.support.chained:anything", network_args: {{x: {{uniform: [0, 1]}}, sleep_s: {sleep}}}}}
training: {{epochs: {epochs}}}
search: {{trials: {trials}, sampler: random}}
body: tests.support.chained:Chained
resources: {{hours: {hours}}}
placement: {{job: {{site: "{site}", poll_s: 0.5, {more}}}}}
"""


def coppice(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "coppice", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)


class Submitted:
    """A campaign whose driver is a job."""

    def __init__(self, slurm: Cluster, root: Path, driver_site: str = "generic", **content: Any) -> None:
        self.slurm, self.file = slurm, root / "c.yaml"
        fill = {"name": "c", "root": root, "sleep": 1.0, "epochs": 8, "trials": 4, "hours": 1, "site": "generic", "more": ""}
        self.file.write_text(CAMPAIGN.format(**{**fill, **content}))
        done = coppice("submit", str(self.file), "--site", driver_site, "--hours", "1")
        assert done.returncode == 0, done.stderr
        self.driver = done.stderr.split(" is job ")[1].split(";")[0]
        self.folder = CampaignFolder(root / "c")
        self.spec: Campaign = load_spec(self.folder).model_copy(update={"root": root})
        trials = self.spec.search.trials
        wait_for("trials", lambda: self.folder.trials_path.is_dir() and len(self.folder.trials()) >= trials)

    def ended(self, timeout: float = 400) -> None:
        """Until all results are there and no job is left."""
        there = self.folder.results / "trials.parquet"
        wait_for(f"the end of the campaign ({self.log()})", lambda: there.exists() and not live(self.slurm), step=0.2)

    def log(self) -> str:
        """The end of the driver's log."""
        log = self.folder.jobs / "driver.log"
        return log.read_text(errors="replace")[-600:] if log.exists() else ""


def live(slurm: Cluster) -> str:
    """Jobs that run, wait or end; something where Slurm does not say."""
    try:
        return slurm.command("squeue", "-h", "-t", "PD,R,CG", "-o", "%i %j %T %R").strip()
    except Exception:  # the controller is being restarted
        return "?"


def node_of(slurm: Cluster, job: str) -> str:
    """Where a job runs."""
    return str(wait_for(f"job {job} to run", lambda: slurm.command("squeue", "-h", "-t", "R", "-j", job, "-o", "%N").strip()))


def left_running(slurm: Cluster) -> list[str]:
    """Command lines of all processes that a job of this cluster has started, wherever they are."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            variables = path.read_bytes().split(b"\0")
            ours = f"SLURM_CONF={slurm.settings.conf}".encode() in variables
            if ours and any(v.startswith(b"SLURM_JOB_ID=") for v in variables):
                found.append((path.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


def ran(trial: TrialFolder) -> list[dict[str, Any]]:
    """What all attempts at a trial have done, oldest first."""
    lines = (trial.path / RAN).read_text().splitlines()
    return sorted((json.loads(line) for line in lines), key=lambda r: r["time"])


def undisturbed(spec: Campaign) -> None:
    """Every trial has finished, with each epoch once and the results that follow from its seed and value."""
    for entry in TrialRecords(CampaignFolder(spec.root / spec.name)).entries():
        x, epochs = entry.spec["task"]["network_args"]["x"], entry.spec["training"]["epochs"]
        chains = [str(entry.spec["seed"])]
        for epoch in range(1, epochs + 1):
            chains.append(link(chains[-1], epoch, x))
        assert entry.state == "finished", entry
        assert [r["val_accuracy"] for r in entry.reports] == [accuracy(chain) for chain in chains[1:]], entry.id
        assert [r["epoch"] for r in entry.reports] == list(range(1, epochs + 1)), entry.id


def nothing_ran_twice(folder: CampaignFolder) -> None:
    """At no time did two attempts train the same trial: whoever ends an epoch is the last that has begun one."""
    for trial in folder.trials():
        now = None
        for line in ran(trial):
            who = (line["job"], line["restarts"], line["pid"])
            if line["what"] == "begin":
                now = who
            else:
                assert who == now, f"{trial.name}: two attempts at a time: {line}"
