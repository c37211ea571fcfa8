"""`elements` prints what may change and why the rest may not; `methods` prints what there is."""

import json
import re

import pytest
from typer.testing import CliRunner

from coppice.orchestrator.cli.commands import app

RUNNER = CliRunner()
FLAT = ("elements", "tests.support.zoo:flatnet", "--input", "1,3,32,32")


def output(*arguments: str) -> str:
    done = RUNNER.invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_elements_are_a_table_with_reasons() -> None:
    text = output(*FLAT)
    assert re.search(r"conv1\.weight:0 +channel +8 +1 +1 +exact +exact", text)
    assert "input of the network" in text and "output of the network" in text
    assert re.search(r"[\d,]+ parameters\. May change: \d+ channel, .*May not: \d+\.", text)


def test_parameters_are_told_by_level_with_the_reasons_for_the_rest() -> None:
    lines = output(*FLAT).splitlines()
    shares = dict(re.findall(r"^(\w+) +\d+ +[\d,]+ +([\d.]+) %$", "\n".join(lines), re.M))
    assert float(shares["channel"]) > 90 and {"weight", "channel"} <= shares.keys()
    (hold,) = (i for i, line in enumerate(lines) if re.match(r"Units .* that may come and go hold [\d,]+ of [\d,]+ param", line))
    assert [re.split(r" {2,}", line.strip())[-1] for line in lines[hold + 2 :]] == ["output of the network"]
    found = json.loads(output(*FLAT, "--json"))["coverage"]
    assert found["by_level"]["channel"] == found["units"] < found["parameters"] and found["reasons"][0]["parameters"] > 0


def test_levels_can_be_chosen() -> None:
    lines = output(*FLAT, "--level", "insertion").splitlines()
    assert all("insertion" in line for line in lines[1:-1])
    with pytest.raises(ValueError, match="--level must be one of weight, channel"):
        output(*FLAT, "--level", "neuron")


def test_elements_as_json_with_arguments_and_probe() -> None:
    found = json.loads(output(*FLAT, "--args", '{"channels": 5}', "--level", "channel", "--probe", "--json"))
    assert found["network"] == "tests.support.zoo:flatnet"
    assert found["arguments"] == {"channels": 5}
    first = found["elements"][0]
    assert (first["size"], first["permissible"], first["verified"], first["reason"]) == (5, True, True, None)
    assert {e["reason"] for e in found["elements"] if not e["permissible"]} >= {"input of the network"}


def test_inputs_of_other_types() -> None:
    text = output("elements", "tests.support.zoo:tied_lm", "--input", "2,7", "--dtype", "long")
    assert "rows of an embedding" in text


@pytest.mark.parametrize(("arguments", "message"), [
    (("--input", "1,x"), "--input must be sizes >= 1"),
    (("--input", "0,3"), "--input must be sizes >= 1"),
    (("--input", "1,3"), "must run on inputs 1,3"),
    (("--input", "1,3,32,32", "--args", "[1]"), "--args must be a JSON object"),
    (("--input", "1,3,32,32", "--args", "{depth: 3}"), "--args must be a JSON object"),
    (("--input", "1,3,32,32", "--args", '{"depth": 3}'), "must accept {'depth': 3}"),
    (("--input", "1,3,32,32", "--dtype", "text"), "--dtype must be one of float"),
    (("--input", "1,3,32,32", "--dtype", "float", "--dtype", "long"), "--dtype must be given once"),
])
def test_bad_input_is_named(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        output("elements", "tests.support.zoo:flatnet", *arguments)


def test_a_factory_that_does_not_import_is_named() -> None:
    with pytest.raises(ValueError, match="no_such_package must be importable"):
        output("elements", "no_such_package:build", "--input", "1,3")


def test_methods_lists_every_table_with_its_parameters() -> None:
    found = json.loads(output("methods", "--json"))
    assert {e["kind"] for e in found} == {"grow", "prune", "when", "where"}
    names = {(e["kind"], e["name"]) for e in found}
    assert names >= {("grow", "gradmax"), ("prune", "slimming"), ("when", "plateau"), ("where", "global")}
    for entry in found:
        assert entry["summary"], entry["name"]
        if entry["kind"] in ("grow", "prune"):
            for said in ("why", "when", "where", "levels", "batch_norm", "cost", "paper"):
                assert entry[said], (entry["name"], said)
            assert entry["preserves"] in (True, False)
            assert {*entry["when"]} <= {e["name"] for e in found if e["kind"] == "when"}, entry["name"]
            assert {*entry["where"]} <= {e["name"] for e in found if e["kind"] == "where"}, entry["name"]
    periodic = next(e for e in found if e["name"] == "periodic")
    assert {"every", "from", "until"} <= {o["name"] for o in periodic["options"]}
    every = next(o for o in periodic["options"] if o["name"] == "every")
    assert (every["default"], every["low"]) == (1, 1)


def test_methods_as_a_table_and_one_in_full() -> None:
    text = output("methods")
    assert re.search(r"gradmax +grow", text) and re.search(r"plateau +when +", text)
    full = output("methods", "gradmax")
    assert full.startswith("gradmax (grow)") and "parameters:" in full and "default" in full
    for said in ("why:", "when:", "where:", "level:", "function:", "BatchNorm:", "cost:", "paper:"):
        assert said in full
    every = output("methods", "--full")
    assert full.strip() in every and "periodic (when)" in every


def test_an_unknown_method_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"got 'gradmx' \(did you mean 'gradmax'\?\); known are: "):
        output("methods", "gradmx")
