"""Repeats where they change the most decisions: against simpler ways to spend them, in the corners, as a command.

A night is simulated as an agent works: each edit starts from the best result so far and is kept when it looks better.
"""

import json
import math
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.brief import DATA_NOTE
from lab.cards import add_card
from lab.sweep import FIRST_SEED, fresh_seeds, spend
from lab.tree import believe

ROOT = Path(__file__).parent.parent
NOISE = 0.001


def run(number, result, *, key=None, status="revert", parent=None, seed=42, direction="min", confirmed=None):
    """A row of the index."""
    return {
        "id": f"{number:012x}", "timestamp": f"2026-01-01T00:{number // 60:02d}:{number % 60:02d}.000Z",
        "status": status, "quarantined": None, "metric": "val_bpb", "result": result, "direction": direction,
        "edit_key": key or f"edit {number}", "train_sha256": None, "commit_id": f"{number:07x}",
        "parent_commit": None if parent is None else f"{parent:07x}", "champion": None, "seed": seed, "machine": "m",
        "hypothesis": f"idea {number}", "preset": "gpu", "device": "cuda", "confirmed": confirmed,
        "tokens_per_second": None,
    }  # fmt: skip


def night(rng, length):
    """(rows, the true value of every edit)."""
    rows, truth, best = [run(0, rng.gauss(1, NOISE), status="keep")], {"edit 0": 1.0}, 0
    for number in range(1, length):
        kind = rng.random()
        effect = -rng.expovariate(1 / 0.0012) if kind < 0.15 else 0.0 if kind < 0.5 else rng.expovariate(1 / 0.002)
        truth[f"edit {number}"] = truth[f"edit {best}"] + effect
        result = rng.gauss(truth[f"edit {number}"], NOISE)
        kept = result < rows[best]["result"]
        rows.append(run(number, result, status="keep" if kept else "revert", parent=best))
        best = number if kept else best
    return rows, truth


def repeated(rng, rows, truth, cards):
    """The rows with one more run for each of these cards."""
    more = list(rows)
    for card in cards:
        key = rows[int(card, 16)]["edit_key"]
        number = len(more)
        more.append(run(number, rng.gauss(truth[key], NOISE), key=key, parent=0, seed=number + 100))
    return more


def line(belief):
    """The champion and the configurations it came from."""
    node = belief.nodes[belief.champion]
    while node:
        yield node.card
        node = belief.nodes.get(node.parent)


def gained(before, after, truth):
    """What the decisions of `before` are truly worth by what is known after the repeats: edits that are left in, and
    configurations that are taken for better than the champion of before.
    """
    value, best, kept = 0.0, before.champion, set(line(before))
    for card, node in before.nodes.items():
        other = node.parent if card in kept else best
        if other is None:
            continue
        known = after.step(card) if node.parent == other else None
        difference = after.nodes[card].mean - after.nodes[other].mean
        if (known.expected if known else difference) < 0:
            value += truth[f"edit {int(other, 16)}"] - truth[f"edit {int(card, 16)}"]
    return value


def test_repeats_improve_more_decisions_than_random_ones_and_than_those_of_the_top():
    budget, nights, totals = 12, 12, Counter()
    for seed in range(nights):
        rng = random.Random(seed)
        rows, truth = night(rng, 45)
        belief = believe(rows, "min", 0.0005)
        top = [row["id"] for row in sorted(rows, key=lambda row: row["result"])]
        plans = {
            "ours": [repeat.card for repeat in spend(belief, rows, budget) for _ in range(repeat.runs)],
            "at random": [rng.choice(list(belief.nodes)) for _ in range(budget)],
            "the best 12": top[:12],
            "the best 4, three times": top[:4] * 3,
        }
        now = gained(belief, belief, truth)
        for name, cards in plans.items():
            assert len(cards) <= budget
            after = believe(repeated(random.Random(seed), rows, truth, cards), "min", 0.0005)
            totals[name] += (gained(belief, after, truth) - now) / nights
    others = [totals[name] for name in ("at random", "the best 12", "the best 4, three times")]
    assert totals["ours"] > 1.2 * max(others)
    assert totals["ours"] > 0.2 * NOISE


