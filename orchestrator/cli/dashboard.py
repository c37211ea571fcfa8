"""`coppice dashboard`: how to see a running campaign in the Ray dashboard, Prometheus and Grafana."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from coppice.orchestrator.cli.options import Folder, Json
from coppice.orchestrator.cli.output import command, print_json, say, write
from coppice.orchestrator.folder.dashboard_address import Address, read_address
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.lock import load_spec
from coppice.orchestrator.operations.grafana import write_grafana
from coppice.orchestrator.operations.tunnel import Tunnel, tunnel

HOW = "placement: {{{name}: {{dashboard: true}}}} in its campaign file, and resume that file"


def dashboard(
    folder: Folder,
    *,
    login: Annotated[
        str | None,
        typer.Option(help="What your own machine calls this one.  [default: its full name]", metavar="HOST", show_default=False),
    ] = None,
    show_token: Annotated[bool, typer.Option("--show-token", help="Print the secret that the dashboard asks for.")] = False,
    grafana: Annotated[
        Path | None,
        typer.Option(help="Write files for Prometheus and Grafana into this folder.", metavar="DIR", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the tunnel to a running campaign's Ray dashboard and metrics, and where the secret is that it asks for."""
    campaign = CampaignFolder(folder.absolute())
    spec = load_spec(campaign)
    address = read_address(campaign)
    if address is None:
        raise ValueError(f"the campaign in {folder} must be running to be watched, but is not; see {command('status', folder)}.")
    way = tunnel(address, login=login)
    written = [] if grafana is None else write_grafana(grafana, spec.name, f"127.0.0.1:{address.metrics_port}")
    secret = _secret(address) if show_token else None
    if as_json:
        content = {**asdict(address), **asdict(way), "written": written}
        print_json({**content, **({"secret": secret} if show_token else {})})
        return
    _show(address, way, secret or _where_secret(address), HOW.format(name=spec.placement.name))
    if written:
        write(f"Prometheus and Grafana: {written[0]} tells how.")
    if not campaign.running():
        say("No process of this machine runs the campaign; if none does elsewhere either, these addresses are out of date.")


def _secret(address: Address) -> str | None:
    return Path(address.token).read_text().strip() if address.token else None


def _where_secret(address: Address) -> str:
    if not address.token:
        return "the one in RAY_AUTH_TOKEN where the campaign was started"
    return f"the content of {address.token} (--show-token prints it)"


def _show(address: Address, way: Tunnel, secret: str, how: str) -> None:
    where = f"{address.host}{f', Slurm job {address.job}' if address.job else ''}"
    write(f"The campaign runs on {where}. On the machine with your browser:")
    write(f"    {way.command}")
    if way.url:
        write(f"Dashboard: {way.url}")
        write(f"It asks for a token: {secret}")
    else:
        write(f"There is no dashboard; ask for one with {how}.")
    if way.metrics:
        write(f"Metrics:   {way.metrics}")
