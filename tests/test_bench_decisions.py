"""The simulator behind bench/bench_decisions.py: that its nights are what they say, and that the bench runs."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "bench"))
import bench_decisions  # noqa: E402
import nights  # noqa: E402
from nights import Outcome, Task, World, live  # noqa: E402


@pytest.mark.parametrize(
    ("name", "helps", "nothing"), [("ideas", 0.15, 0.35), ("h100", 0.06, 0.65), ("heavy", 0.21, 0)]
)
def test_a_distribution_has_the_shares_it_names(name, helps, nothing):
    chance = random.Random(0)
    effects = [nights.DISTRIBUTIONS[name](chance) for _ in range(20_000)]
    assert sum(effect < 0 for effect in effects) / len(effects) == pytest.approx(helps, abs=0.01)
    assert sum(effect == 0 for effect in effects) / len(effects) == pytest.approx(nothing, abs=0.01)


@pytest.mark.parametrize("policy", nights.POLICIES)
def test_a_night_is_the_same_every_time(policy):
    task = Task("ideas", 0.001, 25, policy, 3)
    assert live(task) == live(task)


def test_without_noise_greedy_gains_all_that_there_is_and_claims_no_more():
    world = World("ideas", 1e-9, 200, 0)
    outcome = nights.greedy(world)
    again = World("ideas", 1e-9, 200, 0)
    assert outcome.gained == pytest.approx(-sum(min(again.idea(), 0.0) for _ in range(199)))
    assert outcome.claimed == pytest.approx(outcome.gained, abs=1e-7)


@pytest.mark.parametrize("policy", ["ledger", "first"])
def test_a_night_spends_its_runs_and_no_more(policy):
    night = nights.Ours(World("drift", 0.002, 30, 1), policy == "ledger")
    night.night()
    assert night.world.done == 30
    assert len(night.rows) == 30 + (nights.LEDGER_EDITS * nights.LEDGER_RUNS if policy == "ledger" else 0)


def test_a_machine_that_drifts_shows_it_and_another_does_not():
    still, drifting = World("ideas", 1e-3, 1000, 5), World("drift", 1e-3, 1000, 5)
    away = [drifting.run(1.0) - still.run(1.0) for _ in range(1000)]
    assert away[0] == pytest.approx(0)
    assert max(map(abs, away)) > 5e-4


def test_a_ratio_of_what_is_always_double_has_no_error():
    assert bench_decisions.ratio([2.0, 4.0, 8.0], [1.0, 2.0, 4.0]) == (2.0, 0.0)


@pytest.mark.parametrize(("gains", "missed"), [(50, False), (59, False), (62, True)])
def test_a_decile_is_off_by_more_than_five_points_or_holds(gains, missed):
    cases = tuple((0.55, number < 2 * gains) for number in range(200))
    ((line, target),) = bench_decisions.reliability("here", [Outcome(0.0, 0.0, 0, 0, stated=cases)])
    assert target and target.missed == missed
    assert line.startswith(f"| here | 0.55 | {gains / 100:.2f} ± 0.0") and line.endswith("| OFF |") == missed


def test_with_fewer_cases_a_decile_is_told_but_not_judged():
    cases = ((0.55, False),) * 199
    ((line, target),) = bench_decisions.reliability("here", [Outcome(0.0, 0.0, 0, 0, stated=cases)])
    assert (line, target) == ("| here | 0.55 | 0.00 ± 0.00 | 199 |  |", None)


def test_the_fit_leaves_out_crashes_and_what_broke_everything(tmp_path):
    chance = random.Random(1)
    log = tmp_path / "results.tsv"
    runs = [f"{n}\t{1 + 0.01 * (n > 0) + chance.gauss(0, 0.0004)}\tdiscard" for n in range(40)]
    runs[0] = "0\t1.0\tkeep"
    log.write_text("\n".join(["commit\tval_bpb\tstatus", *runs, "40\t0.0\tcrash", "41\t3.2\tdiscard", ""]))
    assert len(bench_decisions.log_differences(log)) == 39


def test_the_bench_runs_and_prints_its_tables():
    command = [sys.executable, "bench/bench_decisions.py", "--quick", "--only", "ideas"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    assert "## ideas, 40 runs a night, 2 nights; gains in thousandths of the metric" in done.stdout
    for noise in ("0.001", "0.002"):
        for policy in nights.POLICIES:
            assert f"| {noise} | {policy} | " in done.stdout
    assert "## Targets: " in done.stdout
