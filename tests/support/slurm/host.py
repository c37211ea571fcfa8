"""The first process of a host: makes it a machine of its own, keeps the daemons that are wanted, adopts orphans.

Started as a script, without site-packages. A daemon that dies is not started again: tests want to see that.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.support.slurm.processes import kill_below, record, started, wait_for
from tests.support.slurm.settings import Settings

PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/sbin"
WAKE = {signal.SIGHUP, signal.SIGCHLD, signal.SIGTERM}
MUNGE = {
    "key-file": "etc/munge.key", "socket": "run/munge.sock", "pid-file": "run/munged.own", "seed-file": "run/munge.seed",
    "log-file": "log/munged.log",
}  # fmt: skip
FILES = {"socket": "sock", "pid-file": "pid"}
ADOPT_ORPHANS = 36
"""PR_SET_CHILD_SUBREAPER of prctl."""


def commands(settings: Settings, host: str) -> dict[str, list[str]]:
    """How each daemon is started."""
    state, root = settings.state, ["--user=root"] if os.geteuid() == 0 else []
    quick = ["--innodb-flush-method=nosync", "--innodb-flush-log-at-trx-commit=0", "--sync-frm=0", "--skip-log-bin"]
    small = ["--innodb-buffer-pool-size=32M", "--innodb-log-file-size=8M", "--innodb-lock-wait-timeout=900"]
    files = [f"--datadir={state}/db", f"--tmpdir={state}/run", *(f"--{k}={state}/run/mysql.{v}" for k, v in FILES.items())]
    return {
        "slurmd": ["slurmd", "-D", "-N", host, "-f", str(settings.conf)],
        "slurmctld": ["slurmctld", "-D", "-f", str(settings.conf)],
        "slurmdbd": ["slurmdbd", "-D"],
        "munged": ["munged", "--foreground", "--force", *(f"--{k}={state / v}" for k, v in MUNGE.items()), "--num-threads=10"],
        "mariadbd": ["mariadbd", "--no-defaults", *root, *files, *quick, *small, f"--log-error={state}/log/mariadbd.log",
                     "--skip-networking", "--performance-schema=OFF"],
    }  # fmt: skip


def become_a_machine(settings: Settings, host: str) -> None:
    """Mounts and host name."""
    socket.sethostname(host)
    mounts = [
        ["mount", "-t", "proc", "proc", "/proc"],
        ["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/dev/shm"],
        ["mount", "--bind", f"{settings.state}/etc/hosts", "/etc/hosts"],
    ]
    for folder in settings.private:
        own = settings.state / "private" / host / folder.strip("/").replace("/", "_")
        own.mkdir(parents=True, exist_ok=True)
        own.chmod(0o1777)
        Path(folder).mkdir(parents=True, exist_ok=True, mode=0o1777)
        mounts.append(["mount", "--rbind", str(own), folder])
    for mount in mounts:
        subprocess.run(mount, check=True, stdin=subprocess.DEVNULL)


class Host:
    """Keeps what `<host>.want` asks for, and says in `<host>.state` what is."""

    def __init__(self, settings: Settings, host: str) -> None:
        self.settings, self.host = settings, host
        self.running: dict[str, int] = {}
        self.ended: dict[str, int] = {}
        self.starts: dict[str, int] = {}
        self.commands = commands(settings, host)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH"))}
        sockets = {"SLURM_CONF": str(settings.conf), "MYSQL_UNIX_PORT": f"{settings.state}/run/mysql.sock"}
        self.environment = {**clean, **sockets, "PATH": PATH}

    def say(self) -> None:
        """Write down what is."""
        told = {n: {"running": n in self.running, "starts": s, "status": self.ended.get(n)} for n, s in self.starts.items()}
        path = self.settings.run / f"{self.host}.state"
        path.with_suffix(".new-state").write_text(json.dumps(told))
        path.with_suffix(".new-state").rename(path)

    def follow(self) -> None:
        """Start and end daemons as wanted."""
        path = self.settings.run / f"{self.host}.want"
        for name, how in (json.loads(path.read_text()) if path.exists() else {}).items():
            if how == "run" and name not in self.running:
                self.starts[name] = self.starts.get(name, 0) + 1
                with open(self.settings.state / "log" / f"{name}.{self.host}.out", "ab") as out:
                    self.running[name] = subprocess.Popen(
                        self.commands[name], stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self.environment,
                        cwd=self.settings.state / "log", start_new_session=True,
                        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, WAKE),  # noqa: PLW1509
                    ).pid  # fmt: skip
            elif how in ("stop", "kill") and name in self.running:
                os.kill(self.running[name], signal.SIGTERM if how == "stop" else signal.SIGKILL)

    def reap(self) -> None:
        """Take note of what has ended, orphans included."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for name in [n for n, p in self.running.items() if p == pid]:
                del self.running[name]
                self.ended[name] = os.waitstatus_to_exitcode(status)

    def live(self) -> None:
        """Until SIGTERM."""
        self.say()
        self.follow()
        while (got := signal.sigwait(WAKE)) != signal.SIGTERM:
            if got == signal.SIGHUP:
                self.follow()
            self.reap()
            self.say()


def main(state: str, host: str) -> None:
    """Run as process 1 of a host."""
    settings = Settings.load(Path(state))
    os.umask(0o022)
    pid = os.getpid()
    if settings.namespaces:
        pid = int(os.readlink("/proc/self"))  # still as the real host sees it
        found = started(pid)
        become_a_machine(settings, host)
    else:
        ctypes.CDLL(None, use_errno=True).prctl(ADOPT_ORPHANS, 1, 0, 0, 0)
        found = started(pid)
    assert found is not None
    signal.pthread_sigmask(signal.SIG_BLOCK, WAKE)
    path = settings.run / f"{host}.pid"
    path.with_suffix(".new").write_text(json.dumps({"pid": pid, "start": found[1]}))
    path.with_suffix(".new").rename(path)
    wait_for("the network", (settings.run / f"{host}.net").exists, step=0.02)
    Host(settings, host).live()
    if not settings.namespaces:
        kill_below(os.getpid())


def switch(state: str) -> None:
    """Hold the network namespace with the switch that connects the hosts."""
    run = Path(state) / "run"
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    record(run / "switch.pid", os.getpid())
    signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    (switch if sys.argv[1] == "switch" else main)(*sys.argv[2:])
