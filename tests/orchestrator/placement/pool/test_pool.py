"""The parts of a pool: ports, sizes, what becomes of trials and nodes that are lost, and who may talk to its Ray."""

import dataclasses
import json
import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from coppice.orchestrator.config.models import ResourcesSpec
from coppice.orchestrator.config.placement import PoolPlacement
from coppice.orchestrator.folder import attempts
from coppice.orchestrator.folder.events import read_events
from coppice.orchestrator.folder.files import write_json
from coppice.orchestrator.folder.layout import TrialFolder
from coppice.orchestrator.placement.ended_jobs import JobsKeepDying
from coppice.orchestrator.placement.pool.nodes import Nodes
from coppice.orchestrator.placement.pool.sizing import PoolShape
from coppice.orchestrator.placement.pool.supervisor import GIVE_BACK_AFTER_S, PoolSupervisor
from coppice.orchestrator.placement.pool.workers import EndedAttempt, Fleet
from coppice.orchestrator.placement.supervisor import DriverReplaced
from coppice.orchestrator.planning.load import check
from coppice.orchestrator.planning.sites import at_site
from coppice.slurm.broker.broker import Broker
from coppice.slurm.broker.journal import Attempt
from coppice.slurm.broker.work import TrackedWork, Work
from coppice.slurm.client import Job
from coppice.slurm.ray.node import Allocation, Cluster, leave_file
from coppice.slurm.ray.ports import NoPorts, reserved
from coppice.slurm.ray.process import RayFailed, Start, running

CAMPAIGN = {"name": "c", "task": {"dataset": "digits", "network": "mlp"}, "training": {"epochs": 1}}
GPUS = {"site": "lichtenberg2", "account": "p1"}


def test_blocks_of_ports_do_not_meet_and_avoid_what_is_taken() -> None:
    with reserved(30, 5) as one, reserved(30, 5) as two, socket.socket() as taken:
        assert len(one) == len(two) == 30 and not set(one) & set(two)
        taken.bind(("", two.stop + 3))
        with reserved(30, 5, first=one.start, last=two.stop + 59) as three:
            assert three.start == two.stop + 30
        with pytest.raises(NoPorts, match="30 free ports"), reserved(30, 0, first=one.start, last=two.stop + 29):
            pass


def test_ports_that_another_process_has_reserved_are_not_taken() -> None:
    text = "from coppice.slurm.ray.ports import reserved\nwith reserved(30, 7) as r: print(r.start, flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        theirs = int(other.stdout.readline())
        with reserved(30, 7) as ours:
            assert ours.start != theirs
    finally:
        other.communicate("\n")


@pytest.mark.parametrize(
    ("arguments", "resources", "message"),
    [
        ({"node": 3}, {"gpus": 1}, "placement.pool.node: unknown key; did you mean 'nodes'?"),
        ({"nodes": 0}, {"gpus": 1}, "placement.pool.nodes: must be at least 1, but is 0"),
        ({"nodes": 2.5}, {"gpus": 1}, "placement.pool.nodes: must be a whole number, but is 2.5"),
        ({"hours": "2"}, {"gpus": 1}, "placement.pool.hours: must be a number, but is '2'"),
        ({"hours": -2}, {"gpus": 1}, "placement.pool.hours: must be above 0, but is -2"),
        ({"gpus": 2}, {"gpus": 3}, "resources ask for 3 GPU and a node has 2; lower resources, or raise gpus"),
        ({"cpus": 8}, {"gpus": 1, "cpus": 9}, "resources ask for 9 CPU and a node has 8"),
        ({}, {"gpus": 1, "nodes": 2}, "resources.nodes is 2 and the pool has 1"),
        ({}, {}, "must know how many cores .* give cpus"),
        ({"gpu_type": "a10"}, {"gpus": 1}, "must be one of .*a100.*did you mean a100"),
        ({"account": None}, {"gpus": 1}, "wants an account"),
    ],
)
def test_what_cannot_be_is_refused_at_once(arguments: dict[str, Any], resources: dict[str, int], message: str) -> None:
    placed = {"placement": {"pool": {**GPUS, **arguments}}, "resources": resources}
    (problem,) = check(yaml.safe_dump({**CAMPAIGN, **placed}))
    assert re.search(message, str(problem)), problem


