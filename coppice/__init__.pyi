"""What README and docs use: the public names of Coppice, and where each of them lives."""

from coppice.methods.adaptation.adapt import Adaptation as Adaptation
from coppice.methods.adaptation.adapt import adapt as adapt
from coppice.methods.adaptation.candidates import Scope as Scope
from coppice.methods.apply import apply as apply
from coppice.methods.event import Event as Event
from coppice.methods.graph.elements import elements as elements
from coppice.methods.graph.values import Element as Element
from coppice.methods.growth.cascade.method import Cascade as Cascade
from coppice.methods.growth.deepen import Deepen as Deepen
from coppice.methods.growth.firefly.method import Firefly as Firefly
from coppice.methods.growth.gated.controller import Controller as Controller
from coppice.methods.growth.gated.controller import ControllerPruning as ControllerPruning
from coppice.methods.growth.gated.size_weight import SizeWeight as SizeWeight
from coppice.methods.growth.gated.size_weight import SizeWeightPruning as SizeWeightPruning
from coppice.methods.growth.gradmax import GradMax as GradMax
from coppice.methods.growth.gradmax_opt import GradMaxOpt as GradMaxOpt
from coppice.methods.growth.half_layer.method import HalfLayer as HalfLayer
from coppice.methods.growth.nest import Nest as Nest
from coppice.methods.growth.net2wider import Net2Wider as Net2Wider
from coppice.methods.growth.north import North as North
from coppice.methods.growth.random import Random as Random
from coppice.methods.growth.residual_fitting.method import ResidualFitting as ResidualFitting
from coppice.methods.growth.senn.depth import SennDepth as SennDepth
from coppice.methods.growth.senn.method import Senn as Senn
from coppice.methods.growth.sparse.method import NestConnections as NestConnections
from coppice.methods.growth.sparse.method import RigL as RigL
from coppice.methods.growth.sparse.method import Set as Set
from coppice.methods.growth.sparse.method import Snfs as Snfs
from coppice.methods.growth.splitting.method import Splitting as Splitting
from coppice.methods.growth.tiny.method import Tiny as Tiny
from coppice.methods.growth.variance_transfer.method import VarianceTransfer as VarianceTransfer
from coppice.methods.method import Context as Context
from coppice.methods.method import Measurement as Measurement
from coppice.methods.method import Method as Method
from coppice.methods.network import Network as Network
from coppice.methods.parameters import parameter as parameter
from coppice.methods.plan import (
    GrowPlan as GrowPlan,
)
from coppice.methods.plan import (
    InsertPlan as InsertPlan,
)
from coppice.methods.plan import (
    MaskPlan as MaskPlan,
)
from coppice.methods.plan import (
    PrunePlan as PrunePlan,
)
from coppice.methods.plan import (
    RemovePlan as RemovePlan,
)
from coppice.methods.probe import probe as probe
from coppice.methods.pruning.condense import Condense as Condense
from coppice.methods.pruning.dead_neurons import DeadNeurons as DeadNeurons
from coppice.methods.pruning.differentiable import Differentiable as Differentiable
from coppice.methods.pruning.fisher import Fisher as Fisher
from coppice.methods.pruning.fisher_weights import FisherWeights as FisherWeights
from coppice.methods.pruning.granet import GraNet as GraNet
from coppice.methods.pruning.lamp import Lamp as Lamp
from coppice.methods.pruning.magnitude import Magnitude as Magnitude
from coppice.methods.pruning.magnitude_weights import MagnitudeWeights as MagnitudeWeights
from coppice.methods.pruning.magnitude_weights import RiglDrop as RiglDrop
from coppice.methods.pruning.movement import MovementWeights as MovementWeights
from coppice.methods.pruning.obs import OptimalBrainSurgeon as OptimalBrainSurgeon
from coppice.methods.pruning.one_synapse.method import OneSynapse as OneSynapse
from coppice.methods.pruning.polarization import Polarization as Polarization
from coppice.methods.pruning.random_units import RandomUnits as RandomUnits
from coppice.methods.pruning.random_weights import RandomWeights as RandomWeights
from coppice.methods.pruning.remove_blocks import RemoveBlocks as RemoveBlocks
from coppice.methods.pruning.slimming import Slimming as Slimming
from coppice.methods.pruning.snip import Snip as Snip
from coppice.methods.pruning.synflow import SynFlow as SynFlow
from coppice.methods.pruning.taylor import Taylor as Taylor
from coppice.methods.record.architecture import build as build
from coppice.methods.record.architecture import rebuild as rebuild
from coppice.methods.record.architecture import record as record
from coppice.methods.record.architecture import tensors_of as tensors_of
from coppice.methods.selection import Selection as Selection
from coppice.methods.selection.amount import Amount as Amount
from coppice.methods.selection.best import BestGain as BestGain
from coppice.methods.selection.best import LargestScore as LargestScore
from coppice.methods.selection.budget import BudgetOptimal as BudgetOptimal
from coppice.methods.selection.each import (
    All as All,
)
from coppice.methods.selection.each import (
    Learned as Learned,
)
from coppice.methods.selection.each import (
    RandomElement as RandomElement,
)
from coppice.methods.selection.each import (
    RoundRobin as RoundRobin,
)
from coppice.methods.selection.ranking import GlobalRanking as GlobalRanking
from coppice.methods.selection.weights import ErdosRenyi as ErdosRenyi
from coppice.methods.selection.weights import Uniform as Uniform
from coppice.methods.surgery.changes import TensorChange as TensorChange
from coppice.methods.surgery.changes import followed as followed
from coppice.methods.surgery.followers import EmaFollower as EmaFollower
from coppice.methods.surgery.followers import OptimizerFollower as OptimizerFollower
from coppice.methods.surgery.state_entries import register_state_rule as register_state_rule
from coppice.orchestrator.config.models import Campaign as Campaign
from coppice.orchestrator.operations.status import status as status
from coppice.orchestrator.planning.load import load_campaign as load_campaign
from coppice.orchestrator.planning.start import resume as resume
from coppice.orchestrator.planning.start import run as run
from coppice.orchestrator.report.networks import load_network as load_network
from coppice.orchestrator.report.results import results as results
from coppice.orchestrator.tasks.dataset import Dataset as Dataset
from coppice.orchestrator.tasks.dataset import Split as Split
from coppice.orchestrator.trial.trial import Trial as Trial
from coppice.scheduler.triggers.base import Progress as Progress
from coppice.scheduler.triggers.base import Trigger as Trigger
from coppice.scheduler.triggers.base import setting as setting
from coppice.scheduler.triggers.plateau import Plateau as Plateau
from coppice.scheduler.triggers.resources import Compute as Compute
from coppice.scheduler.triggers.resources import Overfitting as Overfitting
from coppice.scheduler.triggers.resources import Target as Target
from coppice.scheduler.triggers.schedule import Initial as Initial
from coppice.scheduler.triggers.schedule import Never as Never
from coppice.scheduler.triggers.schedule import Periodic as Periodic
from coppice.scheduler.triggers.signals import Advised as Advised
from coppice.scheduler.triggers.signals import Rank as Rank
from coppice.scheduler.triggers.signals import Score as Score
from coppice.scheduler.triggers.signals import SplittingScore as SplittingScore
from coppice.scheduler.triggers.sparsity import Cosine as Cosine
from coppice.scheduler.triggers.sparsity import Cubic as Cubic
