"""The exact structure that the algebra finds."""

import pytest
import torch
from torch import nn

from coppice.methods.graph import Graph, trace
from tests.support import zoo, zoo_more, zoo_patterns

EVERY = {**zoo.ZOO, **zoo_more.MORE, **zoo_patterns.PATTERNS}


def graph_of(name: str, **arguments: object) -> Graph:
    torch.manual_seed(0)
    factory, inputs = EVERY[name]
    return trace(factory(**arguments), inputs())


def letters(graph: Graph, *dims: str) -> list[str]:
    """The expressions of dimensions, with atoms called A, B, ... in order of appearance."""
    names: dict[str, str] = {}
    out = []
    for dim in dims:
        tensor, _, position = dim.rpartition(":")
        text = str(graph.tensors[tensor][int(position)])
        for atom in sorted(graph.atoms, key=lambda a: text.find(f"[{a}=") % 10**6):
            token = f"[{atom}={graph.atoms[atom].size}]"
            if token in text:
                text = text.replace(token, names.setdefault(atom, chr(ord("A") + len(names))))
        out.append(text)
    return out


SIZES = {
    "vgg11bn": [8, 16, 32, 32, 64, 64, 64, 64],
    "flatnet": [8, 16, 32],
    "resnet": [8, 8, 8, 16, 16, 32, 32],
    "densenet": [12, 6, 6, 6, 15],
    "dwsep_se": [16, 64, 8],
    "group_shuffle": [2, 2, 4, 2],
    "c2f": [8, 8, 8, 16],
    "torch_mha": [32, 4, 8, 64],
    "vit_hand": [32, 4, 8, 64, 4, 8, 64],
    "vit_sep": [32, 4, 8, 8, 64, 4, 8, 8, 64],
    "vit_gqa": [32, 2, 2, 8, 8, 64, 2, 2, 8, 8, 64],
    "tied_lm": [32, 4, 8, 64],
    "layerscale": [16],
    "datadep": [8, 8],
    "shapeloop": [8],
    "lstm": [8, 16],
    "shared": [8],
    "unet": [8, 12, 16, 12, 12, 8, 8],
    "mobilenet_v2": [8, 32, 32, 12, 48, 24],
    "mobilenet_v3": [8, 32, 8, 32, 12, 8, 48, 8, 24],
    "efficientnet": [8, 32, 8, 32, 12, 8, 48, 8, 24],
    "convnext": [8, 32, 32],
    "swin": [16, 2, 8, 2, 8, 32, 32],
    "gpt_rope": [32, 4, 8, 40],
    "inception": [8, 6, 4, 8, 4, 6, 5],
    "siamese": [8, 12, 16],
    "gru_head": [6],
    "conv_transpose_unet": [8, 6],
    "pixel_shuffle": [4],
    "pixel_unshuffle": [4],
    "upsample_instance_norm": [8],
    "convnext_block": [8, 32],
    "einsum_attention": [],
    "transformer_layer": [16, 4, 4, 32],
    "swiglu": [20],
    "glu": [20],
    "rms_norm_rope": [8],
    "prelu_maximum": [8],
    "weight_norm": [8],
    "gru": [8],
    "static_index": [],
    "channel_statistics": [8],
    "padded_shortcut": [4],
    "dense_experts": [8],
    "bare_parameters": [8],
    "checkpointed": [8],
    "low_rank": [4, 8],
    "literal_view": [],
    "channel_attention": [],
}


@pytest.mark.parametrize("name", SIZES)
def test_finds_exactly_these_atoms(name: str) -> None:
    assert [a.size for a in graph_of(name).atoms.values()] == SIZES[name]


STRUCTURE = {
    "flatnet": {"conv2.weight:0": "A", "fc1.weight:1": "(A*16)"},
    "densenet": {"convs.1.weight:1": "(A+B)", "convs.2.weight:1": "(A+B+C)", "transition.weight:1": "(A+B+C+D)"},
    "c2f": {"cv1.weight:0": "(A+B)", "m.0.0.weight:1": "B", "m.1.0.weight:0": "B", "cv2.weight:1": "(A+B+B+B)"},
    "torch_mha": {"attn.in_proj_weight:0": "(3*A*B)", "attn.out_proj.weight:1": "(A*B)", "attn.out_proj.weight:0": "C"},
    "vit_hand": {"blocks.0.attn.qkv.weight:0": "(3*A*B)", "blocks.0.attn.proj.weight:1": "(A*B)", "cls:2": "C", "pos:2": "C"},
    "vit_sep": {"blocks.0.attn.q.weight:0": "(A*B)", "blocks.0.attn.v.weight:0": "(A*C)", "blocks.0.attn.o.weight:1": "(A*C)"},
    "vit_gqa": {
        "blocks.0.attn.q.weight:0": "(A*B*C)",
        "blocks.0.attn.k.weight:0": "(A*C)",
        "blocks.0.attn.v.weight:0": "(A*D)",
        "blocks.0.attn.o.weight:1": "(A*B*D)",
    },
    "group_shuffle": {
        "stem.weight:0": "(A*B*C)",
        "conv1.weight:0": "(A*B*A*B*D)",
        "conv1.weight:1": "C",
        "conv2.weight:1": "(D*A*B)",
    },
    "lstm": {"rnn.weight_ih_l0:0": "(A+A+A+A)", "rnn.weight_hh_l0:1": "A", "rnn.weight_ih_l0:1": "B", "c.weight:1": "A"},
    "tied_lm": {"tok.weight:1": "A", "blk.f2.weight:0": "A", "norm.weight:0": "A"},
    "dwsep_se": {"depthwise.weight:0": "A", "excite.weight:0": "A", "squeeze.weight:1": "A", "depthwise.weight:1": "1"},
    "layerscale": {"gamma:0": "A", "conv.weight:0": "A", "conv.weight:1": "A", "stem.weight:0": "A"},
    "unet": {"dec2.0.weight:1": "(A+B)", "up2.weight:1": "A", "down2.0.weight:0": "B", "dec1.0.weight:1": "(C+D)"},
    "inception": {"fc.weight:1": "(A+B+C+D)", "aux.weight:1": "(A+B+C+D)"},
    "swin": {"attns.0.qkv.weight:0": "(3*A*B)", "attns.0.bias:1": "A", "merge.weight:1": "(C+C+C+C)", "patch.weight:0": "C"},
    "gpt_rope": {"attn.q.weight:0": "(A*8)", "attn.v.weight:0": "(A*B)", "tok.weight:1": "C"},
    "gru_head": {"rnn.weight_ih_l0:0": "(A+A+A)", "rnn.weight_ih_l1:1": "(A+A)", "head.weight:1": "(A+A)"},
    "pixel_shuffle": {"a.weight:0": "(A*4)", "o.weight:1": "A"},
    "pixel_unshuffle": {"a.weight:0": "A", "o.weight:1": "(A*4)"},
    "glu": {"g.weight:0": "(A+A)", "d.weight:1": "A"},
    "rms_norm_rope": {"q.weight:0": "(A+A)", "o.weight:1": "(A+A)"},
    "padded_shortcut": {"b.weight:0": "(2+A+2)", "o.weight:1": "(2+A+2)", "a.weight:0": "A"},
    "low_rank": {"a:0": "A", "b:1": "A", "b:0": "B"},
}


