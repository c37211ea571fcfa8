"""`coppice plan`: checks a campaign file, shows what would run and what it would cost, starts nothing."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.output import plain_table, print_json, show

File = Annotated[Path, typer.Argument(help="A campaign file.", metavar="FILE")]


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(plan)


def plan(
    file: File,
    *,
    samples: Annotated[int, typer.Option(help="How many sampled trials to show.", min=1)] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Check a campaign file, show sampled trials and what they cost; start nothing."""
    from orchestrator.load import load_campaign
    from orchestrator.preview import previews, total_compute
    from orchestrator.report.numbers import plural, short, whole

    spec = load_campaign(file)
    sampled = previews(spec, samples)
    total = total_compute(spec, sampled)
    if as_json:
        print_json({"name": spec.name, "trials": spec.search.trials, "compute": total, "sampled": [asdict(p) for p in sampled]})
        return
    rows = [(_values(p.params), whole(p.parameters), short(p.flops), short(p.compute)) for p in sampled]
    heads = ("sampled values", "parameters", "FLOPs a forward", "training FLOPs")
    show(plain_table(heads, rows, numbers=heads[1:]))
    typer.echo(f"{file} is fine: {plural(spec.search.trials, 'trial')} in {spec.root / spec.name}, about {short(total)} training "
               f"FLOPs if no network changed its size and none ended early.")
    typer.echo(f"Nothing was started. Start it with: coppice run {file}")


def _values(params: dict[str, Any]) -> str:
    """One sampled value a line, and an empty line."""
    lines = [f"{path} = {value:.4g}" if isinstance(value, float) else f"{path} = {value}" for path, value in params.items()]
    return "\n".join([*(lines or ["nothing is searched"]), ""])
