"""Elements: levels, exactness, joint moves, attributes, blocks and insertion points."""

import re

import pytest
import torch
from torch import nn

from coppice.methods.graph import AttributeEdit, Element, Move, elements
from coppice.methods.graph.expr import Atom
from tests.support import zoo, zoo_more, zoo_patterns

EVERY = {**zoo.ZOO, **zoo_more.MORE, **zoo_patterns.PATTERNS}


def found(name: str, **arguments: object) -> dict[str, Element]:
    torch.manual_seed(0)
    factory, inputs = EVERY[name]
    listed = elements(factory(**arguments), inputs())
    assert len({e.name for e in listed}) == len(listed), "names must be unique"
    return {e.name: e for e in listed}


def edits(element: Element) -> set[tuple[str, str, str]]:
    return {(e.module, e.name, re.sub(r"\[[^\]=]*=(\d+)\]", r"\1", str(e.expr))) for e in element.attributes}


@pytest.mark.parametrize("name", EVERY)
def test_every_element_is_consistent(name: str) -> None:
    for element in found(name).values():
        assert 0 <= element.minimum <= element.size
        assert element.quantum >= 1
        if element.reason is not None:
            assert (element.grow, element.shrink) == ("no", "no")
            assert element.reason
        elif element.level in ("channel", "head", "group"):
            assert element.moves
            assert "no" not in (element.grow, element.shrink)


def test_a_convolutional_network() -> None:
    listed = found("resnet")
    stream = listed["conv1.weight:0"]
    assert (stream.level, stream.size, stream.grow, stream.shrink) == ("channel", 8, "exact", "exact")
    assert (stream.moves, stream.attributes, stream.minimum) == ((Move("conv1.weight:0"),), (), 1)
    assert listed["fc.weight:0"].reason == "output of the network"
    assert listed["conv1.weight:1"].reason == "input of the network"
    assert listed["layers.0.conv1.weight"].level == "weight"
    assert listed["layers.0.conv1.weight"].size == 8 * 8 * 9
    assert not any("kernel" in (e.reason or "") for e in listed.values())


def test_blocks_and_layers() -> None:
    listed = found("resnet")
    assert (listed["layers.0"].level, listed["layers.0"].shrink, listed["layers.0"].grow) == ("block", "exact", "no")
    assert "(2, 8, 32, 32)" in (listed["layers.2"].reason or "")
    assert (listed["layers.0.conv2"].level, listed["layers.0.conv2"].shrink) == ("layer", "inexact")
    assert "layers" not in listed
    assert "layers.0.bn1" not in listed
    transformer = found("vit_hand")
    assert (transformer["blocks.0.attn"].level, transformer["blocks.0.attn"].shrink) == ("block", "exact")
    assert "blocks.0.n1" not in transformer
    assert "blocks" not in transformer


def test_insertion_points_say_what_fits() -> None:
    listed = found("resnet")
    assert listed["after:layers.0"].kinds == ("identity_conv", "residual_conv", "duplicate")
    assert listed["after:conv1"].kinds == ("identity_conv", "residual_conv")
    assert (listed["after:conv1"].grow, listed["after:conv1"].shrink) == ("exact", "no")
    assert "after:fc" not in listed
    assert found("vit_hand")["after:blocks.0.f1"].kinds == ("identity_linear", "residual_linear")
    assert "after:conv" not in found("shared"), "a module that is called twice"
    assert "after:features.2" in found("vgg11bn"), "an activation"


def test_depthwise_and_grouped_convolutions() -> None:
    hidden = found("dwsep_se")["expand.weight:0"]
    assert hidden.minimum == 2
    assert edits(hidden) == {("depthwise", "groups", "64")}
    listed = found("group_shuffle")
    assert listed["stem.weight:0/0"].level == "group"
    assert edits(listed["stem.weight:0/0"]) == {
        ("", "groups", "(2*2)"), ("conv1", "groups", "(2*2)"), ("conv2", "groups", "(2*2)"), ("norm", "num_groups", "(2*2*2)"),
    }  # fmt: skip
    assert edits(listed["stem.weight:0/2"]) == set()
    assert listed["conv1.weight:0/4"].compensation == ("groupnorm",)


def test_heads_and_head_sizes() -> None:
    listed = found("vit_hand")
    head = listed["blocks.0.attn.qkv.weight:0/1"]
    assert (head.level, head.grow, head.shrink, head.minimum) == ("head", "exact", "exact", 2)
    assert edits(head) == {("blocks.0.attn", "num_heads", "4")}
    size = listed["blocks.0.attn.qkv.weight:0/2"]
    assert (size.grow, size.shrink, size.compensation) == ("inexact", "inexact", ("attention_scale",)), "a scale by hand"
    assert edits(size) == {("blocks.0.attn", "head_dim", "8")}
    assert listed["patch.weight:0"].compensation == ("layernorm",)


def test_equal_sizes_are_told_apart_by_what_the_forward_reads() -> None:
    listed = found("vit_hand", width=16, num_heads=4)
    assert edits(listed["blocks.0.attn.qkv.weight:0/1"]) == {("blocks.0.attn", "num_heads", "4")}
    assert edits(listed["blocks.0.attn.qkv.weight:0/2"]) == {("blocks.0.attn", "head_dim", "4")}