def test_all_that_is_wrong_with_a_placement_is_said_and_nothing_is_said_of_its_stand_in() -> None:
    text = yaml.safe_dump(CAMPAIGN) + "placement:\n  pool:\n    account: 7\n    nodes: 0\n"
    lines = len(text.splitlines())
    assert [(p.line, p.path) for p in check(text, at_site("lichtenberg2", None))] == [
        (lines - 1, "placement.pool.account"), (lines, "placement.pool.nodes")]


def test_nodes_are_whole_and_trials_are_packed_into_them() -> None:
    pool = PoolPlacement(**GPUS, nodes=4)
    shape = PoolShape.of(pool, ResourcesSpec(gpus=1))
    assert shape.options["gres"] == "gpu:a100:4" and shape.options["cpus-per-task"] == "96" and shape.whole
    assert shape.capacity == 16 and [shape.nodes_for(n) for n in (0, 1, 4, 5, 60)] == [0, 1, 1, 2, 4]
    large = PoolShape.of(pool, ResourcesSpec(gpus=3))
    assert large.capacity == 4 and large.nodes_for(3) == 3
    wide = PoolShape.of(pool, ResourcesSpec(gpus=4, nodes=2))
    assert wide.capacity == 2 and wide.nodes_for(1) == 2


def test_a_node_has_what_slurm_gave_it_and_not_what_the_machine_has() -> None:
    given = {"SLURM_CPUS_PER_TASK": "6", "SLURM_CPUS_ON_NODE": "64", "SLURM_GPUS_ON_NODE": "2", "SLURM_MEM_PER_CPU": "100"}
    assert Allocation.of(given) == Allocation(6, 2, 600 * 2**20)
    assert Allocation.of({"CUDA_VISIBLE_DEVICES": "3,5"}) == Allocation(1, 2, None)


def test_only_who_knows_the_secret_may_talk_to_a_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import grpc

    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    (tmp_path / "secret").write_text("5" * 64)
    (tmp_path / "secret").chmod(0o600)
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "secret")}
    ip = socket.gethostbyname(socket.gethostname())
    options = {"node-ip-address": ip, "num-cpus": "0", "include-dashboard": "false"}
    with running(Start(options, own, head=True)) as ray:
        assert ray is not None
        with grpc.insecure_channel(f"{ip}:{ray.ports[0]}") as channel:
            ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetAllNodeInfo")
            for wrong in ((), (("authorization", "Bearer " + "6" * 64),)):
                with pytest.raises(grpc.RpcError) as refused:
                    ask(b"", metadata=wrong, timeout=10)
                assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
            assert str(ray.folder).encode() in ask(b"", metadata=(("authorization", "Bearer " + "5" * 64),), timeout=10)
        assert stat.S_IMODE(ray.folder.stat().st_mode) == 0o700
        group = ray.process.pid
    assert not ray.folder.exists()
    assert not [p for p in Path("/proc").iterdir() if p.name.isdigit() and _group(p) == group]


def _group(process: Path) -> int:
    try:
        return os.getpgid(int(process.name))
    except ProcessLookupError:
        return -1


def test_a_ray_that_does_not_start_says_why(tmp_path: Path) -> None:
    told = r"in 3 tries; the last one ended with \d+:\n  start.log:\n(.*\n)*.*--no-such-option"
    with pytest.raises(RayFailed, match=told), running(Start({"no-such-option": "1"}, {})):
        pass


@dataclasses.dataclass
class Hands:
    """In place of Ray."""

    started: list[tuple[str, attempts.Token]] = dataclasses.field(default_factory=list)
    stopped: list[str] = dataclasses.field(default_factory=list)
    news: list[EndedAttempt] = dataclasses.field(default_factory=list)

    def start(self, key: str, task: dict[str, Any], token: attempts.Token) -> None:
        self.started.append((key, token))

    def ended(self) -> list[EndedAttempt]:
        news, self.news = self.news, []
        return news

    def stop(self, key: str) -> None:
        self.stopped.append(key)

    def busy(self) -> set[str]:
        return set()


