"""Change live networks: find what may grow or shrink, plan, apply, and write down what the network has become."""

from methods.apply import apply
from methods.architecture import rebuild, record, tensors_of
from methods.event import Event
from methods.graph import Element, elements, trace
from methods.network import Network
from methods.plan import GrowPlan, InsertPlan, MaskPlan, PrunePlan, RemovePlan
from methods.probe import probe
from methods.surgery.followers import EmaFollower, OptimizerFollower

__all__ = [
    "Element", "EmaFollower", "Event", "GrowPlan", "InsertPlan", "MaskPlan", "Network", "OptimizerFollower", "PrunePlan",
    "RemovePlan", "apply", "elements", "probe", "rebuild", "record", "tensors_of", "trace",
]  # fmt: skip
