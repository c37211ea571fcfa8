"""The JSON record of a changed network, and its rebuilding: factory, edits, shapes, attributes, tensors. No pickle."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from methods.network import Network
from methods.surgery import layers
from methods.surgery.resize import follow_shapes
from methods.surgery.tensors import get_tensor, set_tensor, tied_names

FORMAT = "coppice-architecture/1"
MASK = "mask."


class ArchitectureError(ValueError):
    """A record does not fit its factory or its tensors; the message names what differs."""


def import_factory(reference: str) -> Callable[..., nn.Module]:
    """The callable that `package.module:attribute` names.

    Raises:
        ArchitectureError: it has another form, does not import, does not exist or cannot be called.
    """
    module_name, colon, attribute = reference.partition(":")
    if not colon or not module_name or not attribute:
        raise ArchitectureError(f"a factory must be named package.module:attribute, but got {reference!r}.")
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise ArchitectureError(f"factory {reference!r}: {module_name} must be importable, but {error}; check PYTHONPATH.") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = [n for n in vars(found) if not n.startswith("_")][:20]
            raise ArchitectureError(f"factory {reference!r}: {module_name} has no {part!r}; it has {near}.")
        found = getattr(found, part)
    if not callable(found):
        raise ArchitectureError(f"factory {reference!r} must be callable, but is a {type(found).__name__}.")
    return found


def build(reference: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The factory's module.

    Raises:
        ArchitectureError: the factory refuses its arguments or returns something else than a module.
    """
    factory = import_factory(reference)
    try:
        made = factory(**arguments)
    except TypeError as error:
        raise ArchitectureError(f"factory {reference!r} must accept {dict(arguments)}, but: {error}.") from error
    if not isinstance(made, nn.Module):
        raise ArchitectureError(f"factory {reference!r} must return a torch.nn.Module, but returned a {type(made).__name__}.")
    return made


def _shapes(module: nn.Module) -> dict[str, list[int]]:
    return {n: list(t.shape) for n, t in [*module.named_parameters(), *module.named_buffers()]}


def _hash(shapes: Mapping[str, list[int]]) -> str:
    return "sha256:" + hashlib.sha256(json.dumps(sorted(shapes.items())).encode()).hexdigest()


def record(network: Network) -> dict[str, Any]:
    """What the network is, as JSON: only what differs from its factory's own module.

    Keys: `format`, `torch`, `factory`, `base_hash` (names and shapes of the factory's module), `edits` (inserted and removed
    modules, in order), `shapes` (changed tensors), `attributes` (`module|name`), `masks` (names), `lineage`.
    """
    with torch.random.fork_rng(devices=[]):
        base = build(network.factory, network.arguments)
        own = _shapes(base)
        layers.replay(base, network.edits)
    edited, live = _shapes(base), _shapes(network.module)
    return {
        "format": FORMAT,
        "torch": torch.__version__,
        "factory": {"reference": network.factory, "arguments": dict(network.arguments)},
        "base_hash": _hash(own),
        "edits": list(network.edits),
        "shapes": {n: s for n, s in live.items() if edited.get(n) != s},
        "attributes": dict(network.attributes),
        "masks": sorted(network.masks),
        "lineage": list(network.lineage),
    }


def tensors_of(network: Network) -> dict[str, Tensor]:
    """Parameters, persistent buffers and masks by name; tied ones once."""
    first = tied_names(network.module)
    state = network.module.state_dict(keep_vars=True)
    found = {n: state[n].detach() for n in first if n in state}
    return found | {f"{MASK}{n}": m.to(torch.uint8) for n, m in network.masks.items()}


def rebuild(
    saved: Mapping[str, Any],
    tensors: Mapping[str, Tensor] | str | Path,
    *,
    example_inputs: tuple[Any, ...] = (),
    device: torch.device | str = "cpu",
) -> Network:
    """The network of a record.

    Args:
        saved: what `record` made.
        tensors: what `tensors_of` made, or a safetensors file with it.
        example_inputs: for the rebuilt network.
        device: where it will live.

    Raises:
        ArchitectureError: unknown format, a factory that makes something else now, or tensors that do not fit.
    """
    if saved.get("format") != FORMAT:
        raise ArchitectureError(f"the record must have format {FORMAT!r}, but has {saved.get('format')!r}; use a version that reads it.")
    held = dict(load_file(tensors)) if isinstance(tensors, (str, Path)) else dict(tensors)
    factory = saved["factory"]
    with torch.random.fork_rng(devices=[]):
        module = build(factory["reference"], factory["arguments"])
        if _hash(_shapes(module)) != saved["base_hash"]:
            raise ArchitectureError(
                f"factory {factory['reference']!r} with {factory['arguments']} must make the module that was changed, but names or "
                "shapes of its tensors differ; use the code of that time."
            )
        layers.replay(module, saved["edits"])
    masks = {n.removeprefix(MASK): held.pop(n).bool() for n in list(held) if n.startswith(MASK)}
    _reshape(module, saved["shapes"])
    _set_attributes(module, saved["attributes"])
    _load(module, held, set(saved["masks"]) ^ set(masks))
    module.to(device)
    return Network(
        module, factory["reference"], dict(factory["arguments"]), example_inputs, list(saved["edits"]), dict(saved["attributes"]),
        {n: m.to(device) for n, m in masks.items()}, list(saved["lineage"]),
    )


def _reshape(module: nn.Module, shapes: Mapping[str, list[int]]) -> None:
    for name, shape in shapes.items():
        try:
            old = get_tensor(module, name)
        except (AttributeError, KeyError):
            raise ArchitectureError(f"the record gives a shape for {name!r}, but the factory's module has no such tensor.") from None
        set_tensor(module, name, torch.zeros(shape, dtype=old.dtype))
    for submodule in module.modules():
        follow_shapes(submodule)


def _set_attributes(module: nn.Module, attributes: Mapping[str, Any]) -> None:
    for path, value in attributes.items():
        owner, _, name = path.partition("|")
        try:
            holder = module.get_submodule(owner)
            old = getattr(holder, name)
        except AttributeError:
            raise ArchitectureError(f"the record sets {path!r}, but the factory's module has no such attribute.") from None
        if old is not None and isinstance(old, (bool, str)) or not isinstance(value, (int, float)):
            raise ArchitectureError(f"the record may set numbers only, but sets {path!r} from {old!r} to {value!r}.")
        setattr(holder, name, value)
    for submodule in module.modules():
        follow_shapes(submodule)


def _load(module: nn.Module, held: Mapping[str, Tensor], masks_differ: set[str]) -> None:
    state = module.state_dict(keep_vars=True)
    expected = {n for n in tied_names(module) if n in state}
    missing, unexpected = sorted(expected - set(held)), sorted(set(held) - expected)
    wrong = [f"{n}: {list(held[n].shape)} instead of {list(state[n].shape)}" for n in sorted(expected & set(held))
             if held[n].shape != state[n].shape]
    if missing or unexpected or wrong or masks_differ:
        raise ArchitectureError(
            f"the tensors must fit the record, but missing: {missing or 'none'}, unexpected: {unexpected or 'none'}, "
            f"wrong shapes: {wrong or 'none'}, masks that differ: {sorted(masks_differ) or 'none'}."
        )
    with torch.no_grad():
        for name in expected:
            state[name].copy_(held[name])
