"""Blocks with several arguments, keyword arguments, tuples as outputs, numbers of their own, and parents that read them."""

import pytest
import torch
from torch import Tensor, nn

from coppice.methods.apply import apply
from coppice.methods.network import Network
from coppice.methods.plan import InsertPlan, RemovePlan
from coppice.methods.record.architecture import rebuild, record, tensors_of
from coppice.methods.surgery.check import PlanError

HERE = "tests.methods.surgery.test_blocks_called_in_any_way"


class Attention(nn.Module):
    """Returns its output and its weights, as those of `transformers` do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, hidden_states: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        q, k, v = self.qkv(hidden_states).chunk(3, -1)
        scores = q @ k.transpose(-2, -1)
        weights = (scores if mask is None else scores.masked_fill(mask[:, None], -1e9)).softmax(-1)
        return self.out(weights @ v), weights


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention, self.norm = Attention(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 12), nn.GELU(), nn.Linear(12, width))
        self.kind = "full"

    def forward(self, hidden_states: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        x = hidden_states + self.attention(hidden_states=self.norm(hidden_states), mask=mask)[0]
        return x + self.mlp(x), mask


class Net(nn.Module):
    """Passes on what each block returns, and reads a word of each."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(20, width), nn.Linear(width, 3)
        self.blocks = nn.ModuleList(Block(width) for _ in range(3))

    def forward(self, ids: Tensor) -> Tensor:
        x, mask = self.embed(ids), ids == 0
        for block in self.blocks:
            x, mask = block(x, mask=mask if block.kind == "full" else None)
        return self.head(x[:, 0])


def network(factory: type[nn.Module] = Net) -> Network:
    torch.manual_seed(0)
    ids = torch.randint(1, 20, (3, 6))
    ids[:, 4:] = 0
    return Network(factory().eval(), f"{HERE}:{factory.__name__}", {}, (ids,))


@torch.no_grad()
def padding_matters(n: Network) -> float:
    before = n.module(*n.example_inputs)
    n.module.embed.weight[0] += 3
    return float((n.module(*n.example_inputs) - before).abs().max())


def test_a_copy_gets_all_arguments() -> None:
    n = network()
    before = n.module(*n.example_inputs)
    apply(n, InsertPlan("after:blocks.1", "duplicate"))
    assert torch.equal(n.module(*n.example_inputs), before)
    apply(n, InsertPlan("after:blocks.1", "duplicate", {"last": "normal"}, seed=1))
    assert not torch.equal(n.module(*n.example_inputs), before) and padding_matters(n) < 1e-5


def test_what_stands_in_a_blocks_place_passes_the_rest_on() -> None:
    n = network()
    assert {e.name for e in n.elements() if e.level == "block"} >= {f"blocks.{i}" for i in range(3)} | {"blocks.0.attention"}
    apply(n, RemovePlan("blocks.0"))
    assert n.edits[0] == {"op": "identity", "at": "blocks.0", "form": {"kind": "tuple", "rest": [{"argument": "mask"}]}}
    apply(n, RemovePlan("blocks.1.attention"))
    assert n.edits[1]["op"] == "zero" and padding_matters(n) < 1e-5


def test_inserts_and_removals_of_such_blocks_are_rebuilt_bit_for_bit() -> None:
    n = network()
    for plan in (
        InsertPlan("after:blocks.0", "duplicate", {"last": "normal"}, seed=1), InsertPlan("after:blocks.0", "residual_linear"),
        RemovePlan("blocks.0"), InsertPlan("after:blocks.2", "duplicate", {"last": "normal"}, seed=2),
        RemovePlan("blocks.2.grown_0.attention"), RemovePlan("blocks.1.mlp"),
    ):  # fmt: skip
        apply(n, plan)
    again = rebuild(record(n), tensors_of(n), example_inputs=n.example_inputs, trust=["tests"])
    assert torch.equal(again.module.eval()(*n.example_inputs), n.module(*n.example_inputs))
    assert {e.name for e in again.elements()} == {e.name for e in n.elements()}


class Used(Net):
    """Uses the attention weights of its first block."""

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        more, weights = self.blocks[0].attention(x)
        return self.head(self.blocks[1](x + more)[0].mean(1)) + weights.mean()


class Reads(Net):
    """Reads a size of its first block, as `nn.TransformerEncoder` does."""

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) * self.blocks[0].norm.eps
        for block in self.blocks:
            x = block(x)[0]
        return self.head(x.mean(1))


