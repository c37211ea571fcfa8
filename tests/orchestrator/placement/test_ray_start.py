"""A Ray of one's own: in a private folder, patient, within limits, and its end is noticed."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from coppice.orchestrator.campaign import status
from coppice.orchestrator.folder.events import read_events
from coppice.orchestrator.usable import usable_cpus
from coppice.slurm.ray.private_folder import private_folder
from tests.support.campaigns import campaign, driver
from tests.support.slurm.processes import descendants
from tests.support.waiting import LIMIT_S, until

ROOT = Path(__file__).parents[3]
UP = """
import os, stat, sys
from coppice.orchestrator.placement.ray_session import ray_session
from pathlib import Path
with ray_session(None, dashboard=False) as lost:
    import ray
    base = Path(os.environ["TMPDIR"])
    modes = [oct(stat.S_IMODE(p.stat().st_mode)) for p in base.glob("coppice.*")]
    print(int(ray.cluster_resources()["CPU"]), modes, repr(lost()))
print(list(base.glob("coppice.*")), sorted(p.name for p in base.iterdir()))
"""


def ended(process: "subprocess.Popen[bytes]") -> str:
    said, _ = process.communicate(timeout=LIMIT_S)
    return said.decode()


@pytest.mark.slow
@pytest.mark.parametrize("part", ["raylet", pytest.param("gcs_server", marks=pytest.mark.long)])
def test_the_end_of_a_part_of_ray_ends_the_campaign_which_can_be_resumed(tmp_path: Path, part: str) -> None:
    spec = campaign(tmp_path, {"x": 0.2, "sleep_s": 0.1}, training={"epochs": 12}, search={"trials": 2, "max_concurrent": 1})
    process = driver(spec)
    until(lambda: _epochs(tmp_path / "c") > 1, "two epochs", process)
    (victim,) = [p for p in descendants(process.pid) if _program(p) == part]
    os.kill(victim, signal.SIGKILL)
    assert f"interrupted the end of Ray's {part} (SIGKILL" in ended(process)
    assert {t.state for t in status(tmp_path / "c")} <= {"finished", "interrupted", "waiting"}
    assert "finished None" in ended(driver(spec, resume=True))
    for trial in ("t0000", "t0001"):
        events = read_events(tmp_path / "c/trials" / trial / "events.jsonl")
        assert [e["epoch"] for e in events if e["type"] == "metrics"] == list(range(1, 13))


def _epochs(folder: Path) -> int:
    return sum(t.epoch for t in status(folder)) if (folder / "campaign.lock.json").exists() else 0


def _program(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()).name
    return ""


@pytest.mark.slow
def test_it_is_private_and_leaves_nothing_and_takes_the_cores_that_may_be_used() -> None:
    with private_folder("/tmp") as short:
        command = ["taskset", "-c", str(min(os.sched_getaffinity(0))), sys.executable, "-c", UP]
        environment = {**os.environ, "TMPDIR": str(short), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=True)
    first, last = done.stdout.splitlines()
    assert first == "1 ['0o700'] ''" and last.startswith("[] ")
    assert "'ray'" not in last


def _little_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (6_000_000 * 1024,) * 2)


@pytest.mark.slow
def test_too_little_address_space_is_a_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", UP], env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": "/tmp"}, capture_output=True, text=True,
        timeout=LIMIT_S, check=False, preexec_fn=_little_memory,
    )  # fmt: skip
    assert done.returncode and "address space of 5.7 GiB here, and Ray needs more: ulimit -v" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(("quota", "cores"), [("150000 100000", 1), ("50000 100000", 1), ("max 100000", None)])
def test_control_groups_limit_the_cores(tmp_path: Path, quota: str, cores: int | None) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "a" / "cpu.max").write_text(quota + "\n")
    (inner / "cpu.max").write_text("max 100000\n")
    own = tmp_path / "own"
    own.write_text("0::/a/b\n")
    assert usable_cpus(tmp_path, own) == (cores or len(os.sched_getaffinity(0)))
