"""`coppice elements` and `coppice methods`: what may change in a network, and how."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coppice.orchestrator.cli.methods import methods
from coppice.orchestrator.cli.output import console, plain_table, print_json, say, show

if TYPE_CHECKING:
    from coppice.methods.graph.values import Element
    from coppice.methods.network import Network

LEVELS = ("weight", "channel", "head", "group", "layer", "block", "insertion")
DTYPES = ("float", "double", "half", "bfloat16", "long", "int", "bool")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(elements)
    app.command()(methods)


def elements(
    factory: Annotated[str, typer.Argument(help="package.module:factory, or the name of one of ours.", metavar="FACTORY")],
    *,
    inputs: Annotated[list[str], typer.Option("--input", help="Shape of an input, batch first: 1,3,32,32. Once for each input.")],
    dtypes: Annotated[list[str] | None, typer.Option("--dtype", help=f"Once, or once an input: {', '.join(DTYPES)}.")] = None,
    arguments: Annotated[str, typer.Option("--args", help="Arguments of the factory, a JSON object.")] = "{}",
    probe: Annotated[bool, typer.Option("--probe", help="Verify each: resize a clone, compare with the exact one.")] = False,
    level: Annotated[list[str] | None, typer.Option(help=f"Only these levels: {', '.join(LEVELS)}.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """List everything in a network that may grow or shrink, and what may not, with the reason."""
    unknown = sorted(set(level or ()) - set(LEVELS))
    if unknown:
        raise ValueError(f"--level must be one of {', '.join(LEVELS)}, but got {', '.join(unknown)}.")
    network = _network(factory, _arguments(arguments), inputs, dtypes or ["float"])
    found = [e for e in network.elements() if not level or e.level in level]
    if probe:
        found = _probed(network, found)
    if as_json:
        print_json({"network": network.factory, "arguments": network.arguments, "parameters": network.num_parameters(),
                    "elements": [_record(e) for e in found]})
    else:
        _show_elements(network, found, probe)


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
    if len(dtypes) not in (1, len(shapes)):
        raise ValueError(f"--dtype must be given once, or once for each of {len(shapes)} inputs, but got {len(dtypes)} of them.")
    bad = [d for d in dtypes if d not in DTYPES]
    if bad:
        raise ValueError(f"--dtype must be one of {', '.join(DTYPES)}, but got {', '.join(bad)}.")

    import torch

    from coppice.methods.network import Network
    from coppice.methods.networks.catalog import network_reference
    from coppice.methods.record.architecture import build

    reference = network_reference(factory)
    torch.manual_seed(0)
    module = build(reference, arguments)
    every = list(dtypes) * (len(shapes) if len(dtypes) == 1 else 1)
    examples = tuple(torch.zeros(shape, dtype=getattr(torch, d)) for shape, d in zip(shapes, every, strict=True))
    try:
        with torch.no_grad():
            module.eval()(*examples)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        told = ", ".join(f"{','.join(map(str, e.shape))} ({d})" for e, d in zip(examples, every, strict=True))
        raise ValueError(f"{factory} must run on inputs {told}, but: {error}; check --input and --dtype.") from error
    return Network(module.train(), reference, arguments, examples)


def _shape(content: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in content.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise ValueError(f"--input must be sizes >= 1 with commas between, like 1,3,32,32, but got {content!r}.")
    return shape


def _probed(network: Network, found: Sequence[Element]) -> list[Element]:
    from coppice.methods.probe import probe

    return list(probe(network, found))


def _record(element: Element) -> dict[str, Any]:
    import dataclasses

    record = {f.name: getattr(element, f.name) for f in dataclasses.fields(element) if f.name != "attributes"}
    record["moves"] = [{"atom": m.atom, "units": m.units} for m in element.moves]
    record["attributes"] = [f"{a.module}.{a.name}" for a in element.attributes]
    return {**record, "permissible": element.permissible}


def _show_elements(network: Network, found: Sequence[Element], probed: bool) -> None:
    heads = ["element", "level", "size", "min", "step", "grow", "shrink", *(["probe"] if probed else []), "note"]
    rows = []
    for e in found:
        verdict = {True: "agrees", False: "DIFFERS", None: ""}[e.verified]
        cells = [e.name, e.level, str(e.size), str(e.minimum), str(e.quantum), e.grow, e.shrink]
        rows.append([*cells, *([verdict] if probed else []), _note(e)])
    show(plain_table(heads, rows, numbers=("size", "min", "step")))
    counts = Counter(e.level for e in found if e.permissible)
    told = ", ".join(f"{count} {level}" for level, count in counts.items()) or "nothing"
    frozen = sum(not e.permissible for e in found)
    told = f"{network.num_parameters():,} parameters. May change: {told}. May not: {frozen}."
    console().print(told, markup=False, soft_wrap=True)
    if not counts:
        say("Nothing in this network may change; the notes say why.")


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