def test_one_attribute_for_two_atoms_is_a_joint_move() -> None:
    listed = found("vit_sep")
    joint = listed["blocks.0.attn.q.weight:0/1"]
    assert joint.moves == (Move("blocks.0.attn.q.weight:0/1"), Move("blocks.0.attn.v.weight:0/1"))
    assert joint.attributes == (AttributeEdit("blocks.0.attn", "hd", Atom("blocks.0.attn.q.weight:0/1", 8), certain=True),)
    assert listed["blocks.0.attn.v.weight:0/1"].reason == "moves together with blocks.0.attn.q.weight:0/1"


def test_grouped_queries() -> None:
    assert edits(found("vit_gqa")["blocks.0.attn.q.weight:0/0"]) == {
        ("blocks.0.attn", "h", "(2*2)"),
        ("blocks.0.attn", "kvh", "2"),
    }


def test_chunk_halves_move_together() -> None:
    listed = found("c2f")
    assert listed["cv1.weight:0/0"].moves == (Move("cv1.weight:0/0"), Move("cv1.weight:0/1"))
    assert not listed["cv1.weight:0/1"].permissible


def test_torch_attention_keeps_its_width_equal_to_heads_times_size() -> None:
    listed = found("torch_mha")
    heads, size = listed["attn.in_proj_weight:0/1"], listed["attn.in_proj_weight:0/2"]
    assert heads.moves == (Move("attn.in_proj_weight:0/1"), Move("embed.weight:0", 8))
    assert size.moves == (Move("attn.in_proj_weight:0/2"), Move("embed.weight:0", 4))
    assert edits(heads) == {("attn", "num_heads", "4")}
    assert (size.compensation, size.grow) == (("layernorm", "attention_scale"), "compensated")
    assert "heads * head size" in (listed["embed.weight:0"].reason or "")


def test_attentions_that_share_a_width_move_together() -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    module = nn.Sequential(nn.Linear(12, 16), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 3))
    listed = {e.name: e for e in elements(module, (torch.randn(2, 5, 12),))}
    names = [f"1.layers.{i}.self_attn.in_proj_weight:0/1" for i in range(2)]
    assert listed[names[0]].moves == (Move(names[0]), Move(names[1]), Move("0.weight:0", 4))
    assert listed[names[1]].reason == f"moves together with {names[0]}"


def test_an_attention_on_the_input_keeps_its_heads() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn, self.o = nn.MultiheadAttention(12, 3, batch_first=True), nn.Linear(12, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.o(self.attn(x, x, x)[0])

    listed = {e.name: e for e in elements(Net(), (torch.randn(2, 5, 12),))}
    assert "embed_dim that does not change" in (listed["attn.in_proj_weight:0/1"].reason or "")
    assert "embed_dim that does not change" in (listed["attn.in_proj_weight:0/2"].reason or "")


@pytest.mark.parametrize(
    ("name", "atom", "grow", "shrink"),
    [
        ("datadep", "a.weight:0", "inexact", "inexact"),
        ("channel_statistics", "a.weight:0", "inexact", "inexact"),
        ("gpt_rope", "tok.weight:1", "inexact", "inexact"),  # the eps of its norms is a literal
        ("vit_sep", "blocks.0.attn.q.weight:0/1", "compensated", "inexact"),
        ("vit_sep", "patch.weight:0", "compensated", "inexact"),
        ("group_shuffle", "conv1.weight:0/4", "inexact", "inexact"),
        ("weight_norm", "a.parametrizations.weight.original1:0", "exact", "inexact"),
        ("efficientnet", "blocks.0.expand.0.weight:0", "exact", "exact"),
        ("lstm", "rnn.weight_ih_l0:0/0", "exact", "exact"),
    ],
)
def test_exactness(name: str, atom: str, grow: str, shrink: str) -> None:
    element = found(name)[atom]
    assert (element.grow, element.shrink) == (grow, shrink)


def test_a_tied_autoencoder_cannot_grow_exactly() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode = nn.Linear(12, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.encode(x)) @ self.encode.weight

    listed = {e.name: e for e in elements(Tied(), (torch.randn(2, 12),))}
    assert (listed["encode.weight:0"].grow, listed["encode.weight:0"].shrink) == ("inexact", "exact")


def test_frozen_parts_have_reasons() -> None:
    listed = found("gpt_rope")
    assert listed["attn.q.weight:0/1"].reason == "a constant that the forward makes"
    assert listed["attn.v.weight:0/1"].reason == (
        "the forward needs attn.head_dim = 8 at zoo_modern.py:108, which would not hold"
    )
    assert listed["tok.weight:0"].reason == "rows of an embedding are looked up by number"
    assert "topk" in (found("moe")["router.weight:0"].reason or "")


def test_frozen_weights_are_no_elements() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    module[0].requires_grad_(False)
    names = {e.name for e in elements(module, (torch.randn(1, 3),)) if e.level == "weight"}
    assert names == {"1.weight"}
