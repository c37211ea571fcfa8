"""Whatever the cluster does to a campaign: every trial has its results, nothing ran twice, nothing is left running."""

import os
import shutil
import signal
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from coppice.orchestrator.campaign import run
from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.config.placement import LocalPlacement
from coppice.orchestrator.folder.events import read_events
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.placement.ended_jobs import JobsKeepDying
from coppice.slurm.broker.broker import Broker
from coppice.slurm.broker.journal import Journal
from coppice.slurm.broker.work import Work
from coppice.slurm.client import Client, Job
from coppice.slurm.site import Site
from tests.cluster.disturbing import Submitted, coppice, left_running, live, node_of, nothing_ran_twice, ran, undisturbed
from tests.cluster.test_cluster import _written_down as written_down
from tests.cluster.test_job_placement import entries, in_jobs, job_of, same_but_for_jobs, told, wait_for_epochs
from tests.support.campaigns import campaign, driving
from tests.support.slurm.cluster import Cluster
from tests.support.slurm.processes import wait_for
from tests.support.waiting import LIMIT_S

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(900)]
BODY = "tests.support.chained:Chained"
SITE = """
queues: [{max_min: 60, partition: preempt}]
memory_style: mem
requeue: "yes"
preempt_signal: true
"""


GROWING = {
    "name": "c",
    "task": {"dataset": "digits", "network": "mlp", "network_args": {"hidden": [8, 8]}},
    "training": {"epochs": 50, "batch_size": 32, "checkpoint_every": 20, "device": "cpu"},
    "adaptations": [
        {"grow": {"when": {"periodic": {"every": 10}}, "how": "random", "amount": 0.25}},
        {"prune": {"when": {"periodic": {"every": 15}}, "how": "magnitude", "amount": 0.1, "minimum": 4}},
    ],
    "search": {"trials": 3, "sampler": "random"},
    "body": "tests.support.bodies:Unhurried",
}


def driver_process(submitted: Submitted) -> int:
    """The process of the driver, as this machine sees it."""
    words = [b"coppice", b"drive", str(submitted.folder.path).encode()]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        if path.read_bytes().split(b"\0")[-4:-1] == words:
            return int(path.parent.name)
    return 0


def test_a_weekend(machines: Cluster, tmp_path: Path) -> None:
    """In one campaign: time limits, a dead controller, a cut cable, scancel, requeue, a killed driver, preemption,
    and the power lost on the node of the next driver."""
    (tmp_path / "site.yaml").write_text(SITE)
    submitted = Submitted(
        machines, tmp_path, trials=12, epochs=36, sleep=1.4, hours=0.016, site=tmp_path / "site.yaml", more="memory_gb: 12"
    )
    spec, folder = submitted.spec, submitted.folder
    wait_for_epochs(spec, 10, 1)
    drives_on = node_of(machines, submitted.driver)
    trials = {t.name: job_of(spec, t.name) for t in folder.trials()}
    on = {name: machines.command("squeue", "-h", "-j", job, "-o", "%N").strip() for name, job in trials.items()}
    machines.command("scontrol", "update", f"jobid={submitted.driver}", "comment=all-is-known")
    wait_for("the controller to have saved all", lambda: written_down(machines, "all-is-known"))
    machines.daemon("kill", "slurmctld", ["ctl"])
    machines.daemon("run", "slurmctld", ["ctl"])
    wait_for("the controller", lambda: machines.command("squeue", "-h", check=False))
    cut, other = [node for node in machines.names if node != drives_on]
    machines.cable(cut, plugged=False)
    split = next(name for name, node in on.items() if node == cut)
    staying = [name for name, node in on.items() if node == drives_on]
    machines.command("scancel", trials[staying[0]])
    machines.command("scontrol", "requeue", trials[staying[1]])
    os.kill(wait_for("the driver", lambda: driver_process(submitted)), signal.SIGKILL)
    told = {trials[name] for name in staying[:2]} | {trials[name] for name, node in on.items() if node == other}
    machines.command("srun", "-p", "main", "-w", other, "--exclusive", "true", timeout=LIMIT_S)
    wait_for("the cut node to be given up", lambda: machines.node_states().get(cut, "").startswith("down"))
    given_up = time.time()
    wait_for("another attempt at its trial", lambda: {r["restarts"] for r in ran(folder.trial(split))} > {"0"})
    machines.cable(cut, plugged=True)
    drives_on = node_of(machines, wait_for("the next driver", lambda: running_driver(machines)))
    machines.lose_power(drives_on)
    machines.boot(drives_on)
    submitted.ended()
    same_but_for_jobs(spec, tmp_path / "local")
    nothing_ran_twice(folder)
    assert not left_running(machines)
    assert any(r["restarts"] == "0" and r["time"] > given_up for r in ran(folder.trial(split))), "the cut node must go on"
    attempts = Journal(folder.jobs / "journal.jsonl").attempts()
    assert len({a.job for a in attempts[staying[0]] if a.job}) >= 2
    ends = {path.name.removesuffix("_0_result.pkl"): path.read_bytes() for path in folder.jobs.glob("*_result.pkl")}
    assert [job for job, end in ends.items() if b"interrupted" in end and job not in told], "the time limit must come"


