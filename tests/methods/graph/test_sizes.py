"""Sizes that a forward gives, computes and compares are followed wherever they are read."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coppice.methods import GrowPlan, Network, apply
from coppice.methods.graph.values import Element

COUNT = 8


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


def pieces(module: Any, y: Tensor) -> tuple[Tensor, ...]:
    return y.split(module.width, -1)


class Thirds(nn.Module):
    """Three parts of one projection, cut in different ways."""

    def __init__(self, way: str, width: int = 8) -> None:
        super().__init__()
        self.way, self.width, self.embed = way, width, 24
        self.a, self.o = nn.Linear(6, 3 * width), nn.Linear(width, 3)

    @property
    def part(self) -> int:
        return self.width

    @wrapped
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = getattr(self, self.way)(self.a(x))
        return self.o(torch.tanh(q) * k + v)

    def plain(self, y: Tensor) -> Any:
        return y.split(self.width, -1)

    def comprehension(self, y: Tensor) -> Any:
        return [y[..., i * self.width : (i + 1) * self.width] for i in range(3)]

    def nested(self, y: Tensor) -> Any:
        def cut(z: Tensor) -> Any:
            return z.narrow(-1, 0, self.width), z[:, self.width : -self.width], z[:, -self.width :]

        return cut(y)

    def by_name(self, y: Tensor) -> Any:
        return y.unflatten(-1, (3, getattr(self, "width"))).unbind(-2)  # noqa: B009

    def free(self, y: Tensor) -> Any:
        return pieces(self, y)

    def by_property(self, y: Tensor) -> Any:
        return y.view(-1, 3, self.part).unbind(1)

    def of_layer(self, y: Tensor) -> Any:
        return y.split(self.a.out_features // 3, -1)

    def of_shape(self, y: Tensor) -> Any:
        return y.reshape(y.shape[0], 3, y.size(1) // 3).unbind(1)


def network(module: nn.Module, *inputs: Tensor) -> Network:
    return Network(module.eval(), "x:y", {}, inputs)


def unit(net: Network, name: str) -> Element:
    return next(e for e in net.elements() if e.name.startswith(name) and e.permissible and e.level != "weight")


@pytest.mark.parametrize("way", ["plain", "comprehension", "nested", "by_name", "free", "by_property", "of_layer", "of_shape"])
def test_a_size_is_followed_wherever_it_is_read(way: str) -> None:
    net, x = network(Thirds(way), torch.randn(4, 6)), torch.randn(4, 6)
    element = unit(net, "a.weight:0")
    assert element.doubt is None
    before = net.module(x)
    apply(net, GrowPlan(element.name, 2))
    assert torch.allclose(net.module(x), before, atol=1e-6)


class Numbers(nn.Module):
    def __init__(self, forward: Callable[..., Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.body, self.sizes, self.unread = forward, [8, 8], 8
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda m, x: m.o(m.a(x).view(-1, COUNT)), "the number 8 in view at test_sizes.py:"),
        (lambda m, x: m.o(m.a(x)[:, :COUNT]), "the number 8 in slice at test_sizes.py:"),
        (lambda m, x: m.o(m.a(x).view(-1, m.sizes[0])), "needs sizes[0] = "),
    ],
)
def test_a_mere_number_does_not_follow(forward: Callable[..., Tensor], reason: str) -> None:
    net = network(Numbers(forward, a=nn.Linear(6, 8), o=nn.Linear(8, 3)), torch.randn(4, 6))
    assert reason in (net.element("a.weight:0").reason or "")


def test_a_size_of_another_tensor_ties_the_two() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        b, c, _, _ = x.shape
        return m.o(m.r(x).reshape(b, c, -1).transpose(1, 2))

    x = torch.randn(2, 3, 4, 4)
    net = network(Numbers(forward, a=nn.Conv2d(3, 8, 1), r=nn.Conv2d(8, 8, 2, 2), o=nn.Linear(8, 3)), x)
    assert [m.atom for m in net.element("a.weight:0").moves] == ["a.weight:0", "r.weight:0"]
    assert net.element("r.weight:0").reason == "moves together with a.weight:0"
    before = net.module(x)
    apply(net, GrowPlan("a.weight:0", 1))
    assert torch.allclose(net.module(x), before, atol=1e-6)


def test_what_the_forward_compares_must_still_hold() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        assert y.shape[-1] == m.unread
        return m.o(y)

    net = network(Numbers(forward, a=nn.Linear(6, 8), o=nn.Linear(8, 3)), torch.randn(4, 6))
    assert [(a.module, a.name) for a in net.element("a.weight:0").attributes] == [("", "unread")]


def test_equal_values_by_chance_mean_nothing() -> None:
    net = network(Numbers(lambda m, x: m.o(m.a(x)), a=nn.Linear(6, 8), o=nn.Linear(8, 3)), torch.randn(4, 6))
    element = net.element("a.weight:0")
    assert (element.attributes, element.doubt, element.reason) == ((), None, None)


def test_heads_times_size_computed_from_the_width() -> None:
    """As in `x.view(b, n, heads, channels // heads)`: a head size moves with the width."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.e(x)
        b, n, c = x.shape
        q, k, v = (f(x).view(b, n, m.sizes[0] // 2, 2 * c // m.sizes[0]).transpose(1, 2) for f in (m.q, m.k, m.v))
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)
        return m.o(x + m.p(y))

    layers = {name: nn.Linear(16, 16) for name in ("q", "k", "v", "p")}
    x = torch.randn(2, 5, 6)
    net = network(Numbers(forward, e=nn.Linear(6, 16), o=nn.Linear(16, 3), **layers), x)
    for element in net.elements():
        if element.level in ("channel", "head") and element.permissible:
            assert len(element.moves) > 1
            apply(net, GrowPlan(element.name, element.quantum))
            net.module(x)
            return
    raise AssertionError("nothing may change")
