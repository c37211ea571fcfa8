"""Bring the test cluster up, break it, and take it down again."""

import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import zlib
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.slurm import machines
from tests.support.slurm.processes import ClusterError, alive, record, remove_tree, sh, stop, wait_for
from tests.support.slurm.settings import Settings
from tests.support.waiting import LIMIT_S

SBIN = "/usr/sbin:/sbin:/usr/local/sbin"
TOOLS = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "mariadb-install-db", "sbatch", "srun", "sacct")
FOLDERS = ("ctld", "spool", "db", "run", "dev", "private")
OURS = ("SLURM_", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SINFO_", "SACCT_")


def missing_tools() -> list[str]:
    """What is not installed."""
    path = f"{os.environ.get('PATH', '')}:{SBIN}"
    return [tool for tool in TOOLS if not shutil.which(tool, path=path)]


class Cluster:
    """A Slurm of `nodes` nodes with everything below `state`, a short path."""

    def __init__(self, state: Path, nodes: int = 3, gpus: int = 4) -> None:
        if not re.fullmatch(r"[\w./+=@-]{1,85}", str(state), re.ASCII):
            raise ClusterError(f"the folder must be short and plain (sockets, slurm.conf), but is {state}")
        os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{SBIN}"
        user = pwd.getpwuid(os.geteuid()).pw_name
        self.settings = Settings(state, user, machines.can_have_namespaces(), nodes, gpus=gpus)

    @property
    def names(self) -> list[str]:
        """The nodes."""
        return self.settings.names

    @property
    def state(self) -> Path:
        """The folder of everything."""
        return self.settings.state

    def environment(self) -> dict[str, str]:
        """In which sbatch, squeue, ... talk to this cluster."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(OURS)}
        return {**clean, "SLURM_CONF": str(self.settings.conf)}

    def up(self) -> None:
        """Start everything; on failure the ends of all logs are in the error, and nothing is left running."""
        for folder in (*FOLDERS, "etc", "log"):
            (self.state / folder).mkdir(parents=True, exist_ok=True, mode=0o755)
        for node in self.names:
            (self.state / "spool" / node).mkdir(exist_ok=True)
        try:
            self._up()
        except BaseException as error:
            ends = [f"--- {f.name}\n" + f.read_text(errors="replace")[-600:] for f in sorted((self.state / "log").iterdir())]
            self.down()
            raise ClusterError(f"the test cluster did not start: {error}\n" + "\n".join(ends)) from error

    def _up(self) -> None:
        settings = self.settings
        settings.save()
        install = self._install_database()
        try:
            machines.make_network(settings)
            settings.write_files()
            settings.save()
            machines.boot(settings, settings.hosts)
            self._start_munge()
        finally:
            self._take_database(install)
        self._start_accounting()
        self.daemon("run", "slurmctld", ["ctl"])
        self._answers("slurmctld", settings.ports[0])
        self.daemon("run", "slurmd", self.names)
        wait_for("all nodes to be idle", self.all_idle, step=0.1)

    def _start_munge(self) -> None:
        key = os.open(self.state / "etc" / "munge.key", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        os.write(key, os.urandom(1024))
        os.close(key)
        self.daemon("run", "munged", ["ctl"])
        wait_for("munged", lambda: _connects(str(self.state / "run" / "munge.sock")))

    @property
    def _scratch(self) -> Path:
        """Where the database is made: 800 synced writes, which a busy disk takes seconds for."""
        memory = Path("/dev/shm")
        return (memory if os.access(memory, os.W_OK) else self.state) / f"slurm-test-{zlib.crc32(str(self.state).encode()):08x}"

    def _install_database(self) -> subprocess.Popen[bytes]:
        remove_tree(self._scratch)
        self._scratch.mkdir(mode=0o700)
        command = [
            "mariadb-install-db", "--no-defaults", f"--datadir={self._scratch}/db", "--skip-test-db", "--sync-frm=0",
            "--auth-root-authentication-method=normal", "--innodb-flush-method=nosync", "--innodb-log-file-size=8M",
            f"--tmpdir={self._scratch}", *(["--user=root"] if os.geteuid() == 0 else []),
        ]  # fmt: skip
        with open(self.state / "log" / "mariadb-install.log", "ab") as out:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        record(self.state / "run" / "install.pid", process.pid)
        return process

    def _take_database(self, install: subprocess.Popen[bytes]) -> None:
        try:
            if install.wait(LIMIT_S):
                raise ClusterError("mariadb-install-db failed, see log/mariadb-install.log")
            shutil.rmtree(self.state / "db")
            shutil.copytree(self._scratch / "db", self.state / "db")
        finally:
            if install.poll() is None:
                os.killpg(install.pid, signal.SIGKILL)
                install.wait()
            remove_tree(self._scratch)
            (self.state / "run" / "install.pid").unlink(missing_ok=True)

    def _start_accounting(self) -> None:
        self.daemon("run", "mariadbd", ["ctl"])
        wait_for("mariadbd", lambda: _connects(str(self.state / "run" / "mysql.sock")))
        self.daemon("run", "slurmdbd", ["ctl"])
        self._answers("slurmdbd", self.settings.ports[1])

    def _answers(self, daemon: str, port: int) -> None:
        def answers() -> bool:
            if not self.daemons("ctl").get(daemon, {}).get("running"):
                raise ClusterError(f"{daemon} has ended.")
            return _connects((self.settings.address("ctl"), port))

        wait_for(daemon, answers)

    def daemons(self, host: str) -> dict[str, dict[str, Any]]:
        """What runs on a host."""
        if not alive(self.settings.run / f"{host}.pid"):
            return {}
        found: dict[str, dict[str, Any]] = json.loads((self.settings.run / f"{host}.state").read_text())
        return found

    def daemon(self, how: str, name: str, hosts: list[str]) -> None:
        """`run`, `stop` (SIGTERM) or `kill` (SIGKILL) a daemon on some hosts, and wait until it is so."""
        starts = {host: self.daemons(host).get(name, {}).get("starts", 0) for host in hosts}
        for host in hosts:
            path = self.settings.run / f"{host}.want"
            want = json.loads(path.read_text()) if path.exists() else {}
            path.with_suffix(".new-want").write_text(json.dumps({**want, name: how}))
            path.with_suffix(".new-want").rename(path)
            os.kill(alive(self.settings.run / f"{host}.pid"), signal.SIGHUP)
        for host in hosts:
            wait_for(f"{name} on {host}: {how}", partial(self._is_so, how, name, host, starts[host]), step=0.02)

    def _is_so(self, how: str, name: str, host: str, starts: int) -> bool:
        found = self.daemons(host).get(name, {})
        if how == "run" and found.get("starts", 0) > starts and not found["running"]:
            raise ClusterError(f"{name} on {host} ended at once with status {found['status']}.")
        return bool(found.get("running")) == (how == "run")

    def lose_power(self, node: str) -> None:
        """Every process of a node is gone at once."""
        machines.power_off(self.settings, node)

    def boot(self, node: str) -> None:
        """Power on a node, and its slurmd; nothing when both run.

        The controller is told that the node was down: left alone it takes up to 70 s to miss the jobs of before.
        """
        if self.daemons(node).get("slurmd", {}).get("running"):
            return
        if not alive(self.settings.run / f"{node}.pid"):
            machines.boot(self.settings, [node])
        self.daemon("run", "slurmd", [node])
        for state in ("down", "resume"):
            self.command("scontrol", "update", f"nodename={node}", f"state={state}", "reason=booted", check=False)

    def cable(self, node: str, plugged: bool) -> None:
        """Pull a node's network cable, or plug it in."""
        machines.cable(self.settings, node, plugged)

    def command(self, *command: str, timeout: float = 30, check: bool = True) -> str:
        """Run a Slurm command on the login node and return what it prints."""
        return sh(list(command), timeout, check, env=self.environment()).stdout

    def on(self, host: str, *command: str) -> str:
        """Run a command on a host and return what it prints."""
        return sh(machines.inside(self.settings, host, list(command)), env=self.environment()).stdout

    def node_states(self) -> dict[str, str]:
        """State of each node."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            lines = self.command("sinfo", "-h", "-N", "-p", "main", "-o", "%N %T", timeout=LIMIT_S, check=False).splitlines()
            return dict(line.split()[:2] for line in lines if line.strip())  # type: ignore[misc]
        return {}

    def all_idle(self) -> bool:
        """Whether every node waits for work."""
        states = self.node_states()
        return len(states) == len(self.names) and set(states.values()) == {"idle"}

    def restore(self) -> None:
        """No jobs, all nodes up, cabled and idle: what the next test expects."""
        if not self.daemons("ctl").get("slurmctld", {}).get("running"):
            self.daemon("run", "slurmctld", ["ctl"])
            self._answers("slurmctld", self.settings.ports[0])
        self.command("scancel", "--full", "--signal=KILL", "-u", self.settings.user, check=False)
        self.command("scancel", "-u", self.settings.user, check=False)
        for node in self.names:
            self.boot(node)
            if self.settings.namespaces:
                self.cable(node, True)
        for node, found in self.node_states().items():
            if found not in ("idle", "mixed", "allocated", "completing"):
                self.command("scontrol", "update", f"nodename={node}", "state=resume", check=False)
        wait_for("all nodes to be idle", self.all_idle, step=0.1)

    def down(self) -> None:
        """End everything that was started."""
        stop(self.state / "run" / "install.pid", signal.SIGKILL)
        remove_tree(self._scratch)
        machines.take_down(self.settings)
        for folder in FOLDERS:
            remove_tree(self.state / folder)


def _connects(address: str | tuple[str, int]) -> bool:
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as found:
        found.settimeout(1)
        try:
            found.connect(address)
        except OSError:
            return False
        return True
