"""Where, and how many: selections turn scores into choices. One file a family."""

from coppice.methods.selection.best import BestGain, LargestScore
from coppice.methods.selection.budget import BudgetOptimal
from coppice.methods.selection.counting import (
    Budget,
    at_most,
    base,
    is_count,
    nearest,
    offered,
    possible_counts,
    requested,
    take,
    wanted,
)
from coppice.methods.selection.each import All, Learned, RandomElement, RoundRobin
from coppice.methods.selection.ranking import GlobalRanking
from coppice.methods.selection.values import Candidate, Choice, Limit, Selection
from coppice.methods.selection.weights import ErdosRenyi, Uniform

__all__ = [
    "All",
    "BestGain",
    "Budget",
    "BudgetOptimal",
    "Candidate",
    "Choice",
    "ErdosRenyi",
    "GlobalRanking",
    "LargestScore",
    "Learned",
    "Limit",
    "RandomElement",
    "RoundRobin",
    "Selection",
    "Uniform",
    "requested",
    "at_most",
    "base",
    "is_count",
    "nearest",
    "offered",
    "possible_counts",
    "take",
    "wanted",
]
