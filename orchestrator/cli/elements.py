"""`coppice elements`: lists what may change in a network, and why the rest may not."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import torch
import typer

from coppice.methods.graph.values import Element
from coppice.methods.measures.coverage import coverage
from coppice.methods.network import Network
from coppice.methods.networks.catalog import network_reference
from coppice.methods.probe import probe as verified
from coppice.methods.record.architecture import build
from coppice.methods.surgery.verdicts import settle
from coppice.orchestrator.cli.coverage_table import coverage_record, show_coverage
from coppice.orchestrator.cli.options import Json
from coppice.orchestrator.cli.output import plain_table, print_json, say, show, write

LEVELS = ("weight", "channel", "head", "group", "layer", "block", "insertion")
DTYPES = ("float", "double", "half", "bfloat16", "long", "int", "bool")


def elements(
    factory: Annotated[str, typer.Argument(help="package.module:factory, or the name of one of ours.", metavar="FACTORY")],
    *,
    inputs: Annotated[list[str], typer.Option("--input", help="Shape of an input, batch first: 1,3,32,32. Once for each input.")],
    dtypes: Annotated[list[str] | None, typer.Option("--dtype", help=f"Once, or once an input: {', '.join(DTYPES)}.")] = None,
    arguments: Annotated[str, typer.Option("--args", help="Arguments of the factory, a JSON object.")] = "{}",
    probe: Annotated[bool, typer.Option("--probe", help="Verify each: resize a clone, compare with the exact one.")] = False,
    level: Annotated[list[str] | None, typer.Option(help=f"Only these levels: {', '.join(LEVELS)}.")] = None,
    as_json: Json = False,
) -> None:
    """List everything in a network that may grow or shrink, and what may not, with the reason; parameters by level at the end."""
    unknown = sorted(set(level or ()) - set(LEVELS))
    if unknown:
        raise ValueError(f"--level must be one of {', '.join(LEVELS)}, but got {', '.join(unknown)}.")
    network = _network(factory, _arguments(arguments), inputs, dtypes or ["float"])
    chosen: Sequence[Element] = [e for e in settle(network) if not level or e.level in level]
    if probe:
        chosen = verified(network, chosen)
    if as_json:
        print_json({"network": network.factory, "arguments": network.arguments, "parameters": network.num_parameters(),
                    "coverage": None if level else coverage_record(coverage(network, chosen)),
                    "elements": [_record(e) for e in chosen]})
        return
    _show(network, chosen, probe)
    if not level:
        show_coverage(coverage(network, chosen), chosen)


def _arguments(content: str) -> dict[str, Any]:
    try:
        given = json.loads(content)
    except ValueError as error:
        raise ValueError(f"--args must be a JSON object like '{{\"depth\": 20}}', but got {content!r}: {error}.") from None
    if not isinstance(given, dict):
        raise ValueError(f"--args must be a JSON object like '{{\"depth\": 20}}', but got {content!r}.")
    return given


def _network(factory: str, arguments: dict[str, Any], inputs: Sequence[str], dtypes: Sequence[str]) -> Network:
    """Build the network on example inputs of zeros."""
    shapes = [_shape(s) for s in inputs]
    types = _types(dtypes, len(shapes))
    reference = network_reference(factory)
    torch.manual_seed(0)
    module = build(reference, arguments)
    examples = tuple(torch.zeros(shape, dtype=getattr(torch, t)) for shape, t in zip(shapes, types, strict=True))
    try:
        with torch.no_grad():
            module.eval()(*examples)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        given = ", ".join(f"{','.join(map(str, e.shape))} ({t})" for e, t in zip(examples, types, strict=True))
        raise ValueError(f"{factory} must run on inputs {given}, but: {error}; check --input and --dtype.") from error
    return Network(module.train(), reference, arguments, examples)


def _types(given: Sequence[str], inputs: int) -> list[str]:
    """Name of a data type for each input."""
    if len(given) not in (1, inputs):
        raise ValueError(f"--dtype must be given once, or once for each of {inputs} inputs, but got {len(given)} of them.")
    bad = [d for d in given if d not in DTYPES]
    if bad:
        raise ValueError(f"--dtype must be one of {', '.join(DTYPES)}, but got {', '.join(bad)}.")
    return list(given) * (inputs if len(given) == 1 else 1)


def _shape(content: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in content.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise ValueError(f"--input must be sizes >= 1 with commas between, like 1,3,32,32, but got {content!r}.")
    return shape


def _record(element: Element) -> dict[str, Any]:
    record = {f.name: getattr(element, f.name) for f in dataclasses.fields(element) if f.name != "attributes"}
    record["moves"] = [{"atom": m.atom, "units": m.units} for m in element.moves]
    record["attributes"] = [f"{a.module}.{a.name}" for a in element.attributes]
    return {**record, "permissible": element.permissible}


def _show(network: Network, elements: Sequence[Element], probed: bool) -> None:
    heads = ["element", "level", "size", "min", "step", "grow", "shrink", *(["probe"] if probed else []), "note"]
    show(plain_table(heads, [_cells(e, probed) for e in elements], numbers=("size", "min", "step")))
    counts = Counter(e.level for e in elements if e.permissible)
    permissible = ", ".join(f"{count} {level}" for level, count in counts.items()) or "nothing"
    frozen = sum(not e.permissible for e in elements)
    line = f"{network.num_parameters():,} parameters. May change: {permissible}. May not: {frozen}."
    write(line)
    if not counts:
        say("Nothing in this network may change; the notes say why.")


def _cells(element: Element, probed: bool) -> list[str]:
    """The row of an element."""
    verdict = {True: "agrees", False: "DIFFERS", None: ""}[element.verified]
    sizes = [str(element.size), str(element.minimum), str(element.quantum)]
    return [element.name, element.level, *sizes, element.grow, element.shrink, *([verdict] if probed else []), _note(element)]


def _note(element: Element) -> str:
    if element.reason is not None:
        return element.reason
    parts = []
    if element.compensation:
        parts.append(f"compensates {', '.join(element.compensation)}")
    if element.joint:
        parts.append("moves with " + ", ".join(m.atom for m in element.moves if m.atom != element.name))
    if element.attributes:
        parts.append("sets " + ", ".join(f"{a.module}.{a.name}" if a.module else a.name for a in element.attributes))
    return "; ".join(parts)
