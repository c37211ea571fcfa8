"""The number of class tokens is no width."""

import torch
from torch import Tensor, nn

from coppice.methods.graph.elements import elements


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 6, 8))
        self.embed, self.mix, self.head, self.prefix = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3), 1

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), self.embed(x)], 1) + self.positions
        x = x + (x @ self.mix(x).transpose(1, 2)).softmax(-1) @ x
        return self.head(x[:, self.prefix :].mean(1))


def test_a_single_token_does_not_grow_and_the_width_does() -> None:
    found = {e.name: e for e in elements(Tokens().eval(), (torch.randn(2, 5, 6),))}
    assert not any(e.permissible for name, e in found.items() if name in ("token:1", "positions:1"))
    assert any(e.permissible and e.grow != "no" for e in found.values() if e.level == "channel" and e.size == 8)
