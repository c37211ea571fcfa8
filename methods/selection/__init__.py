"""Where, and how many: selections turn scores into choices. One file a family."""

from methods.selection.best import BestGain, LargestScore
from methods.selection.budget import BudgetOptimal
from methods.selection.counting import (
    Budget,
    asked,
    at_most,
    base,
    is_count,
    nearest,
    offered,
    possible_counts,
    take,
    wanted,
)
from methods.selection.each import All, Learned, RandomElement, RoundRobin
from methods.selection.ranking import GlobalRanking
from methods.selection.values import Candidate, Choice, Limit, Selection

__all__ = [
    "All",
    "BestGain",
    "Budget",
    "BudgetOptimal",
    "Candidate",
    "Choice",
    "GlobalRanking",
    "LargestScore",
    "Learned",
    "Limit",
    "RandomElement",
    "RoundRobin",
    "Selection",
    "asked",
    "at_most",
    "base",
    "is_count",
    "nearest",
    "offered",
    "possible_counts",
    "take",
    "wanted",
]
