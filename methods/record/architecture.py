"""The JSON record of a changed network, and its rebuilding: factory, edits, shapes, attributes, tensors. No pickle."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from coppice.methods.network import Network, Verdict
from coppice.methods.record import examples
from coppice.methods.record.factory import ArchitectureError, build, import_factory, require_trusted_factory
from coppice.methods.surgery import layers
from coppice.methods.surgery.resize import follow_shapes
from coppice.methods.surgery.tensors import get_tensor, set_tensor, tied_names
from coppice.references import moved

FORMAT, BEFORE = "coppice-architecture/2", "coppice-architecture/1"
"""Of a record. Records of the format before name factories of ours by places in which they no longer stand."""
MASK = "mask."

__all__ = ["ArchitectureError", "build", "import_factory", "rebuild", "record", "tensors_of"]


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers (the non-persistent ones too) by first name."""
    return {n: get_tensor(module, n) for n in tied_names(module)}


def _shapes(module: nn.Module) -> dict[str, list[int]]:
    return {n: list(t.shape) for n, t in _tensors(module).items()}


def _hash(shapes: Mapping[str, list[int]]) -> str:
    return "sha256:" + hashlib.sha256(json.dumps(sorted(shapes.items())).encode()).hexdigest()


@functools.lru_cache(maxsize=32)
def _base(reference: str, arguments: str, edits: str) -> tuple[dict[str, list[int]], dict[str, list[int]], dict[str, bool]]:
    """Shapes of what the factory makes, shapes after the edits, and which of its parameters are trained.

    Kept, because a record is made at every checkpoint and building the module takes longer than all the rest.
    """
    with torch.random.fork_rng(devices=[]):
        base = build(reference, json.loads(arguments))
        own = _shapes(base)
        layers.replay(base, json.loads(edits))
    return own, _shapes(base), {n: p.requires_grad for n, p in base.named_parameters()}


def record(network: Network) -> dict[str, Any]:
    """What the network is, as JSON: only what differs from its factory's own module.

    Keys: `format`, `torch`, `factory`, `base_hash` (names and shapes of the factory's module), `edits` (inserted and removed
    modules, in order), `shapes` (changed tensors), `attributes` (`module|name`), `requires_grad` (changed parameters), `masks`
    (names), `lineage`, `example_inputs` (shape and dtype of each, where they are tensors), `verdicts` (what running has shown of
    elements).
    """
    own, edited, trained = _base(network.factory, json.dumps(dict(network.arguments)), json.dumps(network.edits))
    live = _shapes(network.module)
    return {
        "format": FORMAT,
        "torch": str(torch.__version__),
        "factory": {"reference": network.factory, "arguments": dict(network.arguments)},
        "base_hash": _hash(own),
        "edits": list(network.edits),
        "shapes": {n: s for n, s in live.items() if edited.get(n) != s},
        "attributes": dict(network.attributes),
        "requires_grad": {n: p.requires_grad for n, p in network.module.named_parameters() if trained.get(n) != p.requires_grad},
        "masks": sorted(network.masks),
        "lineage": list(network.lineage),
        "example_inputs": examples.described(network.example_inputs),
        "verdicts": {name: dataclasses.asdict(verdict) for name, verdict in network.verdicts.items()},
    }


def tensors_of(network: Network) -> dict[str, Tensor]:
    """Parameters, buffers and masks (`mask.<name>`, bytes) by name; tied ones once, those that no state dict holds too."""
    tensors = {n: t.detach() for n, t in _tensors(network.module).items()}
    return tensors | {f"{MASK}{n}": m.to(torch.uint8) for n, m in network.masks.items()}


def rebuild(
    saved: Mapping[str, Any],
    tensors: Mapping[str, Tensor] | str | Path,
    *,
    example_inputs: tuple[Any, ...] = (),
    device: torch.device | str = "cpu",
    trust: Collection[str] = (),
) -> Network:
    """The network of a record, bit by bit, in the mode that its factory leaves it in.

    A record names the function that builds its network, so one from somebody else decides what is run here: it may name our own
    networks, and those of packages that you trust.

    Args:
        saved: what `record` made.
        tensors: what `tensors_of` made, or a safetensors file with it.
        example_inputs: for the rebuilt network; without them zeros of the recorded shapes.
        device: where it will live.
        trust: packages whose functions the record may have called, such as `["mynets"]`; see `coppice.trust.require_trusted`.

    Raises:
        Untrusted: its factory is in none of these; nothing was imported.
        ArchitectureError: unknown format, a factory that makes something else now, or tensors that do not fit.
    """
    saved = _upgraded(saved)
    _check_keys(saved)
    held = dict(load_file(tensors)) if isinstance(tensors, (str, Path)) else dict(tensors)
    reference, arguments = saved["factory"]["reference"], dict(saved["factory"]["arguments"])
    require_trusted_factory(reference, trust)
    with torch.random.fork_rng(devices=[]):
        module = build(reference, arguments)
        if _hash(_shapes(module)) != saved["base_hash"]:
            raise ArchitectureError(
                f"factory {reference!r} with {arguments} must make the module that was changed, but names or shapes of its "
                "tensors differ; use the code of that time."
            )
        _replay(module, saved["edits"])
    masks = {n.removeprefix(MASK): held.pop(n).bool() for n in list(held) if n.startswith(MASK)}
    _reshape(module, saved["shapes"])
    _set_attributes(module, saved["attributes"])
    _check_tensors(module, held, masks, saved["masks"])
    _load(module, held)
    for name, flag in saved["requires_grad"].items():
        get_tensor(module, name).requires_grad_(bool(flag))
    module.to(device)
    placed = {n: m.to(device) for n, m in masks.items()}
    edits, attributes, lineage = list(saved["edits"]), dict(saved["attributes"]), list(saved["lineage"])
    example_inputs = example_inputs or examples.zeros(saved.get("example_inputs", []), device)
    verdicts = {n: Verdict(tuple(v["follow"]), v["reason"], v["inexact"]) for n, v in saved.get("verdicts", {}).items()}
    return Network(module, reference, arguments, example_inputs, edits, attributes, placed, lineage, verdicts=verdicts)


