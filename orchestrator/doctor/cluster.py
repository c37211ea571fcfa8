"""Whether Slurm is there, answers, and takes the jobs that a site file describes. Nothing is handed in."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping

from coppice.orchestrator.doctor.finding import Finding, ok, problem, warning
from coppice.orchestrator.user import user_name
from coppice.slurm.client import Client, SlurmError
from coppice.slurm.request import Request, options
from coppice.slurm.site import Site, SiteError

NEEDED = ("sbatch", "squeue", "scancel", "scontrol", "srun")


def check_cluster(client: Client, site: Site, request: Request) -> list[Finding]:
    """Findings about a site, as far as they can be had from where this runs.

    Args:
        client: Slurm's commands.
        site: its description.
        request: what a trial's job asks for.
    """
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        advice = "go to a login node of the cluster, or load its Slurm module"
        return [problem("slurm", f"not on the PATH: {', '.join(missing)}", advice), fits_the_site(site, request)]
    settings, controller = settings_of(client)
    if not settings:
        return [controller, fits_the_site(site, request)]
    wanted = [fits_the_site(site, request), account(client, site, request)]
    return [controller, accounts(client), *wanted, *queues(client, site), arrays(site, settings), requeue(site, settings)]


def settings_of(client: Client) -> tuple[dict[str, str], Finding]:
    """The controller's configuration by name; empty where it does not answer."""
    try:
        text = client.run("scontrol", "show", "config", patience_s=0.0)
    except SlurmError as error:
        return {}, problem("slurm", str(error), "wait, or ask the site whether its Slurm is up")
    settings = dict(re.findall(r"^(\w+)\s*=\s?(.*?)\s*$", text, re.MULTILINE))
    return settings, ok("slurm", f"{settings.get('ClusterName', '?')} answers, version {settings.get('SLURM_VERSION', '?')}")


def accounts(client: Client) -> Finding:
    """Whether ended jobs can be asked about."""
    try:
        client.run("sacct", "-n", "-X", "-P", "-S", "now-1hour", "-o", "JobID", patience_s=0.0)
    except SlurmError as error:
        advice = "nothing: campaigns run without; hours are estimated, and how forgotten jobs ended is read from their trials"
        return warning("sacct", str(error), advice)
    return ok("sacct", "ended jobs can be asked about")


def fits_the_site(site: Site, request: Request) -> Finding:
    """Whether the site file takes what a trial asks for."""
    try:
        given = options(site, request)
    except SiteError as error:
        return problem("job of a trial", str(error), "change resources or placement in the campaign file, or the site file")
    return ok("job of a trial", " ".join(f"--{k}={v}" if v else f"--{k}" for k, v in sorted(given.items())))


def account(client: Client, site: Site, request: Request) -> Finding:
    """Whether the account exists and may be used by this user."""
    try:
        given = options(site, request).get("account")
    except SiteError:
        given = request.account
    if given is None and site.account.required:
        return problem("account", f"site {site.name} wants one, but none is given", "name it: --account, or placement.account")
    user = user_name()
    try:
        rows = client.run("sacctmgr", "-n", "-P", "show", "assoc", f"where=user={user}", "format=Account", patience_s=0.0)
    except SlurmError:
        rows = ""
    mine = sorted({row.strip() for row in rows.splitlines() if row.strip()})
    if given is None:
        return ok("account", f"none is given, and none is asked for; yours: {', '.join(mine) or 'none that one can see'}")
    if not mine:
        return warning("account", f"{given} is given; yours cannot be seen (sacctmgr)", "make sure that you may use it")
    if given.lower() not in (a.lower() for a in mine):
        return problem("account", f"{given} is not one of yours ({', '.join(mine)})", "name one of yours: --account")
    return ok("account", f"{given} is one of yours")


def queues(client: Client, site: Site) -> list[Finding]:
    """Whether the partitions and qos of the site file exist, are open, and allow as much time as the file says."""
    try:
        partitions = _partitions(client.run("sinfo", "-h", "-o", "%R|%a|%l", patience_s=0.0))
    except SlurmError as error:
        return [warning("partitions", str(error), "wait, and look again")]
    try:
        listed = client.run("sacctmgr", "-n", "-P", "show", "qos", "format=Name", patience_s=0.0)
        known: set[str] | None = {line.strip() for line in listed.splitlines() if line.strip()}
    except SlurmError:
        known = None
    findings = []
    for queue in site.queues:
        if queue.partition is not None:
            findings.append(_partition(queue.partition, queue.max_min, partitions))
        if queue.qos is not None and known is not None:
            there = f"qos {queue.qos} exists"
            findings.append(ok("qos", there) if queue.qos in known else problem(
                "qos", f"there is no {queue.qos}; there are {', '.join(sorted(known))}", "correct the site file"))  # fmt: skip
    if not findings:
        names = ", ".join(f"{n} ({'no limit' if p[1] is None else f'{p[1]} min'})" for n, p in partitions.items())
        findings = [ok("partitions", f"the site file names none; there are {names}")]
    return list(dict.fromkeys(findings))


def _partitions(text: str) -> dict[str, tuple[bool, int | None]]:
    """(open, longest time in minutes) by name."""
    partitions: dict[str, tuple[bool, int | None]] = {}
    for line in text.splitlines():
        name, state, limit = line.split("|", 2)
        partitions[name] = (state == "up", minutes(limit))
    return partitions


def minutes(limit: str) -> int | None:
    """Minutes of `[days-]hours:minutes:seconds` or `minutes:seconds`; None for `infinite`."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit.strip())
    if match is None:
        return None
    days, hours, mins, _ = (int(part or 0) for part in match.groups())
    return 1440 * days + 60 * hours + mins


def _partition(name: str, max_min: int, partitions: Mapping[str, tuple[bool, int | None]]) -> Finding:
    if name not in partitions:
        return problem("partition", f"there is no {name}; there are {', '.join(sorted(partitions))}", "correct the site file")
    up, most = partitions[name]
    if not up:
        return warning("partition", f"{name} is closed", "jobs wait until it opens")
    if most is not None and most < max_min:
        return problem("partition", f"{name} allows {most} min, the site file says {max_min}", "correct max_min in the site file")
    return ok("partition", f"{name} is open and allows {'any time' if most is None else f'{most} min'}")


def arrays(site: Site, settings: Mapping[str, str]) -> Finding:
    """Whether arrays of the site file's size are taken."""
    most = int(settings.get("MaxArraySize", "1001")) - 1
    summary = f"{site.limits.array_size} jobs at once by the site file, {most} by Slurm"
    if site.limits.array_size > most:
        return problem("arrays", summary, f"set limits.array_size to {most} in the site file")
    return ok("arrays", summary)


def requeue(site: Site, settings: Mapping[str, str]) -> Finding:
    """Whether jobs may be requeued, as far as the configuration tells."""
    allowed = settings.get("JobRequeue", "1") == "1"
    summary = f"Slurm {'requeues' if allowed else 'does not requeue'} jobs by default, the site file says {site.requeue}"
    if site.requeue == "yes" and not allowed:
        return warning("requeue", summary, "probe it: coppice doctor --on-node --requeue")
    return ok("requeue", summary)