def running_driver(slurm: Cluster) -> str:
    """The job of the driver that runs."""
    jobs = [line.split() for line in live(slurm).splitlines()]
    return next((job[0] for job in jobs if job[1:2] and job[1].startswith("coppice-driver-") and job[2] == "RUNNING"), "")


def test_a_driver_that_may_not_queue_a_successor_requeues_itself(slurm: Cluster, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    refuses = 'case "$*" in *--dependency*) echo "sbatch: error: not from within jobs" >&2; exit 1;; esac'
    (tmp_path / "bin" / "sbatch").write_text(f'#!/bin/sh\n{refuses}\nexec {shutil.which("sbatch")} "$@"\n')
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    (tmp_path / "site.yaml").write_text(f"queues: [{{max_min: 60}}]\nprologue: ['export PATH={tmp_path}/bin:$PATH']\n")
    submitted = Submitted(slurm, tmp_path, str(tmp_path / "site.yaml"), epochs=14, sleep=1.0)
    wait_for_epochs(submitted.spec, 4, 2)
    slurm.command("scancel", "--batch", "--signal=USR1", submitted.driver)
    again = ["squeue", "-h", "-t", "all", "-j", submitted.driver, "-O", "RestartCnt"]
    wait_for("the driver to be requeued", lambda: slurm.command(*again, check=False).strip() == "1")
    submitted.ended()
    undisturbed(submitted.spec)
    nothing_ran_twice(submitted.folder)
    names = slurm.command("squeue", "-h", "-t", "all", "-o", "%j %i").splitlines()
    ours = f"coppice-driver-c-{submitted.folder.identity()} "
    assert [line.split()[1] for line in names if line.startswith(ours)] == [submitted.driver]
    attempts = Journal(submitted.folder.jobs / "journal.jsonl").attempts()
    assert {len({a.job for a in found if a.job}) for found in attempts.values()} == {1}, "trials go on while drivers change"


def test_a_cancelled_campaign_leaves_nothing(slurm: Cluster, tmp_path: Path) -> None:
    submitted = Submitted(slurm, tmp_path, epochs=100, trials=3)
    wait_for_epochs(submitted.spec, 3, 1)
    assert len(live(slurm).splitlines()) == 5  # driver, its successor, three trials
    assert left_running(slurm)
    done = coppice("cancel", str(submitted.folder.path))
    assert done.returncode == 0, done.stderr
    wait_for("all jobs to end", lambda: not live(slurm))
    assert not left_running(slurm)
    written = [t.events.read_bytes() for t in submitted.folder.trials()]
    slurm.command("sbatch", "--wait", "-o", "/dev/null", str(submitted.folder.driver_script), timeout=LIMIT_S)  # too late
    assert not live(slurm) and [t.events.read_bytes() for t in submitted.folder.trials()] == written


def test_a_second_driver_is_refused_or_where_locks_do_not_reach_takes_over(
    slurm: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = in_jobs(campaign(tmp_path / "jobs", {"x": {"uniform": [0, 1]}, "sleep_s": 1.0}, training={"epochs": 9},
                            search={"trials": 3, "sampler": "random"}, body=BODY))  # fmt: skip
    with driving(spec) as first:
        wait_for_epochs(spec, 3, 1)
        with pytest.raises(BlockingIOError, match=f"process {first.pid} on "):
            run(spec, resume=True)
        monkeypatch.setattr("coppice.orchestrator.folder.files._lock", lambda *arguments: True)
        assert run(spec, resume=True).state == "finished"
        assert first.wait(LIMIT_S) != 0
    monkeypatch.undo()
    attempts = Journal(spec.root / spec.name / "jobs" / "journal.jsonl").attempts()
    assert {len({a.job for a in found if a.job}) for found in attempts.values()} == {1}
    slurm_still(slurm)
    undisturbed(spec)


def test_jobs_that_cannot_start_stop_the_campaign_and_say_why(
    slurm: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "site.yaml").write_text("queues: [{max_min: 60}]\nprologue: ['echo module torch is not known >&2', 'exit 1']\n")
    spec = campaign(tmp_path / "jobs", search={"trials": 9, "sampler": "random"}, body=BODY)
    spec = in_jobs(spec, site=f"{tmp_path}/site.yaml")
    with pytest.raises(JobsKeepDying, match="module torch is not known"):
        run(spec)
    slurm_still(slurm)
    handed_in = [a for found in Journal(tmp_path / "jobs" / "c" / "jobs" / "journal.jsonl").attempts().values() for a in found]
    assert len({a.job for a in handed_in if a.job}) <= 3 * 9
    assert {e.state for e in entries(spec)} == {"waiting"}


def test_a_node_that_swallows_jobs_is_left_alone(slurm: Cluster, tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text('queues: [{max_min: 60}]\nprologue: [\'[ "$SLURMD_NODENAME" != node1 ] || exit 1\']\n')
    spec = campaign(tmp_path / "jobs", {"x": {"uniform": [0, 1]}}, search={"trials": 5, "sampler": "random"}, body=BODY)
    spec = in_jobs(spec, site=f"{tmp_path}/site.yaml")
    assert run(spec).state == "finished"
    undisturbed(spec)
    name = f"coppice-c-{CampaignFolder(spec.root / spec.name).identity()}"


    def ends() -> list[str]:
        lines = slurm.command("sacct", "-n", "-X", "-P", "-o", "JobName,NodeList,State").splitlines()
        return sorted(line.partition("|")[2] for line in lines if line.startswith(f"{name}|"))

    wait_for("the accounts", lambda: sum("COMPLETED" in end for end in ends()) == 5)
    assert "node1|FAILED" in ends() and len(ends()) <= 10 and not any("node1" in end and "COMPLETED" in end for end in ends())


def test_what_slurm_does_not_take(slurm: Cluster, tmp_path: Path) -> None:
    """Arrays larger than its own limit are cut, more memory than any node has is refused, and all nodes cannot be avoided."""
    for node in slurm.names:
        slurm.command("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    site = Site.model_validate({"name": "s", "queues": [{"max_min": 9}], "limits": {"array_size": 5000, "poll_every_s": 0.1}})
    broker = Broker(f"ours-{os.getpid()}", tmp_path, site, Journal(tmp_path / "journal.jsonl"))
    for i in range(1100):  # the cluster takes 1001
        broker.add(Work(f"w{i}", print, {"time": "5", "nodes": "1"}))
    broker.add(Work("large", print, {"time": "5", "mem": "500G"}))
    broker.add(Work("nowhere", print, {"time": "5", "exclude": ",".join(slurm.names)}))
    wait_for("all to be handed in", lambda: broker.poll() and not broker.waits("nowhere"))
    assert broker.client.live()[broker.tracked("w1099").attempt.job].state == "PENDING"  # type: ignore[union-attr]
    large = broker.tracked("large")
    assert large.over and large.job is not None and large.job.state == "REFUSED"
    assert not broker.tracked("nowhere").over and "exclude" not in broker.tracked("nowhere").work.options
    jobs = [broker.tracked(f"w{i}").attempt.job for i in range(1100)]  # type: ignore[union-attr]
    assert len({job.split("_")[0] for job in jobs}) == 2 and len(set(jobs)) == 1100
    for i in range(1100):
        broker.drop(f"w{i}")
    assert broker.end() == []


def test_a_folder_that_the_nodes_do_not_share_is_said(machines: Cluster) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp/ray") as folder:  # every node has its own
        spec = in_jobs(campaign(Path(folder), search={"trials": 3, "sampler": "random"}, body=BODY))
        with pytest.raises(JobsKeepDying, match="on a file system that the nodes share"):
            run(spec)
    slurm_still(machines)


def test_a_job_that_ran_out_of_memory_gets_more_of_it(
    slurm: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is really killed; that it was for its memory is what a cluster with limits by cgroup says; this one has none."""
    real = Client.live

    def with_cgroups(client: Client) -> dict[str, Job]:
        return {i: replace(j, state="OUT_OF_MEMORY") if j.state == "FAILED" else j for i, j in real(client).items()}

    monkeypatch.setattr(Client, "live", with_cgroups)
    (tmp_path / "site.yaml").write_text("queues: [{max_min: 60}]\nmemory_style: mem\n")
    content = {"training": {"epochs": 3}, "search": {"trials": 1, "sampler": "random"}}
    spec = campaign(tmp_path / "jobs", {"x": 0.5, "die": 2}, **content)
    spec = in_jobs(spec, site=f"{tmp_path}/site.yaml", memory_gb=4)
    assert run(spec).state == "finished"
    name = f"coppice-c-{CampaignFolder(spec.root / spec.name).identity()}"

    def asked() -> list[str]:
        lines = slurm.command("sacct", "-n", "-X", "-P", "-o", "JobName,State,ReqMem").splitlines()
        return [line.partition("|")[2] for line in lines if line.startswith(f"{name}|")]

    wait_for("the accounts", lambda: asked() == ["FAILED|4G", "COMPLETED|6G"])


def test_a_trial_that_is_stopped_has_no_epoch_after_the_decision(slurm: Cluster, tmp_path: Path) -> None:
    """Its job is ahead of the driver."""
    search = {"trials": 2, "sampler": "random", "scheduler": {"asha": {"max_epochs": 5, "grace_epochs": 2}}, "max_concurrent": 1}
    spec = in_jobs(campaign(tmp_path / "jobs", training={"epochs": 30}, search=search, body=BODY), poll_s=1)
    run(spec)
    slurm_still(slurm)
    local = spec.model_copy(update={"root": tmp_path / "local", "placement": LocalPlacement()})
    run(local)
    assert told(spec) == told(local) and {e.state for e in entries(spec)} == {"stopped"}


def test_networks_that_grow_go_on_from_where_they_were_told_to_end(
    slurm: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is signalled between two checkpoints and writes one, one is cancelled and falls back, one is requeued."""
    monkeypatch.setenv("UNHURRIED_S", "0.3")
    spec = in_jobs(Campaign.model_validate(GROWING | {"root": tmp_path / "jobs"}))
    with driving(spec) as process:
        wait_for_epochs(spec, 3, 3)
        signalled, cancelled, requeued = (job_of(spec, f"t000{i}") for i in range(3))
        slurm.command("scancel", "--signal=USR2", signalled)
        slurm.command("scancel", cancelled)
        slurm.command("scontrol", "requeue", requeued)
        assert process.wait(LIMIT_S) == 0
    events = [read_events(spec.root / spec.name / "trials" / f"t000{i}" / "events.jsonl") for i in range(3)]
    resumed = [[int(e["epoch"]) for e in found if e.get("status") == "resumed"] for found in events]
    assert resumed[0] and resumed[0][0] % 20, "the checkpoint that the signal asked for"
    assert any(e["type"] == "structural" and e["epoch"] > resumed[0][0] for e in events[0])
    slurm_still(slurm)
    monkeypatch.delenv("UNHURRIED_S")
    local = spec.model_copy(update={"root": tmp_path / "local", "placement": LocalPlacement()})
    assert run(local).state == "finished"
    assert told(spec) == told(local)
    assert {e.state for e in entries(spec)} == {"finished"}


def slurm_still(slurm: Cluster) -> None:
    """Nothing runs, waits or is left."""
    wait_for("all jobs to end", lambda: not live(slurm))
    wait_for("all processes to end", lambda: not left_running(slurm))
