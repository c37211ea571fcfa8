"""`coppice dashboard`: how to see a running campaign in the Ray dashboard, Prometheus and Grafana."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coppice.orchestrator.cli.output import command, print_json, say
from coppice.orchestrator.cli.status import Folder

if TYPE_CHECKING:
    from coppice.orchestrator.folder.dashboard_address import Address
    from coppice.orchestrator.operations.tunnel import Tunnel

HOW = "placement: {{{name}: {{dashboard: true}}}} in its campaign file, and resume that file"


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(dashboard)


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
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Print the tunnel to a running campaign's Ray dashboard and metrics, and where the secret is that it asks for."""
    from coppice.orchestrator.folder.dashboard_address import read_address
    from coppice.orchestrator.folder.layout import CampaignFolder
    from coppice.orchestrator.folder.lock import load_spec
    from coppice.orchestrator.operations.tunnel import tunnel

    campaign = CampaignFolder(folder.absolute())
    spec = load_spec(campaign)
    address = read_address(campaign)
    if address is None:
        raise ValueError(f"the campaign in {folder} must be running to be watched, but is not; see {command('status', folder)}.")
    found = tunnel(address, login=login)
    written: list[Path] = []
    if grafana is not None:
        from coppice.orchestrator.operations.grafana import write_grafana

        written = write_grafana(grafana, spec.name, f"127.0.0.1:{address.metrics_port}")
    secret = _secret(address) if show_token else None
    if as_json:
        content = {**asdict(address), **asdict(found), "written": written}
        print_json({**content, **({"secret": secret} if show_token else {})})
        return
    _show(address, found, spec.placement.name, secret, show_token)
    if written:
        typer.echo(f"Prometheus and Grafana: {written[0]} tells how.")
    if not campaign.running():
        say("No process of this machine runs the campaign; if none does elsewhere either, these addresses are out of date.")


def _secret(address: Address) -> str | None:
    return Path(address.token).read_text().strip() if address.token else None


def _show(address: Address, found: Tunnel, placement: str, secret: str | None, show_token: bool) -> None:
    where = f"{address.host}{f', Slurm job {address.job}' if address.job else ''}"
    typer.echo(f"The campaign runs on {where}. On the machine with your browser:")
    typer.echo(f"    {found.command}")
    if found.url:
        typer.echo(f"Dashboard: {found.url}")
        typer.echo(f"It asks for a token: {secret if show_token and secret else _where(address)}")
    else:
        typer.echo(f"There is no dashboard; ask for one with {HOW.format(name=placement)}.")
    if found.metrics:
        typer.echo(f"Metrics:   {found.metrics}")


def _where(address: Address) -> str:
    if not address.token:
        return "the one in RAY_AUTH_TOKEN where the campaign was started"
    return f"the content of {address.token} (--show-token prints it)"
