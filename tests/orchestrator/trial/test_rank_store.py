"""Ranks meet through a store that obeys nobody else."""

import json
import os
import secrets
import socket
import stat
import threading
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist

from coppice.orchestrator.folder.files import read_private
from coppice.orchestrator.trial import rank_protocol, rank_store
from coppice.orchestrator.trial.rank_protocol import Refused
from coppice.orchestrator.trial.rank_store import Board, Gate, Peer, RankStore
from coppice.orchestrator.trial.rendezvous import rendezvous
from tests.orchestrator.trial.test_process_group import events, spec
from tests.support.rank_processes import prepare, results, start
from tests.support.stranger import MARK, NOBODY, REQUIRES_ROOT, as_stranger, heard, listening, marked
from tests.support.waiting import until

SECRET = b"s" * 32
LONG = timedelta(seconds=60)


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate(Board(), "127.0.0.1", SECRET)
    yield made
    made.close()


@pytest.fixture(params=["at rank 0", "at another rank"])
def store(request: pytest.FixtureRequest, gate: Gate) -> RankStore:
    board = gate._board if request.param == "at rank 0" else Peer("127.0.0.1", gate.port, SECRET, 60)
    return RankStore(board, LONG)


def test_what_torch_expects_of_a_store(store: RankStore) -> None:
    """Called through torch's own prefix store, as a process group does, and the same as torch's own store in memory."""
    said = []
    for one in (dist.PrefixStore("group", store), dist.PrefixStore("group", dist.HashStore())):
        one.set("a", "text")
        one.set("bytes", b"\x00\xff" if one.get("a") == b"text" else b"")
        said.append([one.get("a"), one.get("bytes"), one.add("n", 2), one.add("n", -5), one.get("n"), one.check(["a", "n"]),
                     one.check(["a", "z"]), one.wait(["a", "n"], LONG), one.num_keys(), one.delete_key("n"), one.delete_key("n")])
    assert said[0] == said[1]


def test_a_wait_ends_with_the_key_or_in_time(store: RankStore, gate: Gate) -> None:
    with pytest.raises(dist.DistStoreError, match="not set"):
        store.wait(["later"], timedelta(seconds=0.05))
    other = RankStore(gate._board, LONG)
    setter = threading.Thread(target=lambda: (other.wait(["asked"], LONG), other.set("later", "now")))
    setter.start()
    waiting = threading.Thread(target=lambda: store.set("seen", store.get("later")))
    waiting.start()
    store.set("asked", "")  # another thread of this rank waits meanwhile
    assert store.get("seen") == b"now"
    setter.join(60)
    waiting.join(60)


def test_who_does_not_know_the_secret_is_refused_and_told_of(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises((Refused, ConnectionError)):
        Peer("127.0.0.1", gate.port, b"x" * 32, 60)
    until(lambda: "A connection from 127.0.0.1 to the ranks was refused" in caplog.text, "a line in the log")
    assert RankStore(gate._board, LONG).num_keys() == 0
    assert RankStore(Peer("127.0.0.1", gate.port, SECRET, 60), LONG).num_keys() == 0


def test_who_listens_in_rank_0s_place_is_not_believed() -> None:
    """It sends back what it gets, and what would fit if both ends proved the same."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def echo() -> None:
            peer, _ = listener.accept()
            with peer:
                while part := peer.recv(4096):
                    peer.sendall(part)
        thread = threading.Thread(target=echo)
        thread.start()
        with pytest.raises(Refused):
            Peer("127.0.0.1", listener.getsockname()[1], SECRET, 60)
        thread.join(60)


def test_silent_strangers_keep_nobody_out(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_protocol, "GREETING_S", 1.0)
    silent = [socket.create_connection(("127.0.0.1", gate.port)) for _ in range(2 * rank_store.MOST_STRANGERS)]

    def lets_in() -> bool:
        try:
            return RankStore(Peer("127.0.0.1", gate.port, SECRET, 60), LONG).num_keys() == 0
        except OSError:
            return False

    until(lets_in, "a place at the gate")
    for one in silent:
        one.close()


def test_it_listens_where_the_ranks_are_and_says_so_to_its_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with rendezvous(tmp_path / "ranks.json", "t", 0, 2, "127.0.0.1"):
            assert stat.S_IMODE((tmp_path / "ranks.json").stat().st_mode) == 0o600
            port = json.loads((tmp_path / "ranks.json").read_bytes())["port"]
            assert ("127.0.0.1", port) in listening([os.getpid()])
            with rendezvous(tmp_path / "ranks.json", "t", 1, 2, "127.0.0.1") as (store, _):
                assert store.add("n", 1) == 1
        assert not (tmp_path / "ranks.json").exists() and ("127.0.0.1", port) not in listening([os.getpid()])
    finally:
        os.umask(before)


@pytest.mark.parametrize("how", ["mode", "owner"])
def test_a_file_that_others_may_have_written_is_not_believed(how: str, tmp_path: Path) -> None:
    path = tmp_path / "ranks.json"
    path.write_text(json.dumps({"token": "t", "address": "127.0.0.1", "port": 1, "secret": secrets.token_hex(32)}))
    path.chmod(0o660 if how == "mode" else 0o600)
    if how == "owner":
        if os.geteuid() != 0:
            pytest.skip("only root can give a file to somebody else")
        os.chown(path, NOBODY, NOBODY)
    with pytest.raises(PermissionError, match="must belong to you"):
        read_private(path)
    with pytest.raises(PermissionError), rendezvous(path, "t", 1, 2, "127.0.0.1"):
        pass


@REQUIRES_ROOT
def test_another_user_cannot_end_a_trial_on_two_ranks(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark, trial = uuid.uuid4().hex, open_folder / "trial"
    monkeypatch.setenv(MARK, mark)
    long = spec(training={**spec().training.model_dump(), "epochs": 10}, adaptations=[])
    task = {**prepare(long, trial), "body": "tests.support.bodies:WaitsForTheFile"}
    processes = start(task, 2)
    try:
        until(lambda: events(trial, "metrics"), "an epoch on both", processes[0])
        (store,) = [json.loads((trial / "ranks.json").read_bytes())["port"]]
        ports = sorted({port for _, port in listening(marked(mark))})
        assert store in ports and {a for a, _ in listening(marked(mark))} <= {"127.0.0.1", "::ffff:127.0.0.1"}
        said = as_stranger(heard, [("127.0.0.1", port) for port in ports])
        assert said and as_stranger(os.access, str(trial / "ranks.json"), os.R_OK) is False
        assert {len(answer) for answer in said} <= {0, rank_protocol.NONCE}, "at most a nonce, which is no secret"
    finally:
        (trial / "go").touch()
        ended = results(processes)
    assert [(code, out) for code, out, _ in ended] == [(0, "finished"), (0, "accompanied")], ended
    assert [e["status"] for e in events(trial, "status")] == ["started", "finished"]
