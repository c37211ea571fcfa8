"""What jobs have used: rows of the accounts, lists of nodes, whole nodes that are billed, and reasons in words."""

import pytest

from coppice.slurm.accounts import Node, Run, _read, billed_hours, duration_s, tres
from coppice.slurm.nodes import expand
from coppice.slurm.reasons import explained
from coppice.slurm.site import Site

ROWS = """\
12_0|REQUEUED|None|@08:00:00|@08:10:00|@08:20:00|600|1|cpu=8,gres/gpu=2,gres/gpu:a=2|n1|00:40:00|
12_0|RUNNING|None|@08:20:00|@08:21:00|Unknown|60|2|cpu=16,gres/gpu:a=4|n[1-2]|1-00:00:01.500|
12_0.batch|RUNNING||@08:21:00|@08:21:00|Unknown|60|1|cpu=8|n1|00:00:00|cpu=00:00:01,gres/gpuutil=40
12_0.0|RUNNING||@08:21:00|@08:21:00|Unknown|60|2|cpu=16|n[1-2]|00:00:00|gres/gpumem=1G,gres/gpuutil=73
13|CANCELLED by 7|None|@08:20:00|None|@08:21:00|0|1||None assigned|00:00:00|
99|RUNNING|None|x|x|x|1|1||n1||
""".replace("@", "2026-11-21T")


def site(billing: str) -> Site:
    return Site.model_validate({"name": "s", "queues": [{"max_min": 60}], "billing": billing})


def run(start: float, hours: float, cpus: int, *nodes: str, gpus: int = 0) -> Run:
    return Run("1", "COMPLETED", "", start, start, start + 3600 * hours, 3600 * hours, nodes, cpus, gpus)


def test_every_run_of_a_requeued_job_counts_and_steps_tell_how_busy_gpus_were() -> None:
    found = _read(ROWS.splitlines(), {"12_0", "13"})
    first, second = found["12_0"]
    assert (first.state, first.elapsed_s, first.cpus, first.gpus, first.nodes) == ("REQUEUED", 600, 8, 2, ("n1",))
    assert first.started is not None and first.submitted is not None and first.started - first.submitted == 600
    assert (second.nodes, second.gpus, second.cpu_s, second.gpu_percent, second.ended) == (("n1", "n2"), 4, 86401.5, 73, None)
    assert first.gpu_percent is None and set(found) == {"12_0", "13"}
    (cancelled,) = found["13"]
    assert (cancelled.state, cancelled.started, cancelled.nodes, cancelled.cpus) == ("CANCELLED", None, (), 0)


def test_durations_and_tres() -> None:
    assert [duration_s(t) for t in ("00:01:30", "2-03:00:00", "05:06.5", "", "x")] == [90, 183600, 306.5, 0, 0]
    assert tres("billing=8,cpu=8,mem=4000M,gres/gpu:a100=2") == {"billing": 8, "cpu": 8, "gres/gpu:a100": 2}


@pytest.mark.parametrize(("text", "names"), [
    ("", []), ("n1", ["n1"]), ("n[1-3],gpu7", ["n1", "n2", "n3", "gpu7"]), ("n[08-10,12]", ["n08", "n09", "n10", "n12"]),
    ("r[1-2]n[3,5]-ib", ["r1n3-ib", "r1n5-ib", "r2n3-ib", "r2n5-ib"]),
])  # fmt: skip
def test_lists_of_nodes(text: str, names: list[str]) -> None:
    assert expand(text) == names


def test_brackets_must_fit() -> None:
    with pytest.raises(ValueError, match="brackets that fit"):
        expand("n[1-2")


def test_cores_are_billed_as_they_are_had() -> None:
    assert billed_hours(site("cores"), {"a": [run(0, 2, 8, "n1", gpus=1), run(9, 1, 4, "n2")], "b": []}, {}) == {
        "a": (20.0, 2.0), "b": (0.0, 0.0)}  # fmt: skip


def test_whole_nodes_are_billed_once_and_shared_by_those_on_them() -> None:
    nodes = {"n1": Node(96, 4), "n2": Node(96, 4)}
    alone = {"a": [run(0, 2, 24, "n1", gpus=1)]}
    assert billed_hours(site("nodes"), alone, nodes)["a"] == pytest.approx((192, 8))
    packed = {f"t{i}": [run(0, 2, 24, "n1", gpus=1)] for i in range(4)}
    found = billed_hours(site("nodes"), packed, nodes)
    assert all(found[f"t{i}"] == pytest.approx((48, 2)) for i in range(4))
    after = {"a": [run(0, 1, 24, "n1")], "b": [run(1800, 1, 24, "n1")], "c": [run(90000, 1, 48, "n1", "n2")]}
    found = billed_hours(site("nodes"), after, nodes)
    assert sum(hours for hours, _ in found.values()) == pytest.approx(96 * 2.5 + 96)
    assert billed_hours(site("nodes"), alone, {})["a"] == pytest.approx((48, 2)), "of an unknown node: what the job had"


@pytest.mark.parametrize(("reason", "words"), [
    ("Priority", "Priority: jobs with a higher priority come first"),
    ("(Resources)", "it is next"),
    ("ReqNodeNotAvail, UnavailableNodes:n[1-3]", "are down, drained or reserved"),
    ("QOSMaxJobsPerUserLimit", "as many of your jobs run as may at a time"),
    ("AssocGrpCPUMinutesLimit", "core-hours are used up"),
    ("QOSGrpSomethingNew", "a limit of your account or qos"),
    ("SomethingElse", "SomethingElse"),
])  # fmt: skip
def test_reasons_in_words(reason: str, words: str) -> None:
    assert explained(reason).startswith(reason) and words in explained(reason)
