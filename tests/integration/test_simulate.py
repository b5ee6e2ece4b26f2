# SPDX-License-Identifier: Apache-2.0
"""The simulator runs the rules that agent, proxy and routed run, and by these a
fleet recovers and evens out."""

import json
import re
import subprocess

import pytest

from hosts import BUILD, SOURCE

TOOLS = SOURCE / "tests" / "tools"
# What the rules are, and the libraries they are in.
RULES = {
    "libagent-rules.a": ["tracker_lease", "candidates_pick", "strategy_judge",
                         "strategy_ripen", "tracker_may_begin",
                         "fleet_new"],
    "librebalance.a": ["rebalance_next", "rebalance_target",
                       "rebalance_is_compared"],
    "libproxy-pure.a": ["admission_retry_after"],
}


def targets():
    text = subprocess.run(
        ["meson", "introspect", BUILD, "--targets"],
        capture_output=True, text=True, check=True,
    ).stdout
    return json.loads(text)


def symbols(path, *options):
    return subprocess.run(
        ["nm", *options, path], capture_output=True, text=True, check=True
    ).stdout


def test_no_rule_is_compiled_a_second_time():
    (target,) = [t for t in targets() if t["name"] == "simulate"]
    sources = [
        source for part in target["target_sources"]
        for source in part.get("sources", [])
    ]
    assert sources
    for source in sources:
        assert str(TOOLS) in source, f"{source} is not the simulator's own"
        text = open(source, encoding="utf-8").read()
        assert not re.search(r'#include "[^"]*\.c"', text), source
    # Each rule is undefined in its objects and comes from the library, which is
    # the one that the daemons are linked with.
    objects = list((BUILD / "tests/tools/simulate.p").glob("*.o"))
    defined = {
        line.split()[-1] for o in objects
        for line in symbols(o, "--defined-only").splitlines()
    }
    program = symbols(BUILD / "tests/tools/simulate")
    for library, names in RULES.items():
        (path,) = BUILD.glob(f"**/{library}")
        offered = symbols(path, "--defined-only")
        for name in names:
            assert name not in defined, f"{name} is the simulator's own"
            assert f" T {name}\n" in offered
            assert f" T {name}\n" in program, f"{name} is not linked"


@pytest.fixture(scope="module")
def lines():
    result = subprocess.run(
        [BUILD / "tests/tools/simulate", "--agents", "2000", "--proxies",
         "20"],
        capture_output=True, text=True, check=True,
    )
    return {
        line["scenario"]: line
        for line in map(json.loads, result.stdout.splitlines())
    }


@pytest.mark.parametrize("scenario", ["rolling-restart", "scale-out"])
def test_nobody_is_out_of_reach_by_what_is_planned(lines, scenario):
    assert lines[scenario]["out_of_reach"] == 0
    assert lines[scenario]["even_s"] >= 0
    assert -10 <= lines[scenario]["least_percent"]
    assert lines[scenario]["most_percent"] <= 10


def test_a_lost_zone_is_survived(lines):
    # 15 to 30 s until silence is noticed, then another zone
    assert 0 < lines["zone-loss-1"]["out_max_s"] < 40
    # with two tunnels in two zones nearly nobody notices
    assert lines["zone-loss-2"]["out_of_reach"] < 20


def test_a_fleet_that_dies_whole_is_back(lines):
    line = lines["fleet-restart"]
    assert line["out_of_reach"] == 2000
    assert 2 <= line["out_max_s"] < 10
    assert line["even_s"] >= 0
