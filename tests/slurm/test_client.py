"""Slurm's commands, on a real Slurm: states, reasons, odd names, and a controller that is away."""

from pathlib import Path

import pytest

from coppice.slurm.client import Client, Job, SlurmError, SlurmUnreachable
from tests.support.slurm.cluster import Cluster
from tests.support.slurm.processes import wait_for

pytestmark = pytest.mark.slurm
NASTY = "a;b|c 'd\" $(touch owned) `id` \\ *"


def submit(client: Client, folder: Path, command: str, *options: str) -> str:
    output = ("-o", "/dev/null", "--chdir", str(folder))
    return client.run("sbatch", "--parsable", *output, *options, "--wrap", command).strip()


def test_live_jobs_have_states_and_reasons_and_keep_odd_names(slurm: Cluster, tmp_path: Path) -> None:
    client = Client()
    array = submit(client, tmp_path, "sleep 60", "-a", "0-2%1", "-J", NASTY)
    one = submit(client, tmp_path, "sleep 60", "--hold")
    found = wait_for("a task to run", lambda: (f := client.live())[f"{array}_0"].state == "RUNNING" and f)
    assert found[f"{array}_0"].name == NASTY and found[f"{array}_0"].nodes.startswith("node")
    assert (found[f"{array}_2"].state, found[f"{array}_2"].reason) == ("PENDING", "JobArrayTaskLimit")
    assert (found[one].state, found[one].reason) == ("PENDING", "JobHeldUser")
    assert client.calls["squeue"] >= 1 and not list(tmp_path.iterdir())
    client.cancel([array, one])
    wait_for("the end of all", lambda: all(client.live()[j].ended for j in (one, f"{array}_0", f"{array}_2")))


def test_the_accounts_tell_how_jobs_ended(slurm: Cluster, tmp_path: Path) -> None:
    client = Client()
    good, bad = submit(client, tmp_path, "true"), submit(client, tmp_path, "exit 7")
    found = wait_for("the accounts", lambda: (f := client.ended([good, bad])).get(bad, Job("", "", "")).ended and f)
    assert (found[good].state, found[good].exit) == ("COMPLETED", "0:0")
    assert (found[bad].state, found[bad].exit) == ("FAILED", "7:0")
    assert client.ended(["999999"]) == {} and client.ended([]) == {}


def test_what_slurm_refuses_is_said(slurm: Cluster, tmp_path: Path) -> None:
    with pytest.raises(SlurmError, match="nowhere") as refused:
        submit(Client(), tmp_path, "true", "-p", "nowhere")
    assert not isinstance(refused.value, SlurmUnreachable)


def test_a_controller_that_is_away_is_asked_again(slurm: Cluster, tmp_path: Path) -> None:
    slurm.daemon("stop", "slurmctld", ["ctl"])
    pauses: list[float] = []
    with pytest.raises(SlurmUnreachable):
        Client(patience_s=2.0, sleep=pauses.append).run("squeue", "-h")
    assert pauses == [0.5, 1.0, 0.5]
    with pytest.raises(SlurmUnreachable):
        Client().live()

    def comes_back(pause: float) -> None:
        if len(pauses) == 3:
            slurm.daemon("run", "slurmctld", ["ctl"])
        pauses.append(pause)

    assert Client(sleep=comes_back).run("squeue", "-h") == ""


def test_a_command_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmError, match="sbatch must be installed"):
        Client().run("sbatch")


def test_jobs_that_have_ended_need_not_be_cancelled(slurm: Cluster, tmp_path: Path) -> None:
    client = Client()
    job = submit(client, tmp_path, "true")
    wait_for("its end", lambda: client.live()[job].ended)
    client.cancel([job, "999999"])
    client.cancel([])
    assert client.calls["scancel"] == 1


def test_jobs_that_may_not_be_cancelled_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = "scancel: error: Kill job error on job id 5: Access/permission denied"
    (tmp_path / "scancel").write_text(f"#!/bin/sh\necho 'scancel: error: Invalid job id 4' >&2; echo '{said}' >&2; exit 1\n")
    (tmp_path / "scancel").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmError, match="permission denied"):
        Client().cancel(["4", "5"])


def test_a_command_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "squeue").write_text("#!/bin/sh\nexec /bin/sleep 30\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmUnreachable, match="did not answer within"):
        Client(timeout_s=0.3, patience_s=0.0).run("squeue")
