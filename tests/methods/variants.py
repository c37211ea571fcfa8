"""Every method of the tables with the arguments under which it must keep the contract: one line a method."""

from typing import Any

Arguments = dict[str, Any]

GROWTH: dict[str, list[Arguments]] = {
    "random": [{}, {"init": "normal"}, {"init": "orthogonal"}, {"zero": "none"}],
    "net2wider": [{}, {"noise": 0.0}],
    "variance_transfer": [{}, {"rescale": "none"}, {"pairing": "none", "rescale": "old_shape", "init": "fan_in"}],
    "north": [{"candidates": 5}, {"init": "pre"}, {"init": "weight"}, {"init": "random"}],
    "nest": [{"draws": 2}, {"draws": 1, "share": 1.0}],
    "gradmax": [{}, {"zero": "fan_out", "norm": "fixed"}, {"zero": "fan_in"}],
    "gradmax_opt": [{"steps": 5}, {"steps": 3, "draws": 0, "norm": "fixed"}],
    "tiny": [{}, {"natural_step": True}, {"projection": False, "whitening": False, "line_search": False, "step": 0.1}],
    "deepen": [
        {}, {"block": "residual", "batch_norm_inside": True}, {"block": "duplicate"},
        {"block": "residual", "score": "sensitivity"}, {"block": "identity", "batch_norm_inside": True},
    ],
    "firefly": [{}, {"splits": False}, {"depth": True}],
    "splitting": [{}, {"form": "fast"}, {"signed": True}],
    "senn": [{"proposals": 16, "num_batches": 1}, {"steps": 0, "draws": 0, "proposals": 8, "num_batches": 1}],
    "senn_depth": [{"proposals": 1, "num_batches": 1}],
}
PRUNING: dict[str, list[Arguments]] = {
    "magnitude": [{}, {"normaliser": "size"}, {"normaliser": "none"}, {"removal": "absorb"}, {"removal": "merge"}],
    "magnitude_weights": [{}],
    "random": [{}, {"removal": "absorb"}],
    "random_weights": [{}],
    "rigl_drop": [{}],
    "lamp": [{}],
    "snip": [{}],
    "synflow": [{"rounds": 10}],
    "fisher_weights": [{}],
    "polarization": [{}, {"threshold": "fixed"}, {"reduce": "mean"}],
    "slimming": [{}, {"reduce": "mean"}],
    "taylor": [{}, {"form": "group", "average": "batch"}, {"normaliser": "norm"}],
    "fisher": [{}, {"form": "weights"}],
    "condense": [{}],
    "obs": [{"num_batches": 1}],
    "one_synapse": [{"num_batches": 1, "candidates": 3, "trials": 2, "steps": 3, "tolerance": 10.0}],
    "differentiable": [{}],
    "remove_blocks": [{}, {"layers": True}, *({"score": s} for s in ("influence", "gate", "scale"))],
}
OWN_SUITE: dict[str, str] = {
    "size_weight": "growth/test_size_weight.py",
    "controller": "growth/test_controller.py",
    "half_layer": "growth/test_half_layer.py",
    "cascade": "growth/test_cascade.py",
    "dead_neurons": "pruning/test_dead_neurons.py",
    "residual_fitting": "growth/test_residual_fitting.py",
    "movement": "pruning/test_movement.py",
    "granet": "growth/test_regrow.py",
    "set": "growth/test_regrow.py",
    "rigl": "growth/test_regrow.py",
    "snfs": "growth/test_regrow.py",
    "nest_connections": "growth/test_regrow.py",
}
"""Methods that need another network or a state of training: name -> the test file with a subclass of the contract for them."""
SILENT = ("random", "net2wider", "deepen", "variance_transfer")
"""Growth methods that measure nothing."""


def cases(table: dict[str, list[Arguments]]) -> list[tuple[str, Arguments]]:
    return [(name, arguments) for name, found in table.items() for arguments in found]
