"""The test cluster is a real Slurm, and what breaks in it breaks as it does on a real one."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.slurm.cluster import Cluster
from tests.support.slurm.processes import alive, descendants, record, remove_tree, stop, wait_for
from tests.support.waiting import LIMIT_S

pytestmark = pytest.mark.slurm


def submit(slurm: Cluster, folder: Path, text: str, *options: str) -> str:
    script = folder / f"job{time.monotonic_ns()}.sh"
    script.write_text(f"#!/bin/sh\n{text}\n")
    return slurm.command("sbatch", "--parsable", "-o", "/dev/null", "--chdir", str(folder), *options, str(script)).strip()


def state_of(slurm: Cluster, job: str) -> str:
    return slurm.command("squeue", "-h", "-t", "all", "-j", job, "-o", "%T", check=False).strip()


def test_tasks_run_on_every_node_with_their_gpus(slurm: Cluster) -> None:
    names = slurm.command("srun", "-N3", "--gres=gpu:2", "sh", "-c", "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES").splitlines()
    assert sorted(names) == ["node1 0,1", "node2 0,1", "node3 0,1"]


def test_accounting_knows_what_ended(slurm: Cluster, tmp_path: Path) -> None:
    job = submit(slurm, tmp_path, "exit 3")
    account = ["sacct", "-n", "-X", "-P", "-j", job, "-o", "State,ExitCode"]
    wait_for("the end of the job in the accounts", lambda: slurm.command(*account).strip() == "FAILED|3:0")


@pytest.mark.long
def test_a_job_whose_node_loses_power_is_requeued_elsewhere(machines: Cluster, tmp_path: Path) -> None:
    text = 'echo "$SLURMD_NODENAME ${SLURM_RESTART_COUNT:-0}" >> ran; [ -n "$SLURM_RESTART_COUNT" ] || sleep 600'
    submit(machines, tmp_path, text)
    node = wait_for("the job to run", lambda: (tmp_path / "ran").exists() and (tmp_path / "ran").read_text()).split()[0]
    machines.lose_power(node)
    wait_for("the job to run again", lambda: len((tmp_path / "ran").read_text().splitlines()) == 2)
    again = (tmp_path / "ran").read_text().splitlines()[1].split()
    assert again[1] == "1" and again[0] != node


@pytest.mark.long
def test_a_cut_cable_leaves_the_old_attempt_running(machines: Cluster, tmp_path: Path) -> None:
    """Split brain: two attempts of one job at the same time, which whoever writes results must expect."""
    job = submit(machines, tmp_path, 'while :; do echo >> "beat.${SLURM_RESTART_COUNT:-0}"; sleep 0.2; done')
    wait_for("the job to run", (tmp_path / "beat.0").exists)
    node = machines.command("squeue", "-h", "-j", job, "-o", "%N").strip()
    machines.cable(node, plugged=False)
    wait_for("the second attempt", (tmp_path / "beat.1").exists)
    before = (tmp_path / "beat.0").stat().st_size
    wait_for("the first attempt to go on", lambda: (tmp_path / "beat.0").stat().st_size > before)


@pytest.mark.long
def test_a_preempted_job_is_signalled_and_comes_back(slurm: Cluster, tmp_path: Path) -> None:
    text = "trap 'echo signal >> seen' USR2; echo start >> seen; while :; do sleep 0.1; done"
    job = submit(slurm, tmp_path, text, "-p", "preempt", "-N3", "--exclusive", "--signal=B:USR2@30", "--requeue")
    wait_for("the job to run", (tmp_path / "seen").exists)
    slurm.command("srun", "-p", "main", "-N3", "--exclusive", "true", timeout=LIMIT_S)
    wait_for("the job to start again", lambda: (tmp_path / "seen").read_text().count("start") == 2)
    assert (tmp_path / "seen").read_text().split()[:2] == ["start", "signal"] and state_of(slurm, job) == "RUNNING"


@pytest.mark.long
def test_jobs_outlive_the_controller(slurm: Cluster, tmp_path: Path) -> None:
    job = submit(slurm, tmp_path, "until [ -e go ]; do sleep 0.2; done; touch done")
    wait_for("the job to run", lambda: state_of(slurm, job) == "RUNNING")
    slurm.command("scontrol", "update", f"jobid={job}", f"comment=runs-{job}")
    wait_for("the controller to have written it down", lambda: _written_down(slurm, f"runs-{job}"))
    slurm.daemon("kill", "slurmctld", ["ctl"])
    assert not slurm.command("squeue", "-h", "-j", job, check=False)
    (tmp_path / "go").touch()
    wait_for("the job to end", (tmp_path / "done").exists)
    slurm.daemon("run", "slurmctld", ["ctl"])
    wait_for("the controller to know", lambda: state_of(slurm, job) == "COMPLETED")


def _written_down(slurm: Cluster, text: str) -> bool:
    """A controller that is killed forgets what it has not saved: up to some seconds of changes."""
    return text.encode() in (slurm.state / "ctld" / "job_state").read_bytes()


def test_what_a_job_leaves_behind_is_killed(slurm: Cluster, tmp_path: Path) -> None:
    submit(slurm, tmp_path, "setsid sh -c 'echo $$ > left; exec sleep 600' & sleep 1")
    wait_for("the process", lambda: (tmp_path / "left").exists() and (tmp_path / "left").read_text())
    wait_for("the process to end", lambda: "sleep 600" not in _everything(slurm))


def _everything(slurm: Cluster) -> str:
    below = [p for h in slurm.settings.hosts for p in descendants(alive(slurm.settings.run / f"{h}.pid"))]
    lines = (Path(f"/proc/{p}/cmdline") for p in below)
    return "\n".join(f.read_bytes().replace(b"\0", b" ").decode() for f in lines if f.exists())


def test_a_cluster_that_cannot_start_leaves_nothing(slurm_session: Cluster, tmp_path_factory: pytest.TempPathFactory) -> None:
    broken = Cluster(Path(f"/tmp/slurm-broken-{os.getpid()}"), nodes=1)
    broken.settings.prefix, broken.settings.cpus = "", -1
    with pytest.raises(Exception, match="the test cluster did not start"):
        broken.up()
    assert not list(broken.settings.run.glob("*")) if broken.settings.run.exists() else True
    assert not _with(str(broken.state))
    remove_tree(broken.state)
    assert slurm_session.all_idle()


def test_a_recycled_pid_is_never_signalled(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        record(tmp_path / "x.pid", child.pid)
        assert alive(tmp_path / "x.pid") == child.pid
        ours = (tmp_path / "x.pid").read_text()
        (tmp_path / "x.pid").write_text(ours.replace('"start": ', '"start": 1'))
        assert alive(tmp_path / "x.pid") == 0
        stop(tmp_path / "x.pid")
        assert child.poll() is None
        (tmp_path / "x.pid").write_text(ours)
        stop(tmp_path / "x.pid")
        assert child.wait(LIMIT_S) == -signal.SIGTERM


LEFT = """
import sys, time
from pathlib import Path
from tests.support.slurm.cluster import Cluster
cluster = Cluster(Path(sys.argv[1]), nodes=1)
cluster.up()
print("up", flush=True)
time.sleep(600)
"""


@pytest.mark.long
def test_a_killed_test_run_leaves_no_process(tmp_path_factory: pytest.TempPathFactory) -> None:
    state = f"/tmp/slurm-left-{os.getpid()}"
    process = subprocess.Popen([sys.executable, "-c", LEFT, state], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    process.kill()
    process.communicate()
    try:
        wait_for("everything to end", lambda: not _with(state))
    finally:
        remove_tree(Path(state))


def _with(word: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if word.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(path.parent.name)
    return found


@pytest.mark.long
def test_where_nodes_cannot_be_machines_they_are_processes(slurm: Cluster, tmp_path: Path) -> None:
    plain = Cluster(Path(f"/tmp/slurm-plain-{os.getpid()}"), nodes=2)
    plain.settings.namespaces = False
    try:
        plain.up()
        assert sorted(plain.command("srun", "-N2", "sh", "-c", "echo $SLURMD_NODENAME").split()) == ["node1", "node2"]
        plain.lose_power("node1")
        plain.restore()
    finally:
        plain.down()
        remove_tree(plain.state)
    assert not _with(str(plain.state))