class Room:
    """A supervisor with one trial, and a clock of its own."""

    def __init__(self, root: Path, left: int = 1) -> None:
        self.now, self.hands, self.wanted, self.ours = 0.0, Hands(), [0], True
        self.root = root
        self.supervisor = PoolSupervisor(
            self.hands, self._grow, lambda trials: -(-trials // 2), left, lambda: self.ours, clock=lambda: self.now
        )

    def _grow(self, wanted: int) -> bool:
        self.wanted.append(wanted)
        return True

    def add(self, name: str) -> TrialFolder:
        folder = TrialFolder(self.root / name)
        folder.path.mkdir(exist_ok=True)
        write_json(folder.params, {"spec": {"training": {"epochs": 5}}})
        self.supervisor.start({"folder": str(folder.path), "body": "x:Y", "metrics": ["a"], "mode": "max"})
        return folder

    def poll(self, *news: EndedAttempt, after_s: float = 1.0) -> None:
        self.now += after_s
        self.hands.news += news
        self.supervisor.poll()


def test_a_trial_that_is_lost_again_and_again_without_a_checkpoint_is_left_for_a_resume(tmp_path: Path) -> None:
    room = Room(tmp_path)
    folder = room.add("t0000")
    for _ in range(2):
        room.poll(EndedAttempt("t0000", "", "NodeDiedError: gone"))
    (folder.checkpoints / "000001").mkdir(parents=True)
    write_json(folder.checkpoints / "000001" / "MANIFEST.json", {})
    room.poll(EndedAttempt("t0000", "", "NodeDiedError: gone"))
    room.poll(EndedAttempt("t0000", "left", ""), EndedAttempt("t0000", "left", ""))
    room.poll(EndedAttempt("t0000", "", "x"))
    room.poll(EndedAttempt("t0000", "", "x"))
    assert not room.supervisor.ended("t0000")
    room.poll(EndedAttempt("t0000", "", "WorkerCrashedError: the last words"))
    assert room.supervisor.ended("t0000") and len(room.hands.started) == 8
    tokens = [token for _, token in room.hands.started]
    assert tokens == sorted(set(tokens)) and attempts.newest(folder.path) > tokens[-1]  # type: ignore[operator]
    last = read_events(folder.events)[-1]
    assert last["status"] == "interrupted" and "3 attempts in a row" in last["reason"] and "the last words" in last["reason"]


def test_what_is_stopped_is_fenced_and_ended_but_what_has_finished_is_not(tmp_path: Path) -> None:
    room = Room(tmp_path)
    one, two = room.add("t0000"), room.add("t0001")
    one.append_event({"type": "status", "status": "finished", "epoch": 5})
    two.append_event({"type": "status", "status": "stopped", "epoch": 2})
    before = attempts.newest(two.path)
    room.supervisor.release("t0000")
    room.supervisor.release("t0001")
    assert room.hands.stopped == ["t0001"] and attempts.newest(two.path) > before  # type: ignore[operator]


def test_the_pool_is_as_large_as_its_work(tmp_path: Path) -> None:
    room = Room(tmp_path, left=7)
    folders = [room.add(f"t{i:04d}") for i in range(5)]
    room.poll()
    assert room.wanted[-1] == 4  # seven trials, two on a node
    room.poll(after_s=GIVE_BACK_AFTER_S + 1)
    assert room.wanted[-1] == 3
    for folder in folders[:4]:
        folder.append_event({"type": "status", "status": "finished", "epoch": 5})
        room.poll(EndedAttempt(folder.name, "finished", ""))
    assert room.wanted[-1] == 2  # one runs, two are not known yet
    room.poll(after_s=GIVE_BACK_AFTER_S + 1)
    assert room.wanted[-1] == 1


def test_a_driver_whose_cluster_was_taken_away_ends_and_touches_nothing(tmp_path: Path) -> None:
    room = Room(tmp_path)
    folder = room.add("t0000")
    before = attempts.newest(folder.path)
    room.ours = False
    with pytest.raises(DriverReplaced):
        room.poll()
    room.supervisor.release("t0000")
    room.supervisor.close()
    assert attempts.newest(folder.path) == before and not (folder.path / "stop").exists()


class Slurm:
    """In place of a broker."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.works, self.again_with, self.dropped = folder, {}, [], []  # type: ignore[var-annotated]

    def add(self, work: Work) -> None:
        self.works[work.key] = TrackedWork(work, Attempt(work.key, 1, f"{len(self.works) + 1}", 0.0))

    def tracked(self, key: str) -> TrackedWork:
        return self.works[key]

    def poll(self) -> bool:
        return True

    def resubmit(self, key: str, options: dict[str, str]) -> None:
        self.again_with.append((key, options.get("exclude", "")))
        self.works[key] = TrackedWork(self.works[key].work, Attempt(key, self.works[key].attempt.number + 1, "9", 0.0))

    def drop(self, key: str) -> None:
        self.dropped.append(key)

    def see(self, key: str, state: str, nodes: str = "", over: bool = False) -> None:
        self.works[key].job, self.works[key].over = Job(self.works[key].attempt.job, "", state, "why", nodes), over


def _nodes(tmp_path: Path, fleet: dict[str, frozenset[str]]) -> tuple[Nodes, Any]:
    slurm: Any = Slurm(tmp_path)
    empty: frozenset[str] = frozenset()
    found = lambda: Fleet(fleet.get("joined", empty), fleet.get("up", empty), fleet.get("idle", empty))
    broker: Broker = slurm
    return Nodes(broker, lambda key: Work(key, print, {}), tmp_path, found, clock=lambda: 0.0), slurm


def test_a_node_that_ends_is_replaced_unless_nodes_never_join(tmp_path: Path) -> None:
    nodes, slurm = _nodes(tmp_path, {"joined": frozenset(["node0.1.0"])})
    nodes.poll(2)
    slurm.see("node0", "TIMEOUT", "n1", over=True)
    slurm.see("node1", "FAILED", "n[2-3]", over=True)
    nodes.poll(2)
    assert slurm.again_with == [("node0", ""), ("node1", "n2,n3")]
    (tmp_path / "9_0_log.out").write_text("Traceback\nno module named ray\n")
    slurm.see("node1", "FAILED", "n4", over=True)
    nodes.poll(2)
    slurm.see("node1", "FAILED", "n5", over=True)
    with pytest.raises(JobsKeepDying, match=r"3 nodes of the pool(.*\n)*.*9 on n5, ended as FAILED(.*\n)*.*no module named ray"):
        nodes.poll(2)


def test_nodes_are_given_back_waiting_ones_first_and_never_those_at_work(tmp_path: Path) -> None:
    names = frozenset(["node0.1.0", "node1.1.0"])
    nodes, slurm = _nodes(tmp_path, {"joined": names, "up": names, "idle": frozenset(["node1.1.0"])})
    nodes.poll(3)
    slurm.see("node0", "RUNNING"), slurm.see("node1", "RUNNING"), slurm.see("node2", "PENDING")
    nodes.poll(0)
    assert slurm.dropped == ["node2"] and leave_file(tmp_path, "node1.1.0").exists()
    assert not leave_file(tmp_path, "node0.1.0").exists()
    slurm.see("node1", "COMPLETED", over=True)
    nodes.poll(1)
    assert "node1" in slurm.dropped and not slurm.again_with


def test_a_cluster_that_is_gone_is_gone(tmp_path: Path) -> None:
    cluster, seen = Cluster(tmp_path), Cluster(tmp_path)
    assert seen.address() is None
    cluster.announce("1.2.3.4:5")
    assert seen.address() == "1.2.3.4:5" and json.loads((tmp_path / "head.json").read_text())["address"] == "1.2.3.4:5"
    (tmp_path / "head.json").write_text("{")
    assert seen.address() == "1.2.3.4:5"
    cluster.close()
    assert seen.address() is None
