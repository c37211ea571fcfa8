"""What one asks on Monday morning, on a real Slurm: what runs and what waits, why, what it costs; and whether a node is fit."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from coppice.orchestrator.campaign import run
from coppice.orchestrator.cli.commands import app
from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.operations.queue import cancel
from coppice.orchestrator.placement.job_names import pool_jobs_name
from coppice.slurm.broker.journal import Attempt, Journal
from coppice.slurm.client import Client
from tests.cluster.test_job_placement import entries, in_jobs, job_of, wait_for_epochs
from tests.orchestrator.cli.test_elements import output
from tests.slurm.test_client import submit
from tests.support.campaigns import campaign, driving
from tests.support.folders import create
from tests.support.slurm.cluster import Cluster
from tests.support.slurm.processes import wait_for
from tests.support.waiting import LIMIT_S

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
SITE = "queues: [{max_min: 60, partition: main}]\nmemory_style: none\nlimits: {poll_every_s: 0.5}\n"


def waiting_campaign(root: Path) -> Campaign:
    """Three trials of which two may run at a time."""
    arguments = {"x": {"uniform": [0, 1]}, "sleep_s": 0.7}
    return in_jobs(campaign(root, arguments, training={"epochs": 8}, search={"trials": 3, "sampler": "random"}), parallel=2)


def row(text: str, trial: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(trial))


def test_a_campaign_is_followed_from_its_folder_alone(slurm: Cluster, tmp_path: Path) -> None:
    spec = waiting_campaign(tmp_path / "it's $(touch owned); here")
    folder = CampaignFolder(spec.root / "c")
    with driving(spec) as process:
        wait_for_epochs(spec, 2, 1)
        wait_for("the third", lambda: row(output("status", str(folder.path)), "t0002").split()[1] == "queued")
        text = output("status", str(folder.path))
        assert re.search(rf"t0000 +running .* {job_of(spec, 't0000')} +node\d +0\.\d", row(text, "t0000")), text
        assert "The driver runs" in text
        assert "t0002: JobArrayTaskLimit: as many jobs of the campaign run as may" in text
        process.kill()
    log = [sys.executable, "-m", "coppice", "logs", "-f", str(folder.path), "t0000"]
    with subprocess.Popen(log, stdout=subprocess.PIPE, text=True) as following:
        try:
            assert "No driver runs. Go on with: coppice resume" in output("status", str(folder.path))
            first = job_of(spec, "t0000")
            slurm.command("scancel", first)
            slurm.command("scontrol", "requeue", job_of(spec, "t0001"))
            assert run(spec, resume=True).state == "finished"
            told, _ = following.communicate(timeout=LIMIT_S)
        finally:
            following.kill()
    second = job_of(spec, "t0000")
    headings = [line.split(",")[0] for line in told.splitlines() if line.startswith("== ")]
    assert headings == [f"== job {first}", f"== job {second}"] and first != second
    assert told.count("Starting with JobEnvironment") == 2 and told.count("epoch   8  val_accuracy") == 1
    assert any(line.endswith("finished") for line in told.splitlines()) and "resumed" in told
    assert not Path("owned").exists()
    costs(slurm, folder, spec)
    without_controller(slurm, folder)


def costs(slurm: Cluster, folder: CampaignFolder, spec: Campaign) -> None:
    """`top` says what the accounts say."""
    rows: list[list[str]] = []

    def accounted() -> bool:
        text = slurm.command("sacct", "-n", "-X", "-P", "-D", "-o", "JobName,State,ElapsedRaw,AllocCPUS,Submit,Start,End")
        rows[:] = [line.split("|") for line in text.splitlines() if f"c-{folder.identity()}" in line]
        return len(rows) >= 5 and all(r[6] != "Unknown" for r in rows)

    wait_for("the accounts", accounted)
    found = json.loads(output("top", str(folder.path), "--json"))
    assert found["total"]["core_hours"] == pytest.approx(sum(int(r[2]) * int(r[3]) for r in rows) / 3600)
    trials = {t["name"]: t for t in found["trials"]}
    assert (len(trials["t0001"]["jobs"]), trials["t0001"]["runs"]) == (1, 2)
    assert len(trials["t0000"]["jobs"]) == 2 and trials["t0000"]["epochs"] == 8 and trials["t0002"]["waited_s"] > 0
    assert not found["notes"]
    text = output("top", str(folder.path))
    assert re.search(r"^total +finished +5 ", text, re.MULTILINE) and "How busy the processors were is not available" in text
    text = output("status", str(folder.path))
    assert "3 trials: 3 finished" in text and "every trial so far has ended" in text and "Used so far: 0.0" in text
    assert {e.state for e in entries(spec)} == {"finished"}


def without_controller(slurm: Cluster, folder: CampaignFolder) -> None:
    """Slurm is away: the folder still tells what it knows."""
    slurm.daemon("stop", "slurmctld", ["ctl"])
    text = output("status", str(folder.path))
    assert "Slurm cannot be asked, so states are those of the folder: squeue" in text and "t0002  finished" in text


def test_nodes_of_a_pool_have_their_own_rows(slurm: Cluster, tmp_path: Path) -> None:
    spec, client = campaign(tmp_path), Client()
    folder = CampaignFolder(tmp_path / "c")
    create(folder, spec)
    named = ("-J", pool_jobs_name(spec, folder))
    jobs = [submit(client, tmp_path, "sleep 600", "-c", "3", *named), submit(client, tmp_path, "sleep 600", "--hold", *named)]
    (folder.jobs / "pool" / "1").mkdir(parents=True)
    Journal(folder.jobs / "pool" / "1" / "journal.jsonl").add(
        [Attempt(f"node{i}", 1, j, time.time()) for i, j in enumerate(jobs)]
    )
    wait_for("the first to run", lambda: client.live()[jobs[0]].state == "RUNNING")
    text = output("status", str(folder.path))
    assert re.search(rf"^pool1\.node0 +{jobs[0]} +running +node\d", text, re.MULTILINE), text
    assert re.search(r"^pool1\.node1: JobHeld\w+: .* hold", text, re.MULTILINE), text
    found = wait_for(
        "hours", lambda: (t := json.loads(output("top", str(folder.path), "--json")))["total"]["core_hours"] and t
    )
    assert found["others"][0]["core_hours"] == pytest.approx(3 * found["others"][0]["ran_s"] / 3600)
    cancel(folder, client, [])
    wait_for("both to end", lambda: all(client.live()[j].ended for j in jobs))


def doctor(*arguments: str) -> tuple[int, dict[str, dict[str, Any]], str]:
    """Exit code, findings by check, and messages."""
    done = CliRunner().invoke(app, ["doctor", *arguments, "--json"], catch_exceptions=False)
    return done.exit_code, {f["check"]: f for f in json.loads(done.stdout)}, done.stderr


def site_file(folder: Path, text: str = SITE) -> str:
    path = folder / "site.yaml"
    path.write_text(text)
    return str(path)


def test_a_node_is_looked_at_from_within(slurm: Cluster, tmp_path: Path) -> None:
    root = tmp_path / "a 'root' $(touch owned)"
    root.mkdir()
    code, found, told = doctor("--site", site_file(tmp_path), "--root", str(root), "--on-node", "--requeue", "--wait", "100")
    assert code == 0, [f for f in found.values() if f["level"] != "ok"]
    ok = {"slurm", "sacct", "partition", "arrays", "requeue", "node: environment", "node: folder", "node: clock", "node: ports",
          "node: requeue", "job of a trial"}  # fmt: skip
    assert {c for c, f in found.items() if f["level"] == "ok"} >= ok, found
    assert found["node: folder"]["found"].startswith("node" if slurm.settings.namespaces else "")
    assert "The node is looked at by job " in told and not os.listdir(root) and not Path("owned").exists()
    wait_for("the job to be gone", lambda: not slurm.command("squeue", "-h", "-t", "PD,R,CG").strip())


def test_what_the_site_file_has_wrong_is_found(slurm: Cluster, tmp_path: Path) -> None:
    wrong = "queues: [{max_min: 60, partition: nowhere}, {max_min: 90, qos: urgent}]\nlimits: {array_size: 5000}\n"
    code, found, _ = doctor("--site", site_file(tmp_path, wrong + "account: {required: true}\n"), "--root", str(tmp_path))
    assert code == 1
    assert {c for c, f in found.items() if f["level"] == "problem"} == {"partition", "qos", "arrays", "account", "job of a trial"}
    assert "main" in found["partition"]["found"] and "set limits.array_size to 1000" in found["arrays"]["advice"]


def test_a_trial_with_gpus_that_torch_does_not_see(slurm: Cluster, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        f"{{name: c, root: {tmp_path}, task: {{dataset: digits, network: mlp}}, training: {{epochs: 1}}, "
        "resources: {gpus: 1, hours: 1}}"
    )
    site = site_file(tmp_path, SITE + "gpu_nodes: [{per_node: 4, cpus_per_gpu: 1}]\n")
    code, found, _ = doctor(str(tmp_path / "c.yaml"), "--site", site, "--on-node", "--wait", "100")
    assert code == 1 and found["node: gpus"]["level"] == "problem" and "PyTorch sees none" in found["node: gpus"]["found"]
    assert "--gres=gpu:1" in found["job of a trial"]["found"]


def test_a_folder_that_nodes_do_not_share_is_found(machines: Cluster, tmp_path: Path) -> None:
    private = Path(machines.settings.private[0]) / f"coppice-{tmp_path.name}"
    private.mkdir(parents=True)
    try:
        code, found, _ = doctor("--site", site_file(tmp_path), "--root", str(private), "--on-node", "--wait", "60")
        assert code == 1 and found["node"]["level"] == "problem"
        assert "must be on a file system that the nodes share" in found["node"]["advice"]
    finally:
        shutil.rmtree(private)


def test_a_node_that_nobody_gets_is_given_up_after_a_while(slurm: Cluster, tmp_path: Path) -> None:
    for node in slurm.names:
        slurm.command("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    code, found, _ = doctor("--site", site_file(tmp_path), "--root", str(tmp_path), "--on-node", "--wait", "4")
    assert code == 0 and found["node"]["level"] == "warning" and "has not run within 4 s" in found["node"]["found"]
    wait_for("the job to be gone", lambda: not slurm.command("squeue", "-h", "-t", "PD,R").strip())
