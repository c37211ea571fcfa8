"""Change live networks: find what may grow or shrink, plan, apply, and write down what the network has become."""

if __name__ != "coppice.methods":  # run from the checkout, this folder could be imported under a second name
    raise ImportError("import it as coppice.methods: what is imported under two names exists twice.")

from coppice.methods.apply import apply
from coppice.methods.event import Event
from coppice.methods.graph import Element, elements, trace
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan, InsertPlan, MaskPlan, PrunePlan, RemovePlan
from coppice.methods.probe import probe
from coppice.methods.record.architecture import rebuild, record, tensors_of
from coppice.methods.surgery.followers import EmaFollower, OptimizerFollower

__all__ = [
    "Element", "EmaFollower", "Event", "GrowPlan", "InsertPlan", "MaskPlan", "Network", "OptimizerFollower", "PrunePlan",
    "RemovePlan", "apply", "elements", "probe", "rebuild", "record", "tensors_of", "trace",
]  # fmt: skip