def _upgraded(saved: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record in the present format."""
    if saved.get("format") != BEFORE or not isinstance(factory := saved.get("factory"), Mapping):
        return saved
    return {**saved, "format": FORMAT, "factory": {**factory, "reference": moved(str(factory.get("reference")))}}


def _check_keys(saved: Mapping[str, Any]) -> None:
    if saved.get("format") != FORMAT:
        raise ArchitectureError(
            f"the record must have format {FORMAT!r}, but has {saved.get('format')!r}; use a version that reads it."
        )
    wanted = {"factory": dict, "base_hash": str, "edits": list, "shapes": dict, "attributes": dict, "requires_grad": dict,
              "masks": list, "lineage": list}
    wrong = [key for key, kind in wanted.items() if not isinstance(saved.get(key), kind)]
    if wrong or not {"reference", "arguments"} <= saved["factory"].keys():
        raise ArchitectureError(
            f"the record must have the keys {sorted(wanted)}, but {wrong or ['factory']} are missing or damaged."
        )


def _replay(module: nn.Module, edits: list[dict[str, Any]]) -> None:
    try:
        layers.replay(module, edits)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ArchitectureError(f"the record's edits must fit the factory's module, but: {error}") from error


def _reshape(module: nn.Module, shapes: Mapping[str, list[int]]) -> None:
    known = _tensors(module)
    unknown = sorted(shapes.keys() - known.keys())
    wrong = sorted(n for n, s in shapes.items() if not isinstance(s, list) or not all(type(i) is int and i >= 0 for i in s))
    if unknown or wrong:
        raise ArchitectureError(
            f"the record's shapes must be lists of sizes of tensors of the network, but {unknown or 'none'} are no such tensors "
            f"and {wrong or 'none'} have other values."
        )
    for name, shape in shapes.items():
        set_tensor(module, name, torch.zeros(shape, dtype=known[name].dtype))


def _set_attributes(module: nn.Module, attributes: Mapping[str, Any]) -> None:
    for path, value in attributes.items():
        owner, _, name = path.partition("|")
        try:
            holder = module.get_submodule(owner)
            old = getattr(holder, name)
        except AttributeError:
            raise ArchitectureError(f"the record sets {path!r}, but the factory's module has no such attribute.") from None
        if type(value) not in (int, float) or not (old is None or type(old) in (int, float)):
            raise ArchitectureError(f"the record may set numbers only, but sets {path!r} from {old!r} to {value!r}.")
        setattr(holder, name, value)
    for submodule in module.modules():
        follow_shapes(submodule)


def _check_tensors(module: nn.Module, held: Mapping[str, Tensor], masks: Mapping[str, Tensor], names: list[str]) -> None:
    expected = _tensors(module)
    missing, unexpected = sorted(expected.keys() - held.keys()), sorted(held.keys() - expected.keys())
    wrong = [
        f"{n}: {list(given.shape)} instead of {list(expected[of].shape)}"
        for n, of, given in [*((n, n, t) for n, t in sorted(held.items())), *((MASK + n, n, t) for n, t in sorted(masks.items()))]
        if of in expected and given.shape != expected[of].shape
    ]
    differ = sorted((set(names) ^ masks.keys()) | (masks.keys() - expected.keys()))
    if missing or unexpected or wrong or differ:
        raise ArchitectureError(
            f"the tensors must fit the record, but missing: {missing or 'none'}, unexpected: {unexpected or 'none'}, "
            f"wrong shapes: {wrong or 'none'}, masks that differ: {differ or 'none'}."
        )


@torch.no_grad()
def _load(module: nn.Module, held: Mapping[str, Tensor]) -> None:
    """Copy values; a tensor whose dtype was changed after the factory gets that dtype."""
    for name, tensor in _tensors(module).items():
        tensor.data = held[name].detach().to("cpu", copy=True)