def test_what_may_be_better_than_the_champion_is_repeated_first():
    rows = [run(0, 1.0, status="keep"), *(run(n, 1.02, parent=0) for n in range(1, 8)), run(8, 1.0001, parent=0)]
    repeats = spend(believe(rows, "min", 0.0005), rows, 1)
    assert [(repeat.card, repeat.runs) for repeat in repeats] == [(rows[8]["id"], 1)]
    assert repeats[0].settles.startswith("whether it is better than the champion, 00000000: P 0.")
    assert 0 < repeats[0].gain < 0.001


def test_a_finding_that_somebody_confirmed_is_not_repeated():
    def asked(rows):
        return [repeat.settles for repeat in spend(believe(rows, "min", 0.0005), rows, 20)]

    helps = "whether it helps what it was edited from, "
    nights = [night(random.Random(seed), 30)[0] for seed in range(8)]
    assert any(settles.startswith(helps) for rows in nights for settles in asked(rows))
    confirmed = [[row | {"confirmed": 1} for row in rows] for rows in nights]
    assert not any(settles.startswith(helps) for rows in confirmed for settles in asked(rows))


def test_what_waits_is_part_of_the_budget_and_of_what_will_be_known():
    rows, _ = night(random.Random(1), 40)
    belief = believe(rows, "min", 0.0005)
    whole = Counter({repeat.card: repeat.runs for repeat in spend(belief, rows, 8)})
    first = Counter({repeat.card: repeat.runs for repeat in spend(belief, rows, 5)})
    rest = Counter({repeat.card: repeat.runs for repeat in spend(belief, rows, 8, list(first.elements()))})
    assert whole.total() == 8 and first + rest == whole
    assert spend(belief, rows, 8, list(whole.elements())) == []


@pytest.mark.parametrize(
    "rows",
    [
        [run(0, 1.0, status="keep")],
        [run(0, 1.0), run(1, 1.1)],  # no champion
        [run(0, 1.0, status="keep"), *(run(n, 1.0, key="edit 0", seed=n) for n in range(1, 9))],
        [  # all of it far off, and the noise is known
            *(run(n, 1.0 + n % 3 * 0.0005, key="edit 0", seed=n, status="keep") for n in range(6)),
            *(run(n, 1.0 + n / 100, parent=0) for n in range(6, 30)),
        ],
    ],
)
def test_nothing_is_repeated_where_nothing_can_be_decided(rows):
    assert spend(believe(rows, "min", 0.0005), rows, 10) == []


@given(
    st.lists(st.tuples(st.floats(-1e308, 1e308), st.booleans(), st.integers(0, 5)), min_size=1, max_size=12),
    st.integers(1, 6),
    st.sampled_from(["min", "max"]),
)
def test_any_results_give_a_plan_within_the_budget(results, budget, direction):
    rows = [
        run(number, result, status="keep" if kept else "revert", parent=min(parent, number), direction=direction)
        for number, (result, kept, parent) in enumerate(results)
    ]
    belief = believe(rows, direction, 0.0005)
    repeats = spend(belief, rows, budget) if belief else []
    assert sum(repeat.runs for repeat in repeats) <= budget
    assert all(repeat.card in belief.nodes and repeat.gain >= 0 and math.isfinite(repeat.gain) for repeat in repeats)
    assert len({repeat.card for repeat in repeats}) == len(repeats)


@pytest.mark.parametrize(
    ("taken", "fresh"),
    [([], [43, 44]), ([42, None], [43, 44]), ([43, 45], [44, 46]), ([44, 43, 44], [45, 46])],
)
def test_a_seed_is_one_that_no_run_has_had(taken, fresh):
    assert FIRST_SEED == 43
    assert list(islice(fresh_seeds(taken), 2)) == fresh


