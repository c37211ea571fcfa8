"""A running campaign watched from outside: its dashboard asks for the secret, its trials are metrics, the tunnel is told."""

import contextlib
import json
import os
import shlex
import signal
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.folder.dashboard_address import Address, read_address
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.operations.tunnel import tunnel
from tests.orchestrator.cli.test_elements import output
from tests.support.campaigns import campaign, driving
from tests.support.folders import create
from tests.support.slurm.processes import descendants, wait_for
from tests.support.waiting import LIMIT_S

NAMES = ("coppice_metric", "coppice_parameters", "coppice_flops", "coppice_compute_flops", "coppice_epochs", "coppice_trials")


def growing(root: Path) -> Campaign:
    """Real trials, which go on for as long as anybody looks."""
    grow = {"grow": {"when": {"periodic": {"every": 1}}, "how": "random", "amount": 1, "limit": {"width": 3}}}
    return campaign(
        root, name="watched", body="coppice.orchestrator.trial.trial:Trial", adaptations=[grow],
        search={"trials": 1, "sampler": "random"},
        task={"dataset": "digits", "dataset_args": {"limit_train": 100}, "network": "mlp"},
        training={"epochs": 100_000, "batch_size": 50, "checkpoint_every": 1000},
        placement={"local": {"cpus": 1, "dashboard": True}},
    )  # fmt: skip


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CampaignFolder]:
    spec = growing(tmp_path_factory.mktemp("it's $(touch owned); a root"))
    folder = CampaignFolder(spec.root / spec.name)
    with driving(spec) as process:
        wait_for("the campaign to say where it listens", folder.dashboard.exists)
        yield folder
        process.send_signal(signal.SIGINT)
        process.wait(LIMIT_S)
    assert not folder.dashboard.exists(), "what does not run any more cannot be watched"
    assert not Path("owned").exists()


def answer(url: str, token: str | None = None) -> tuple[int, str]:
    """Status and body of what a server says."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=LIMIT_S) as found:
            return found.status, found.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def open_to_the_network(pid: int) -> list[str]:
    """Sockets of a process and its descendants that listen on other addresses than the loopback's."""
    inodes = set()
    for one in (pid, *descendants(pid)):
        for link in Path(f"/proc/{one}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(os.readlink(link).removeprefix("socket:[").rstrip("]"))
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    listening = [line[1] for line in lines if line[3] == "0A" and line[9] in inodes]
    assert listening, "Ray listens somewhere"
    loopback = ("0100007F:", "0000000000000000FFFF00000100007F:", "00000000000000000000000001000000:")
    return [address for address in listening if not address.startswith(loopback)]


@pytest.mark.slow
def test_the_dashboard_asks_for_the_secret_and_listens_here_only(running: CampaignFolder) -> None:
    address = read_address(running)
    assert address is not None and address.port is not None and Path(address.token) == running.ray_token
    assert stat.S_IMODE(running.ray_token.stat().st_mode) == 0o600
    url, secret = f"http://127.0.0.1:{address.port}/api/version", running.ray_token.read_text()
    assert answer(url)[0] == 401 and answer(url, "0" * 64)[0] == 403 and answer(url, secret)[0] == 200
    assert not open_to_the_network(address.pid)


@pytest.mark.slow
def test_the_command_tells_the_tunnel_and_keeps_the_secret(running: CampaignFolder) -> None:
    secret, path = running.ray_token.read_text(), str(running.path)
    text = output("dashboard", path, "--login", "login1.example.org")
    address = read_address(running)
    assert address is not None
    command = next(line.strip() for line in text.splitlines() if line.strip().startswith("ssh "))
    words = shlex.split(command)
    assert words[:2] == ["ssh", "-N"] and words[-1].endswith("@login1.example.org") and "-J" not in words
    assert f"{address.port}:127.0.0.1:{address.port}" in words and f"http://127.0.0.1:{address.port}" in text
    assert secret not in text and str(running.ray_token) in text
    assert secret not in output("dashboard", path, "--json")
    assert secret in output("dashboard", path, "--show-token")


@pytest.mark.slow
def test_prometheus_finds_the_trials(running: CampaignFolder, tmp_path: Path) -> None:
    files = output("dashboard", str(running.path), "--grafana", str(tmp_path / "g"), "--json")
    written = [Path(p) for p in json.loads(files)["written"]]
    target = yaml.safe_load((tmp_path / "g" / "prometheus.yml").read_text())["scrape_configs"][0]["static_configs"][0]["targets"][
        0
    ]

    def scraped() -> str | None:
        text = answer(f"http://{target}/metrics")[1]
        return text if "ray_coppice_changes_total" in text and "ray_coppice_parameters" in text else None

    text = wait_for("the metrics", scraped, step=1.0)
    for name in NAMES:
        assert f"ray_{name}{{" in text, name
    changed = next(line for line in text.splitlines() if line.startswith("ray_coppice_changes_total{"))
    assert 'campaign="watched"' in changed and 'trial="t0000"' in changed and 'kind="grow"' in changed
    assert float(changed.rsplit(" ", 1)[1]) >= 1
    assert 'metric="val_accuracy"' in text and 'metric="train_loss"' in text
    board = json.loads(next(p for p in written if p.suffix == ".json").read_text())
    drawn = "\n".join(t["expr"] for panel in board["panels"] for t in panel["targets"])
    for name in (*NAMES, "coppice_changes_total"):
        assert f"ray_{name}" in drawn, name


def an_address(**changes: Any) -> Address:
    known: dict[str, Any] = {
        "host": "node7",
        "user": "ada",
        "pid": 1,
        "job": "12",
        "port": 8265,
        "metrics_port": None,
        "token": "/x",
        "since": 0.0,
    }
    return Address(**{**known, **changes})


def test_a_driver_on_a_node_is_reached_through_the_login_node() -> None:
    found = tunnel(an_address(), here="login1", login="login1.example.org")
    assert found.command == "ssh -N -L 8265:127.0.0.1:8265 -J ada@login1.example.org ada@node7"
    assert (found.url, found.metrics) == ("http://127.0.0.1:8265", "")


def test_what_others_wrote_does_not_reach_a_shell() -> None:
    found = tunnel(an_address(host="a'b;$(touch owned)\nx"), here="login1", login="`id`")
    assert shlex.split(found.command)[-1] == "ada@a'b;$(touch owned)\nx" and "'ada@`id`'" in found.command


def test_a_campaign_that_does_not_run_says_so(tmp_path: Path) -> None:
    spec = campaign(tmp_path)
    create(CampaignFolder(tmp_path / "c"), spec)
    with pytest.raises(ValueError, match="must be running to be watched"):
        output("dashboard", str(tmp_path / "c"))
