"""How much of this machine this process may use."""

from __future__ import annotations

import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def usable_cpus(groups: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """Cores: those that this process is bound to (`taskset`, Slurm, cpusets), and no more than its control groups grant."""
    bound = len(os.sched_getaffinity(0))
    granted = [quota for group in _above(groups, own) if (quota := _quota(group)) is not None]
    return max(1, min([bound, *(int(quota) for quota in granted)]))


def _above(groups: Path, own: Path) -> list[Path]:
    """The control groups of this process that may limit its cores, from its own up to the root."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = groups / "cpu" if controllers else groups
        here = base / path.lstrip("/")
        found += [here, *(p for p in here.parents if p.is_relative_to(base))]
    return found


def _quota(group: Path) -> float | None:
    """Cores that a control group grants; None where it grants all."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return None if quota in ("max", "-1") else float(quota) / float(period)
    except (OSError, ValueError):
        return None
