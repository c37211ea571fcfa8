"""What the test cluster is, and its configuration files. Standard library only."""

import json
import os
import socket
from dataclasses import asdict, dataclass, field
from pathlib import Path

CONF = """\
ClusterName=lab
SlurmctldHost={controller}({controller_address})
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# cred_expire is also how long a requeued job waits before it may start again: 120 s by default, 5 s at least
AuthInfo=socket={state}/run/munge.sock,cred_expire=5
StateSaveLocation={state}/ctld
SlurmdSpoolDir={state}/spool/%n
SlurmctldPidFile={state}/run/slurmctld.pid
SlurmdPidFile={state}/run/slurmd.%n.pid
SlurmctldLogFile={state}/log/slurmctld.log
SlurmdLogFile={state}/log/slurmd.%n.log
SlurmctldDebug=info
SlurmdDebug=info
LogTimeFormat=iso8601_ms
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
PropagateResourceLimits=CORE
# nodes claim more than the machine has
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
GresTypes=gpu
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=10000,bf_interval=1,bf_resolution=1,bf_continue,\
default_queue_depth=2000,bf_max_job_test=2000,preempt_youngest_first
SlurmctldTimeout=10
SlurmdTimeout=5
TCPTimeout=2
MessageTimeout=5
KillWait=2
CompleteWait=0
InactiveLimit=0
WaitTime=0
MinJobAge=600
MaxArraySize=1001
MaxJobCount=10000
ReturnToService=1
BatchStartTimeout=20
UnkillableStepTimeout=20
# what cgroups do elsewhere: nothing that a job has started outlives it
Epilog={state}/etc/epilog.sh
JobRequeue=1
OverTimeLimit=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={controller_address}
AccountingStoragePort={database_port}
AccountingStorageTRES=gres/gpu
AccountingStoragePass={state}/run/munge.sock
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=10 State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=preempt Nodes=ALL Default=NO MaxTime=INFINITE DefaultTime=10 State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=5
"""
DATABASE = """\
DbdHost={controller}
DbdAddr={controller_address}
DbdPort={database_port}
SlurmUser={user}
AuthType=auth/munge
AuthInfo=socket={state}/run/munge.sock
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct
LogFile={state}/log/slurmdbd.log
PidFile={state}/run/slurmdbd.pid
DebugLevel=info
LogTimeFormat=iso8601_ms
CommitDelay=0
"""
EPILOG = """\
#!/bin/sh
for i in 1 2 3 4 5 6 7 8 9 10; do
    hit=
    for f in $(grep -lzxF -e "SLURM_JOB_ID=$SLURM_JOB_ID" /proc/[0-9]*/environ 2>/dev/null); do
        p=${{f#/proc/}}
        p=${{p%/environ}}
        [ "$p" = $$ ] && continue
        grep -qzxF "SLURMD_NODENAME=$SLURMD_NODENAME" "$f" 2>/dev/null || continue
        grep -qzxF "SLURM_CONF={conf}" "$f" 2>/dev/null || continue
        kill -9 "$p" 2>/dev/null && hit=1
    done
    [ -z "$hit" ] && exit 0
    sleep 0.1
done
exit 0
"""


@dataclass
class Settings:
    """One cluster.

    Attributes:
        state: its folder; everything is below it.
        user: who runs the daemons.
        namespaces: nodes are machines of their own (network, host name, processes, /tmp/ray); else plain processes.
        nodes: how many.
        cpus: that each node claims.
        memory: MiB that each node claims.
        gpus: stand-ins for GPUs on each node.
        prefix: first three numbers of the addresses.
        uplink: the one network interface on the host.
        ports: of the controller, the database daemon and the (first) node.
        private: folders of which every node has its own (with namespaces).
    """

    state: Path
    user: str
    namespaces: bool
    nodes: int = 3
    cpus: int = 16
    memory: int = 64000
    gpus: int = 4
    prefix: str = ""
    uplink: str = ""
    ports: tuple[int, int, int] = (6817, 6819, 6818)
    private: list[str] = field(default_factory=lambda: ["/tmp/ray"])

    @property
    def names(self) -> list[str]:
        """Names of the compute nodes."""
        return [f"node{i}" for i in range(1, self.nodes + 1)]

    @property
    def hosts(self) -> list[str]:
        """The controller and the nodes."""
        return ["ctl", *self.names]

    @property
    def run(self) -> Path:
        """Sockets and records of processes."""
        return self.state / "run"

    @property
    def conf(self) -> Path:
        """What SLURM_CONF must name."""
        return self.state / "etc" / "slurm.conf"

    def address(self, host: str) -> str:
        """Address of `login`, `ctl` or a node."""
        return f"{self.prefix}.{ {'login': 1, 'ctl': 2}.get(host) or 10 + int(host[4:]) }"

    def save(self) -> None:
        """For the first process of each host, and for whoever cleans up."""
        (self.state / "cluster.json").write_text(json.dumps({**asdict(self), "state": str(self.state)}))

    @staticmethod
    def load(state: Path) -> "Settings":
        """What was saved."""
        written = json.loads((state / "cluster.json").read_text())
        return Settings(**{**written, "state": state, "ports": tuple(written["ports"])})

    def write_files(self) -> None:
        """The configuration of all daemons."""
        etc = self.state / "etc"
        controller = "ctl" if self.namespaces else socket.gethostname().split(".", maxsplit=1)[0]
        fill = {
            "state": self.state, "user": self.user, "controller": controller, "controller_address": self.address("ctl"),
            "controller_port": self.ports[0], "database_port": self.ports[1], "node_port": self.ports[2],
            "nodes": "\n".join(self._node_line(i, n) for i, n in enumerate(self.names)), "conf": self.conf,
        }  # fmt: skip
        self.conf.write_text(CONF.format(**fill))
        private = os.open(etc / "slurmdbd.conf", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        os.write(private, DATABASE.format(**fill).encode())
        os.close(private)
        for i in range(self.gpus):  # slurmd wants character devices, and takes the number at the end of the name
            (self.state / "dev" / f"nvidia{i}").symlink_to("/dev/null")
        devices = f"[0-{self.gpus - 1}]" if self.gpus > 1 else "0"
        (etc / "gres.conf").write_text(f"Name=gpu File={self.state}/dev/nvidia{devices}\n" if self.gpus else "")
        (etc / "epilog.sh").write_text(EPILOG.format(**fill))
        (etc / "epilog.sh").chmod(0o755)
        known = [f"{self.address('login')} login {socket.gethostname()}", *(f"{self.address(h)} {h}" for h in self.hosts)]
        (etc / "hosts").write_text("\n".join(["127.0.0.1 localhost", *known, ""]))

    def _node_line(self, place: int, name: str) -> str:
        port = "" if self.namespaces else f" Port={self.ports[2] + place}"
        gpus = f" Gres=gpu:{self.gpus}" if self.gpus else ""
        size = f"Sockets=1 CoresPerSocket={self.cpus} ThreadsPerCore=1 RealMemory={self.memory}"
        return f"NodeName={name} NodeAddr={self.address(name)}{port} {size}{gpus} State=UNKNOWN"
