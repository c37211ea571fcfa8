"""`coppice doctor`: whether a campaign can run here and on the nodes."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from coppice.orchestrator.cli.options import Account, Json
from coppice.orchestrator.cli.output import console, print_json, say, write
from coppice.orchestrator.config.models import Campaign, ResourcesSpec
from coppice.orchestrator.config.placement import JobPlacement, SlurmPlacement
from coppice.orchestrator.doctor import cluster, machine, node
from coppice.orchestrator.doctor import folder as disk
from coppice.orchestrator.doctor.finding import Finding
from coppice.orchestrator.folder.files import read_json
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.lock import load_spec
from coppice.orchestrator.placement.jobs.request import request_of
from coppice.orchestrator.planning.sites import at_site
from coppice.orchestrator.report.numbers import plural
from coppice.slurm.client import Client
from coppice.slurm.site import load_site

PROBLEM = 1


def doctor(
    campaign: Annotated[
        Path | None, typer.Argument(help="Folder of a campaign, or a campaign file.", metavar="[FOLDER|FILE]", show_default=False)
    ] = None,
    *,
    site: Annotated[
        str | None, typer.Option("--site", help="A site, or a site file.  [default: the campaign's]", show_default=False)
    ] = None,
    account: Account = None,
    root: Annotated[
        Path | None, typer.Option(help="Where campaigns are to be.  [default: the campaign's, else here]", show_default=False)
    ] = None,
    on_node: Annotated[bool, typer.Option("--on-node", help="Also look at a compute node, with a tiny job.")] = False,
    requeue: Annotated[bool, typer.Option("--requeue", help="With --on-node: try whether the job may requeue itself.")] = False,
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait for the tiny job.", min=1)] = 300.0,
    as_json: Json = False,
) -> None:
    """Check software, folder, Slurm, account and, with --on-node, a compute node. Exit code 1: something must be put right."""
    spec, place = _campaign(campaign, site, account)
    findings = _findings(spec, root or place, site, account, (wait, requeue) if on_node else None)
    if as_json:
        print_json([asdict(f) for f in findings])
    else:
        _show(findings)
    if any(f.level == "problem" for f in findings):
        raise typer.Exit(PROBLEM)


def _campaign(path: Path | None, site: str | None, account: str | None) -> tuple[Campaign | None, Path]:
    """The campaign, if one is named, as it would be handed in at `site`, and where it is to be."""
    if path is None:
        return None, Path.cwd()
    if path.is_dir():
        return load_spec(CampaignFolder(path.absolute())), path
    from coppice.orchestrator.planning.load import load_campaign  # needs PyTorch, which may be what is broken here

    spec = load_campaign(path) if site is None else load_campaign(path, at_site(site, account))
    return spec, spec.root


def _findings(
    spec: Campaign | None, root: Path, site: str | None, account: str | None, job: tuple[float, bool] | None
) -> list[Finding]:
    placement = spec.placement if spec is not None and isinstance(spec.placement, SlurmPlacement) else None
    at = load_site(site or (placement or JobPlacement()).site)
    place = disk.existing(root.absolute())
    longest_h = max(q.max_min for q in at.queues) / 60
    resources = spec.resources if spec is not None else ResourcesSpec(hours=min(24.0, longest_h))
    gpus_here = resources.gpus if spec is not None and placement is None else 0
    here = machine.described()
    findings = [*machine.check_machine(here, gpus_here), *_started(place, here), *disk.check_folder(place, at.scratch)]
    if site is None and placement is None and job is None:
        return findings
    request = request_of(_billed(placement or JobPlacement(), account), resources, at)
    client = Client(timeout_s=30.0)
    findings += cluster.check_cluster(client, at, request)
    if job is not None:
        findings += node.on_node(place, at, request, client, wait_s=job[0], requeue=job[1], tell=say)
    return findings


def _billed(placement: SlurmPlacement, account: str | None) -> SlurmPlacement:
    return placement.model_copy(update={"account": account}) if account else placement


def _started(place: Path, here: dict[str, Any]) -> list[Finding]:
    """Versions, where a campaign has been started already."""
    lock = CampaignFolder(place).lock
    return [machine.since_start(here, read_json(lock).get("versions", {}))] if lock.exists() else []


def _show(findings: Sequence[Finding]) -> None:
    out = console()
    width = out.width if out.is_terminal else max(shutil.get_terminal_size().columns, 120)
    checks = max(len(f.check) for f in findings)
    for finding in findings:
        write("\n".join(_lines(finding, checks, max(width, 60))))
    problems, warnings = (sum(f.level == level for f in findings) for level in ("problem", "warning"))
    write(f"{plural(len(findings), 'check')}: {plural(problems, 'problem')}, {plural(warnings, 'warning')}.")
    if any(f.check == "slurm" and f.level == "ok" for f in findings) and not any(f.check.startswith("node") for f in findings):
        say("No compute node was looked at; --on-node does, with a tiny job.")


def _lines(finding: Finding, checks: int, width: int) -> list[str]:
    """A finding as lines of `width`, where the name of a check takes `checks` columns."""
    indent = " " * (9 + checks + 2)
    head = f"{finding.level:<9}{finding.check:<{checks}}  "
    lines = []
    for text, first, rest in ((finding.found, head, indent), (finding.advice, f"{indent}-> ", f"{indent}   ")):
        if text:
            lines += textwrap.wrap(text, width, initial_indent=first, subsequent_indent=rest, break_long_words=False)
    return lines