def commons(knowledge, *arguments):
    command = [sys.executable, "commons.py", "sweep-confirm", "--knowledge-dir", str(knowledge), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A commons of one night, whose ideas would clear the terminal."""
    folder = tmp_path_factory.mktemp("night") / "known"
    for row in night(random.Random(1), 40)[0]:
        names = ("id", "timestamp", "status", "edit_key", "seed", "preset")
        card = {name: row[name] for name in names} | {"hypothesis": f"{row['hypothesis']}\x1b[2J"}
        commits = {"commit": row["commit_id"], "parent_commit": row["parent_commit"]}
        results = {"results": {"val_bpb": row["result"]}}
        add_card(folder, card | commits | results | {"track": "t/box", "category": "optimizer"})
    return folder


@pytest.fixture
def knowledge(known, tmp_path):
    """The same, to be changed by one test."""
    return Path(shutil.copytree(known, tmp_path / "known"))


def test_the_command_queues_repeats_with_fresh_seeds(knowledge):
    done = commons(knowledge, "--budget", "6")
    assert (done.returncode, done.stderr) == (0, "")
    title, heading, *repeats, note, end = done.stdout.splitlines()
    assert (title, note) == ("Track | t/box", DATA_NOTE)
    assert heading == "Repeats: runs, the improvement that they promise, what they settle"
    assert end == "added to the queue: 6" and "\x1b" not in done.stdout
    line = re.compile(r"  [1-6] x [0-9a-f]{8} promise [0-9.e-]+, (how good the|whether it) .+ \| idea \d+ \[2J")
    assert all(line.fullmatch(repeat) for repeat in repeats)
    items = json.loads((knowledge / "queue.json").read_text())["items"]
    seeds = {card: [item["seed"] for item in items if item["replicates"] == card] for card in ids(items)}
    assert all(found == list(range(43, 43 + len(found))) for found in seeds.values())
    expected = {"status": "pending", "mode": "replicate", "track": "t/box", "category": "optimizer", "priority": 3}
    for item in items:
        assert item.items() >= expected.items()
        assert item["description"].startswith(f"repeat of {item['replicates']} with seed {item['seed']}: idea ")
        assert int(item["commit"], 16) == int(item["replicates"], 16) and item["why"]
    again = commons(knowledge, "--budget", "6")
    assert (again.returncode, again.stdout) == (0, "nothing to add: 6 repeats in the queue already\n")
    assert commons(knowledge, "--budget", "9").stdout.endswith(
        "\n6 repeats in the queue already\nadded to the queue: 3\n"
    )
    items = json.loads((knowledge / "queue.json").read_text())["items"]
    assert len(items) == len({(item["replicates"], item["seed"]) for item in items}) == 9


def ids(items):
    return {item["replicates"] for item in items}


def test_a_dry_run_adds_nothing(knowledge):
    done = commons(knowledge, "--budget", "3", "--dry-run")
    assert done.stdout.endswith("\nnothing is added to the queue (--dry-run)\n")
    found = json.loads(commons(knowledge, "--budget", "3", "--dry-run", "--json").stdout)
    assert sum(repeat["runs"] for repeat in found["repeats"]) == len(found["items"]) == 3
    assert found["track"] == "t/box"
    assert not (knowledge / "queue.json").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--budget", "3"), 0, "nothing to add: no repeat is worth its run\n"),
        ((), 2, "error: the following arguments are required: --budget (see `commons.py sweep-confirm --help`)\n"),
        (
            ("--budget", "0"), 2,
            "error: argument --budget: '0' is not a whole number from 1 to 999999999 (see `commons.py sweep-confirm "
            "--help`)\n",
        ),
    ],
)  # fmt: skip
def test_an_empty_commons_and_a_wrong_budget(tmp_path, arguments, code, said):
    done = commons(tmp_path, *arguments)
    assert (done.returncode, done.stdout + done.stderr) == (code, said)


def test_a_damaged_queue_stops_it(knowledge):
    (knowledge / "queue.json").write_text("{")
    done = commons(knowledge, "--budget", "2")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {knowledge / 'queue.json'} is not JSON (")
