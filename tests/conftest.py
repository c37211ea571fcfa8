"""Ray reads its settings when it is imported, so they are made before any test module imports it."""

from coppice.orchestrator.placement.ray_session import prepare_environment

prepare_environment()

pytest_plugins = ["tests.support.slurm.fixtures", "tests.support.stranger"]
