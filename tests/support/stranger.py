"""Another user of the machine: what they can reach, read, write and connect to.

`python -m tests.support.stranger MARK` prints where Python processes with this mark listen on this host; with `HOST PORT`s after
it, what another user of this host hears there.
"""

import contextlib
import json
import os
import socket
import stat
import struct
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

NOBODY = 65534
REQUIRES_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
MARK = "COPPICE_TEST_MARK"
"""Environment variable by which processes of a test are known, whoever their parents are now."""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter and read; pytest's own folders are closed to others, again and again."""
    with tempfile.TemporaryDirectory(prefix="open", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def as_stranger(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function` returns (as JSON) in a process of another user."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os.write(write, json.dumps(function(*arguments)).encode())
        except BaseException:
            os.write(write, json.dumps({"error": traceback.format_exc()}).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    told = json.loads(answer)
    if isinstance(told, dict) and "error" in told:
        raise AssertionError(told["error"])
    return told


def marked(mark: str) -> list[int]:
    """Processes whose environment holds `mark`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def _inodes(pids: Iterable[int]) -> set[str]:
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):  # the process has ended
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):  # closed meanwhile
                    link = os.readlink(f"/proc/{pid}/fd/{descriptor}")
                    found |= {link[8:-1]} if link.startswith("socket:[") else set()
    return found


def listening(pids: Iterable[int]) -> list[tuple[str, int]]:
    """Addresses and TCP ports on which these processes listen."""
    inodes, found = _inodes(pids), []
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            local, state, inode = (line.split()[i] for i in (1, 3, 9))
            if state == "0A" and inode in inodes:
                address, port = local.split(":")
                words = [address[i : i + 8] for i in range(0, len(address), 8)]
                found.append((socket.inet_ntop(family, b"".join(struct.pack("=I", int(w, 16)) for w in words)), int(port, 16)))
    return found


def unix_sockets(pids: Iterable[int]) -> list[str]:
    """Names of the local sockets on which these processes listen."""
    inodes = _inodes(pids)
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return [line[7] for line in lines if len(line) > 7 and line[6] in inodes and int(line[3], 16) & 0x10000]


REQUESTS = tuple(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in ("/", "/metrics", "/api/jobs/"))


def answers(port: int, host: str = "127.0.0.1", requests: Iterable[bytes] = REQUESTS) -> list[str]:
    """What comes back from a port, for each request; nothing where nobody speaks."""
    found = []
    for request in requests:
        with socket.socket() as client:
            client.settimeout(2)
            try:
                client.connect((host, port))
                client.sendall(request)
                found.append(client.recv(4096).decode("latin-1"))
            except OSError:
                found.append("")
    return found


def reachable_sockets(paths: Iterable[str]) -> list[str]:
    """Local sockets that let this process in, or that it could put its own in the place of."""
    found = []
    for path in paths:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(path.replace("@", "\0", 1) if path.startswith("@") else path)
                found.append(path)
            except OSError:
                if not path.startswith("@") and os.access(os.path.dirname(path), os.W_OK):
                    found.append(path)
    return found


def writable(root: str) -> list[str]:
    """Everything below a folder (itself too) that this process could change or replace."""
    found = [root] if os.access(root, os.W_OK) else []
    for folder, folders, files in os.walk(root):
        paths = [os.path.join(folder, name) for name in (*folders, *files)]
        found += [p for p in paths if not stat.S_ISLNK(os.lstat(p).st_mode) and os.access(p, os.W_OK)]
    return found


def readable(paths: Iterable[str]) -> list[str]:
    """Those of the paths that this process can read."""
    return [p for p in paths if os.access(p, os.R_OK)]


TALK = (
    *REQUESTS,
    b"\x00\x3c\x85\xf7\xce",  # to PyTorch's TCPStore: validate
    b"\x00\x09\x00\x00\x00\x00\x00\x00\x00command/2\x03\x00\x00\x00\x00\x00\x00\x00end",  # to PyTorch's TCPStore: set
    b"\x00" * 64, b"\xff" * 4096, bytes(range(64)), b"",
)  # fmt: skip


def heard(places: Iterable[tuple[str, int]]) -> list[str]:
    """What comes back from each (address, port), whatever is said there."""
    with ThreadPoolExecutor(32) as threads:
        said = [threads.submit(answers, port, host, [request]) for host, port in places for request in TALK]
        return [answer for one in said for answer in one.result()]


def main(mark: str, *places: str) -> None:
    """See above."""
    if places:
        print(json.dumps(as_stranger(heard, [(h, int(p)) for h, p in zip(places[::2], places[1::2], strict=True)])))
    else:
        ours = [pid for pid in marked(mark) if "python" in os.readlink(f"/proc/{pid}/exe")]
        print(json.dumps(listening(ours)))


if __name__ == "__main__":
    main(*sys.argv[1:])
