"""Hosts: machines of their own behind a switch (as root), or plain processes on loopback addresses."""

import ipaddress
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import zlib
from pathlib import Path

from tests.support.slurm.processes import ClusterError, alive, kill_below, record, sh, spawn, stop, wait_for
from tests.support.slurm.settings import Settings
from tests.support.waiting import LIMIT_S

HOST = Path(__file__).with_name("host.py")
NAMESPACES = ["--net", "--uts", "--ipc", "--mount", "--pid", "--fork"]
PLENTY = 250


def can_have_namespaces() -> bool:
    """Whether nodes can be machines of their own here: root, with the tools and the rights."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare", "nsenter"))):
        return False
    if Path("/proc/self/setgroups").read_text().strip() == "deny":
        return False
    script = "ip link add probe type bridge && ip link add v0 type veth peer name v1 && mount -t proc proc /proc"
    try:
        return sh(["unshare", *NAMESPACES, "sh", "-c", script], check=False, timeout=LIMIT_S).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def make_network(settings: Settings) -> None:
    """Choose addresses; with namespaces, make the switch and the one cable to the real host."""
    if not settings.namespaces:
        settings.prefix = f"127.{random.randrange(64, 127)}.{random.randrange(1, 255)}"
        first = _free_ports(2 + settings.nodes)
        settings.ports = (first, first + 1, first + 2)
        return
    outer = spawn(
        ["unshare", "--net", "--fork", "--kill-child", sys.executable, "-S", str(HOST), "switch", str(settings.state)],
        settings.state / "log" / "switch.log",
        signal.SIGKILL,
    )
    record(settings.run / "switch.outer", outer)
    switch = wait_for("the switch", lambda: alive(settings.run / "switch.pid"))
    number = _plug_in(settings, switch)
    settings.prefix, settings.uplink = f"198.18.{number}", f"slc{number}"
    settings.save()
    sh(["ip", "addr", "add", f"198.18.{number}.1/24", "dev", settings.uplink])
    sh(["ip", "link", "set", settings.uplink, "up"])
    lines = "link set lo up\nlink add br0 type bridge\nlink set br0 up\nlink set up0 master br0\nlink set up0 up\n"
    sh(["nsenter", "-t", str(switch), "-n", "ip", "-batch", "-"], input=lines)


def _plug_in(settings: Settings, switch: int) -> int:
    """A network of the benchmarking range that nothing here uses, claimed by the name of the cable."""
    found = sh(["ip", "-4", "-o", "addr"]).stdout.splitlines()
    used = [ipaddress.ip_interface(line.split()[3]).network for line in found]
    start = zlib.crc32(str(settings.state).encode()) % PLENTY
    for offset in range(PLENTY):
        number = (start + offset) % PLENTY + 1
        if any(u.overlaps(ipaddress.ip_network(f"198.18.{number}.0/24")) for u in used):
            continue
        cable = ["ip", "link", "add", f"slc{number}", "type", "veth", "peer", "name", "up0", "netns", str(switch)]
        done = sh(cable, check=False)
        if done.returncode == 0:
            return number
        if "exists" not in done.stderr:
            raise ClusterError(done.stderr)
    raise ClusterError("no network 198.18.x.0/24 is free.")


def _free_ports(count: int) -> int:
    """First of `count` consecutive ports that nobody uses at the moment, below the ephemeral ones."""
    for _ in range(200):
        first = random.randrange(20000, 32000 - count)
        held: list[socket.socket] = []
        try:
            for port in range(first, first + count):
                held.append(socket.socket())
                held[-1].bind(("0.0.0.0", port))
        except OSError:
            continue
        finally:
            for one in held:
                one.close()
        return first
    raise ClusterError("no ports are free.")


def boot(settings: Settings, hosts: list[str]) -> None:
    """Power on."""
    for host in hosts:
        for leaf in ("net", "pid", "want", "state"):
            (settings.run / f"{host}.{leaf}").unlink(missing_ok=True)
        command = [sys.executable, "-S", str(HOST), "host", str(settings.state), host]
        log = settings.state / "log" / f"host.{host}.log"
        if settings.namespaces:
            record(settings.run / f"{host}.outer", spawn(["unshare", *NAMESPACES, "--kill-child", *command], log, signal.SIGKILL))
        else:
            spawn(command, log, signal.SIGTERM)
    for host in hosts:
        pid = wait_for(f"{host} to boot", lambda h=host: alive(settings.run / f"{h}.pid"), step=0.02)
        if settings.namespaces:
            _connect(settings, host, pid)
        (settings.run / f"{host}.net").touch()
        wait_for(f"{host} to be ready", lambda h=host: (settings.run / f"{h}.state").exists(), step=0.02)


def _connect(settings: Settings, host: str, pid: int) -> None:
    switch = alive(settings.run / "switch.pid")
    inside = ["nsenter", "-t", str(switch), "-n", "ip"]
    sh([*inside, "link", "del", f"p-{host}"], check=False)
    lines = f"link add p-{host} type veth peer name eth0 netns {pid}\nlink set p-{host} master br0\nlink set p-{host} up\n"
    sh([*inside, "-batch", "-"], input=lines)
    lines = f"link set lo up\naddr add {settings.address(host)}/24 dev eth0\nlink set eth0 up\n"
    sh(["nsenter", "-t", str(pid), "-n", "ip", "-batch", "-"], input=lines)


def cable(settings: Settings, host: str, plugged: bool) -> None:
    """Pull a host's network cable, or plug it in again."""
    if not settings.namespaces:
        raise ClusterError("only hosts with a network of their own (root) have a cable.")
    switch = alive(settings.run / "switch.pid")
    how = "up" if plugged else "down"
    sh(["nsenter", "-t", str(switch), "-n", "ip", "link", "set", f"p-{host}", how])


def power_off(settings: Settings, host: str) -> None:
    """Power loss: every process of the host is gone at once."""
    pid = alive(settings.run / f"{host}.pid")
    if pid and not settings.namespaces:
        kill_below(pid)
    stop(settings.run / f"{host}.pid", signal.SIGKILL)
    stop(settings.run / f"{host}.outer", signal.SIGTERM, 2)


def inside(settings: Settings, host: str, command: list[str]) -> list[str]:
    """The command that runs `command` on a host."""
    if not settings.namespaces:
        return list(command)
    pid = alive(settings.run / f"{host}.pid")
    if not pid:
        raise ClusterError(f"{host} is not running.")
    return ["nsenter", "-t", str(pid), "-n", "-u", "-i", "-m", "-p", "--wd=/", "--", *command]


def take_down(settings: Settings) -> None:
    """End every process and remove every interface; the controller goes first, so that it does not requeue what dies next."""
    for host in settings.hosts:
        power_off(settings, host)
    stop(settings.run / "switch.pid", signal.SIGKILL)
    stop(settings.run / "switch.outer", signal.SIGKILL)
    if settings.uplink and Path(f"/sys/class/net/{settings.uplink}").exists():
        sh(["ip", "link", "del", settings.uplink], check=False)
