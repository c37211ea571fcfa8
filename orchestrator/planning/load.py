"""Reads campaign files; everything that is wrong is reported at once, with its line, before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.planning.branches import check_branches, check_distributions
from coppice.orchestrator.planning.checks import check_search
from coppice.orchestrator.planning.problems import CampaignError, Fault, Faults, Place, Problem
from coppice.orchestrator.planning.rehearsal import rehearse
from coppice.orchestrator.planning.schema import validate
from coppice.orchestrator.planning.sense import check_sense
from coppice.orchestrator.planning.sites import At
from coppice.orchestrator.planning.source import parse, parse_with_lines, path_of, read_text, syntax_problem


def load_campaign(path: Path | str, at: At = lambda spec: spec, begun: bool = False) -> Campaign:
    """Read and check a campaign file.

    Args:
        path: of the file.
        at: fills in where the campaign is to run.
        begun: see `check_campaign`.

    Raises:
        CampaignError: everything that is wrong with it, with line numbers.
    """
    text = read_text(Path(path))
    problems = check(text, at, begun)
    if problems:
        raise CampaignError(str(path), problems)
    return at(Campaign.model_validate(parse(text)))


def check(text: str, at: At = lambda spec: spec, begun: bool = False) -> list[Problem]:
    """Everything that is wrong with the text of a campaign file, by line."""
    try:
        tree, lines = parse_with_lines(text)
    except yaml.YAMLError as error:
        return [syntax_problem(text, error)]
    if not isinstance(tree, dict) or lines is None:
        return [Problem(1, "", "a campaign file must be a mapping with name, task, training and search")]
    return sorted({*lines.duplicates, *(lines.problem(fault) for fault in _check_tree(tree, at, begun))})


def check_campaign(spec: Campaign, begun: bool = False) -> None:
    """Check a campaign that was made in Python, or that stands in a folder, as its file would be.

    Args:
        spec: the campaign.
        begun: whether it has begun: it may go on with what makes no sense (`sense`), but not with what cannot run.

    Raises:
        CampaignError: everything that is wrong with it.
    """
    named = {"name": "any"} if begun else {}  # a folder may have been renamed, to whatever
    faults = _check_tree({**spec.model_dump(mode="json", by_alias=True), **named}, lambda same: same, begun)
    problems = sorted({Problem(0, path_of(place), message) for place, message in faults})
    if problems:
        raise CampaignError(f"campaign {spec.name!r}", problems)


def _check_tree(tree: dict[str, Any], at: At, begun: bool = False) -> Faults:
    """Names and arguments first; the campaign is rehearsed only where they are fine."""
    faults, spec = validate(Campaign, tree)
    spoilt, senseless = list(check_distributions(tree)), list[Fault]()
    if isinstance(spec, Campaign):  # a placement that is wrong was left out: it is neither filled in nor looked at further
        placed = not any(place[:1] == ("placement",) for place, _ in faults)
        spec = at(spec) if placed else spec
        faults += [f for f in check_search(spec) if placed or f[0][:1] != ("resources",)]
        senseless += [] if begun else check_sense(spec)
    faults += check_branches(tree)
    faults = _once(spoilt, senseless, faults)
    yield from faults
    if isinstance(spec, Campaign) and not faults:
        yield from rehearse(spec, begun)


def _once(spoilt: list[Fault], senseless: list[Fault], others: list[Fault]) -> list[Fault]:
    """All faults without those that follow from another one: of what should be a distribution, and of what holds a bad value."""
    no_distributions = {place[:-1] for place, _ in spoilt}
    told = {above for place, _ in senseless for above in _upwards(place)}
    found = [fault for fault in (*senseless, *others) if not no_distributions & set(_upwards(fault[0]))]
    return [*spoilt, *(fault for fault in found if fault in senseless or fault[0] not in told)]


def _upwards(place: Place) -> list[Place]:
    """A place and all above it, but the root."""
    return [place[:length] for length in range(1, len(place) + 1)]
