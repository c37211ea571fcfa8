"""`coppice plan`: checks a campaign file and shows what would run and what it would cost, without starting anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from coppice.orchestrator.cli.options import Account, File, Hours, Json
from coppice.orchestrator.cli.output import command, plain_table, print_json, show, write
from coppice.orchestrator.cli.submit import driver_request
from coppice.orchestrator.planning.forecast import as_text, forecast
from coppice.orchestrator.planning.load import load_campaign
from coppice.orchestrator.planning.outlook import outlook
from coppice.orchestrator.planning.preview import Preview, previews, total_compute
from coppice.orchestrator.planning.sites import at_site
from coppice.orchestrator.report.numbers import plural, short, whole


def plan(
    file: File,
    *,
    samples: Annotated[int, typer.Option(help="How many sampled trials to show.", min=1)] = 5,
    site: Annotated[str | None, typer.Option("--site", help="Show the jobs of a Slurm site (a name, or a site file).")] = None,
    account: Account = None,
    hours: Hours = 24.0,
    as_json: Json = False,
) -> None:
    """Check a campaign file, show sampled trials and what they cost; with --site the sbatch scripts too. Starts nothing."""
    spec = load_campaign(file) if site is None else load_campaign(file, at_site(site, account))
    sampled = previews(spec, samples)
    total, expected = total_compute(spec, sampled), outlook(spec, sampled)
    if as_json:
        jobs = {} if site is None else {"jobs": asdict(forecast(spec, site, driver_request(account, hours), sampled))}
        samples_json = [asdict(p) for p in sampled]
        print_json({"name": spec.name, "trials": spec.search.trials, "compute": total, "sampled": samples_json,
                    "reaches": [asdict(r) for r in expected.reaches], "grid_points": expected.grid_points,
                    "notes": expected.notes, **jobs})
        return
    _show(sampled)
    for line in (*expected.reaches, *expected.notes):
        write(str(line))
    write(f"{file} is fine: {plural(spec.search.trials, 'trial')} in {spec.root / spec.name}, about {short(total)} training "
               f"FLOPs if no network changed its size and none ended early.")
    if site is None:
        write(f"Nothing was started. Start it with: {command('run', file)}")
        return
    write(as_text(forecast(spec, site, driver_request(account, hours), sampled)))
    billed = ("--account", account) if account else ()
    write(f"Nothing was handed in. Hand it in with: {command('submit', file, '--site', site, *billed)}")


def _show(sampled: Sequence[Preview]) -> None:
    """A table of sampled trials."""
    rows = [(_values(p.params), whole(p.parameters), short(p.flops), short(p.compute)) for p in sampled]
    heads = ("sampled values", "parameters", "FLOPs a forward", "training FLOPs")
    show(plain_table(heads, rows, numbers=heads[1:]))


def _values(params: dict[str, Any]) -> str:
    """One sampled value a line, and an empty line."""
    lines = [f"{path} = {value:.4g}" if isinstance(value, float) else f"{path} = {value}" for path, value in params.items()]
    return "\n".join([*(lines or ["nothing is searched"]), ""])
