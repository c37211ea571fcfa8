"""What a process finds where it runs: software, GPUs, ports, disks. The same code looks here and on a compute node."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coppice.orchestrator.doctor.finding import Finding, ok, problem, warning
from coppice.orchestrator.folder.lock import PACKAGES

PORTS = 40
"""About so many a Ray takes."""
LITTLE_GB = 5.0


def described(local_disk: str | None = None) -> dict[str, Any]:
    """Facts about this machine and this Python.

    Args:
        local_disk: of the site file: an environment variable (`$TMPDIR`) or a path; None takes where temporary files go.
    """
    return {
        "host": socket.gethostname(), "python": platform.python_version(), "executable": sys.executable,
        "versions": versions(), "torch": _torch(), "imports": _imports(), "ports": _ports(), "disk": _disk(local_disk),
    }  # fmt: skip


def versions() -> dict[str, str]:
    """Of the packages that must be the same everywhere; what is missing is left out."""
    installed = {}
    for name in (*PACKAGES, "submitit"):
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def _imports() -> dict[str, str]:
    """What goes wrong when packages are imported, by name."""
    failures = {}
    for name in ("ray", "submitit"):
        try:
            importlib.import_module(name)
        except Exception as error:  # a package that is half installed raises anything
            failures[name] = f"{type(error).__name__}: {error}"
    return failures


def _torch() -> dict[str, Any]:
    """Whether PyTorch can be imported and which GPUs it sees."""
    try:
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return {"gpus": [torch.cuda.get_device_name(i) for i in range(count)], "error": ""}
    except Exception as error:  # a broken driver raises anything
        return {"gpus": [], "error": f"{type(error).__name__}: {error}"}


def _ports() -> int:
    """How many of the ports that a Ray would take can be had."""
    held = []
    try:
        for _ in range(PORTS):
            held.append(socket.create_server(("127.0.0.1", 0)))
    except OSError:
        pass
    finally:
        for one in held:
            one.close()
    return len(held)


def _disk(local_disk: str | None) -> dict[str, Any]:
    path = os.path.expandvars(local_disk) if local_disk else tempfile.gettempdir()
    if "$" in path:
        return {"path": path, "free_gb": 0.0, "error": f"{local_disk} is not set"}
    try:
        with tempfile.TemporaryFile(dir=path):
            return {"path": path, "free_gb": shutil.disk_usage(path).free / 1e9, "error": ""}
    except OSError as error:
        return {"path": path, "free_gb": 0.0, "error": str(error)}


def check_machine(facts: Mapping[str, Any], gpus: int, where: str = "") -> list[Finding]:
    """Findings about a machine.

    Args:
        facts: as `described` returns them.
        gpus: how many it must have.
        where: put before the names of the checks.
    """
    known = facts["versions"]
    software = f"Python {facts['python']}, " + ", ".join(f"{n} {known[n]}" for n in ("torch", "ray", "submitit") if n in known)
    findings = [ok(f"{where}python", f"{software} ({facts['executable']} on {facts['host']})")]
    if missing := [n for n in ("torch", "ray", "submitit") if n not in known]:
        findings = [problem(f"{where}python", f"{software}; not installed: {', '.join(missing)}", "pip install coppice-nn")]
    findings += [
        problem(f"{where}{n}", f"cannot be imported: {why}", "repair the environment") for n, why in facts["imports"].items()
    ]
    return [*findings, *_gpus(facts["torch"], gpus, where), _free_ports(facts["ports"], where), _free_disk(facts["disk"], where)]


def _gpus(torch: Mapping[str, Any], gpus: int, where: str) -> list[Finding]:
    check, names = f"{where}gpus", torch["gpus"]
    if torch["error"]:
        return [problem(check, f"PyTorch cannot be imported: {torch['error']}", "repair the environment there")]
    summary = f"PyTorch sees {len(names)} ({', '.join(sorted(set(names)))})" if names else "PyTorch sees none"
    if len(names) < gpus:
        what = f"a PyTorch built for CUDA, a driver, and the gpu_style of the site file; {gpus} must be seen"
        return [problem(check, summary, f"look after {what}")]
    return [ok(check, summary)] if gpus else []


def _free_ports(count: int, where: str) -> Finding:
    if count < PORTS:
        return problem(
            f"{where}ports", f"only {count} of {PORTS} ports could be had", "end what holds so many, or use another node"
        )
    return ok(f"{where}ports", f"{count} ports could be had at once")


def _free_disk(disk: Mapping[str, Any], where: str) -> Finding:
    check = f"{where}local disk"
    if disk["error"]:
        return problem(check, f"{disk['path']} cannot be written: {disk['error']}", "set TMPDIR, or local_disk in the site file")
    summary = f"{disk['free_gb']:,.0f} GB free in {disk['path']}"
    return ok(check, summary) if disk["free_gb"] > LITTLE_GB else warning(check, summary, "clean it up: Ray stops below 5 % free")


def since_start(here: Mapping[str, Any], started: Mapping[str, str]) -> Finding:
    """Whether a campaign would go on with the versions that it was started with."""
    other = [
        f"{n} {v} then, {here['versions'].get(n, 'missing')} here" for n, v in started.items() if here["versions"].get(n) != v
    ]
    if other:
        advice = "results of one campaign would mix them: go on in the environment it was started in, or start another campaign"
        return warning("versions", "; ".join(other), advice)
    return ok("versions", "those that the campaign was started with")


def compared(here: Mapping[str, Any], there: Mapping[str, Any]) -> Finding:
    """Whether the environment on a node is that of the login node."""
    pairs = [("python", here["python"], there["python"])]
    pairs += [(n, here["versions"].get(n), there["versions"].get(n)) for n in sorted({*here["versions"], *there["versions"]})]
    other = [f"{name} {mine or 'missing'} here, {theirs or 'missing'} there" for name, mine, theirs in pairs if mine != theirs]
    if other:
        advice = "campaigns must be started with the environment that nodes see: keep it on a shared file system"
        return problem("node: environment", "; ".join(other), advice)
    return ok("node: environment", f"the same {len(pairs)} versions as here, in {Path(there['executable']).parent}")