@pytest.mark.parametrize("name", STRUCTURE)
def test_structure(name: str) -> None:
    expected = STRUCTURE[name]
    assert dict(zip(expected, letters(graph_of(name), *expected), strict=True)) == expected


def test_key_and_query_sizes_are_independent_of_value_sizes() -> None:
    graph = graph_of("vit_gqa")
    atoms = [graph.atoms[f"blocks.0.attn.{name}"] for name in ("q.weight:0/2", "v.weight:0/1")]
    assert "attention_scale" in atoms[0].marks
    assert "attention_scale" not in atoms[1].marks
    assert {o.tensor for o in atoms[1].occurrences} == {f"blocks.0.attn.{n}" for n in ("v.weight", "v.bias", "o.weight")}


def test_residual_stream_is_one_atom() -> None:
    graph = graph_of("resnet", blocks=[3], widths=[8])
    stream = graph.atoms["conv1.weight:0"]
    assert {(o.tensor, o.dim) for o in stream.occurrences if o.tensor.endswith("weight")} >= {
        ("conv1.weight", 0), ("layers.0.conv2.weight", 0), ("layers.1.conv1.weight", 1), ("layers.2.bn2.weight", 0),
        ("fc.weight", 1),
    }  # fmt: skip
    assert not any(o.tensor == "layers.0.conv1.weight" and o.dim == 0 for o in stream.occurrences)


ROLES = {
    "dwsep_se": {("expand.weight", 0): "produce", ("expand.weight", 1): "consume", ("bn1.weight", 0): "scale"},
    "resnet": {("bn1.bias", 0): "shift", ("bn1.running_mean", 0): "mean", ("bn1.running_var", 0): "var"},
    "layerscale": {("gamma", 0): "scale", ("stem.bias", 0): "bias"},
    "vit_hand": {("cls", 2): "raw", ("pos", 2): "raw", ("blocks.0.attn.qkv.bias", 0): "bias"},
    "tied_lm": {("tok.weight", 1): "produce"},
    "unet": {("up2.weight", 0): "consume", ("up2.weight", 1): "produce"},
    "bare_parameters": {("w", 1): "produce", ("b", 0): "bias"},
    "lstm": {("rnn.weight_ih_l0", 0): "produce", ("rnn.weight_hh_l0", 1): "consume", ("rnn.bias_hh_l0", 0): "bias"},
    "gpt_rope": {("n1.weight", 0): "scale"},
    "low_rank": {("a", 0): "consume", ("b", 1): "produce", ("b", 0): "produce"},
}


@pytest.mark.parametrize("name", ROLES)
def test_roles_follow_what_is_done_with_a_tensor(name: str) -> None:
    graph = graph_of(name)
    assert {key: graph.roles[key] for key in ROLES[name]} == ROLES[name]


MARKS = {
    "vit_hand": {"patch.weight:0": {"layernorm"}, "blocks.0.attn.qkv.weight:0/1": {"heads"}},
    "gpt_rope": {"tok.weight:1": {"rmsnorm", "tied"}},
    "dwsep_se": {"expand.weight:0": {"conv_groups", "depthwise"}},
    "channel_statistics": {"a.weight:0": {"reduced"}},
    "datadep": {"a.weight:0": {"reduced"}, "b.weight:0": set()},
    "convnext": {"stem.weight:0": {"conv_groups", "depthwise", "layernorm"}},
}


@pytest.mark.parametrize("name", MARKS)
def test_marks(name: str) -> None:
    graph = graph_of(name)
    assert {atom: set(graph.atoms[atom].marks) for atom in MARKS[name]} == MARKS[name]


def test_a_sigmoid_between_making_and_using_is_marked() -> None:
    graph = trace(nn.Sequential(nn.Linear(4, 6), nn.Sigmoid(), nn.Linear(6, 2)), (torch.randn(3, 4),))
    assert graph.atoms["0.weight:0"].marks == {"offset"}


def test_ties_of_chunks() -> None:
    graph = graph_of("c2f")
    assert graph.atoms["cv1.weight:0/0"].ties == ("cv1.weight:0/1",)
