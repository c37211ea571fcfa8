"""The networks that have a name, and what a factory must be given for a task."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from coppice.methods.record.architecture import import_factory
from coppice.references import referenced

NETWORKS = {
    "mlp": "coppice.methods.networks.mlp:mlp",
    "dag": "coppice.methods.networks.dag:dag",
    "vgg11": "coppice.methods.networks.vgg:vgg11",
    "vgg13": "coppice.methods.networks.vgg:vgg13",
    "vgg16": "coppice.methods.networks.vgg:vgg16",
    "resnet": "coppice.methods.networks.resnet:resnet",
    "wide_resnet": "coppice.methods.networks.wide_resnet:wide_resnet",
}


def network_reference(name: str) -> str:
    """The factory that `name` stands for, as `package.module:attribute`.

    Args:
        name: a key of `NETWORKS`, or the reference of your own factory, which is returned as it is.

    Raises:
        ValueError: neither; the message lists the known names.
    """
    reference: str = referenced("network", name, NETWORKS)
    return reference


def arguments_for(
    name: str, input_shape: Sequence[int], num_outputs: int, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The arguments of a factory: those given, and those of its parameters that the data decides.

    `in_features` (values a sample), `in_channels`, `image_size` (the smaller side), `input_shape`, and `num_classes`,
    `out_features` or `num_outputs` are filled in where the factory has such a parameter.

    Args:
        name: as for `network_reference`.
        input_shape: shape of one sample.
        num_outputs: classes, or values predicted.
        given: what the campaign file says; it wins.

    Raises:
        ArchitectureError: the factory cannot be imported.
        ValueError: unknown network, an argument that the factory does not have, one that is missing, or a network for images with
            other data.
    """
    given = dict(given or {})
    parameters = inspect.signature(import_factory(network_reference(name))).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = [p.name for p in parameters.values() if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}]
    unknown = sorted(set(given) - set(named))
    if unknown and not open_ended:
        raise ValueError(f"network {name} takes the arguments {named}, but got {unknown}.")
    known = _from_data(input_shape, num_outputs)
    filled = {n: known[n] for n in named if n in known}
    if name in NETWORKS and "in_channels" in filled and len(input_shape) != 3:
        raise ValueError(
            f"network {name} takes images (channels, height, width), but the samples have shape {tuple(input_shape)}; use mlp."
        )
    missing = [n for n in named if parameters[n].default is inspect.Parameter.empty and n not in {*filled, *given}]
    if missing:
        raise ValueError(f"network {name} needs the arguments {missing}, which the data does not tell; give them.")
    return {**filled, **given}


def _from_data(input_shape: Sequence[int], num_outputs: int) -> dict[str, Any]:
    outputs = dict.fromkeys(("num_classes", "out_features", "num_outputs"), num_outputs)
    inputs = {"in_features": math.prod(input_shape), "in_channels": input_shape[0], "input_shape": list(input_shape)}
    return {**inputs, **outputs, "image_size": min(input_shape[-2:])}
