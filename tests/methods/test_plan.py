import pytest
import torch

from coppice.methods.plan import (
    GrowPlan,
    InsertPlan,
    MaskPlan,
    PrunePlan,
    RemovePlan,
    plan_from_bytes,
    plan_from_json,
    plan_to_bytes,
    plan_to_json,
)

PLANS = [
    GrowPlan("a:0", 2, (1, 0), {"b:0": torch.randn(2), "a:1": torch.randn(3, 2).double()}, "normal", "kaiming", 0.1, 0.3, 7, 0.2),
    GrowPlan("conv.weight:0", 1),
    PrunePlan("x", (3, 1), "merge", merge={3: (0, 1 / 3), 1: (2, -2.0)}, predicted_loss=1e-300),
    PrunePlan("x", (3, 1), "absorb", constants=(0.1, -0.2)),
    InsertPlan("after:layers.1", "residual_conv", {"kernel": 3, "widths": [1, 2]}, seed=5),
    RemovePlan("layers.0", 0.5),
    PrunePlan("x", (0,), adjust={"w": torch.randn(2, 3)}),
    GrowPlan("x", 1, values={"w:0": torch.randn(1, 3)}, adjust={"w": torch.randn(2, 3), "n.running_mean": torch.zeros(2)}),
    GrowPlan("x", 2, (0, -1), offsets={"w:0": torch.randn(2, 3)}),
    InsertPlan("after:x", "residual_linear", {"width": 2}, values={"first.weight": torch.randn(2, 3)}),
    MaskPlan({"w": torch.tensor([[True, False]])}, predicted_gain=0.5, adjust={"w": torch.randn(1, 2)}),
    MaskPlan({"w": torch.tensor([[True, False]]), "a": torch.zeros(0, dtype=torch.bool)}),
]


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("plan", PLANS, ids=lambda p: type(p).__name__)
def test_a_plan_survives_bytes_exactly(plan):
    back = plan_from_bytes(plan_to_bytes(plan))
    assert type(back) is type(plan)
    assert all(same(value, getattr(back, name)) for name, value in vars(plan).items())


def test_bytes_that_hold_no_plan_are_refused():
    with pytest.raises(ValueError, match="hold no plan"):
        plan_from_bytes(b"\x80\x04K\x01.")
    with pytest.raises(ValueError, match="hold no plan"):
        plan_from_bytes((10**12).to_bytes(8, "little") + b"{}")


def test_unknown_kinds_and_fields_are_refused():
    head, tensors = plan_to_json(RemovePlan("a"))
    with pytest.raises(ValueError, match="kinds"):
        plan_from_json({**head, "plan": "explode"}, tensors)
    with pytest.raises(ValueError, match="'more'"):
        plan_from_json({**head, "more": 1}, tensors)