@pytest.mark.parametrize(
    ("factory", "name", "reason"),
    [(Used, "blocks.0.attention", "returns another tensor"), (Reads, "blocks.0", "reads its attribute norm")],
)
def test_a_block_that_the_rest_needs_is_listed_with_the_reason(factory: type[nn.Module], name: str, reason: str) -> None:
    n = network(factory)
    with pytest.raises(PlanError, match=reason):
        apply(n, RemovePlan(name))
    assert n.element("blocks.1").permissible


class Numbered(nn.Module):
    """Each layer keeps what it makes in a list, under its number."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(8, 8), nn.Linear(8, 3)
        self.layers = nn.ModuleList(Layer(i) for i in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x, cache = self.first(x), {}
        for layer in self.layers:
            x = layer(x, cache)
        return self.head(x)


class Layer(nn.Module):
    def __init__(self, layer_idx: int) -> None:
        super().__init__()
        self.fc, self.layer_idx = nn.Linear(8, 8), layer_idx

    def forward(self, x: Tensor, cache: dict[int, Tensor]) -> Tensor:
        cache[self.layer_idx] = x
        return x + self.fc(torch.tanh(cache[self.layer_idx]))


def test_numbers_of_layers_have_no_gap_and_are_not_given_twice() -> None:
    torch.manual_seed(0)
    n = Network(Numbered().eval(), f"{HERE}:Numbered", {}, (torch.randn(2, 8),))
    assert "duplicate" not in n.element("after:layers.1").kinds
    with pytest.raises(ValueError, match="layer_idx is its number among the layers"):
        apply(n, InsertPlan("after:layers.1", "duplicate"))
    apply(n, RemovePlan("layers.1"))
    assert [layer.layer_idx for layer in n.module.layers if isinstance(layer, Layer)] == [0, 1, 2]
    again = rebuild(record(n), tensors_of(n), example_inputs=n.example_inputs, trust=["tests"])
    assert [layer.layer_idx for layer in again.module.layers if isinstance(layer, Layer)] == [0, 1, 2]


class Scaled(nn.Module):
    """Two parallel branches beside the skip path, the first with a layer scale that the block itself holds."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.gamma = nn.LayerNorm(8), nn.Parameter(torch.rand(8))
        self.attention, self.wide, self.back = Attention(8), nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        return x + self.gamma * self.attention(h)[0] + self.back(torch.relu(self.wide(h)))


class Behind(nn.Module):
    """A block whose sum goes through something that is not the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.fc(torch.tanh(x)))


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.a, self.b, self.head = nn.Embedding(20, 8), Scaled(), Behind(), nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.b(self.a(self.embed(ids))).mean(1))


def test_copies_are_the_identity_where_they_are_offered() -> None:
    n = network(Mixed)
    before = n.module(*n.example_inputs)
    apply(n, InsertPlan("after:a", "duplicate"))
    assert torch.equal(n.module(*n.example_inputs), before)
    zero = [name for name, p in n.module.a.grown_0.named_parameters() if not p.any()]
    assert {"attention.out.weight", "back.weight"} <= set(zero) and "wide.weight" not in zero
    n.module(*n.example_inputs).square().sum().backward()
    assert all(n.module.a.grown_0.get_parameter(name).grad.any() for name in ("attention.out.weight", "back.weight"))
    with pytest.raises(ValueError, match=r"after:b|behind b"):
        apply(n, InsertPlan("after:b", "duplicate"))


class Both(nn.Module):
    """An encoder and a decoder of torch's, with the masks that they are used with."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 8), nn.Linear(8, 3)
        self.model = nn.Transformer(8, 2, 2, 2, 12, dropout=0.0, batch_first=True, norm_first=True)

    def forward(self, ids: Tensor) -> Tensor:
        x, mask = self.embed(ids), ids == 0
        causal = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).triu(1)
        return self.head(self.model(x, x, tgt_mask=causal, src_key_padding_mask=mask, memory_key_padding_mask=mask))


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_layers_of_torchs_transformer_are_copied_exactly_and_removed() -> None:
    n = network(Both)
    with torch.no_grad():
        for p in n.module.parameters():
            p.add_(torch.randn(p.shape), alpha=0.1)
    n.module.eval()
    for at in ("model.encoder.layers.1", "model.decoder.layers.1"):
        with torch.no_grad():
            before = n.module(*n.example_inputs)
        apply(n, InsertPlan(f"after:{at}", "duplicate"))
        made = n.module.get_submodule(f"{at}.grown_0")
        assert not made.self_attn.out_proj.weight.any() and made.norm1.weight.any() and made.self_attn.in_proj_weight.any()
        with torch.no_grad():
            assert torch.allclose(n.module(*n.example_inputs), before, atol=1e-6)
        assert "fused kernel" in (n.element("model.encoder.layers.0.self_attn").reason or "")
        apply(n, RemovePlan(at))
        with torch.no_grad():
            n.module(*n.example_inputs)
