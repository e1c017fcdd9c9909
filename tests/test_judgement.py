"""What is believed of a track, asked of its commons: kept until a card changes, from a window of its runs."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from lab.cards import add_card, join
from lab.facts import champion, track_noise
from lab.index import Index
from lab.judgement import KEPT, RECENT, challengers, evidence, findings, judgement, transfer
from lab.schema import complete, validate_card
from lab.store import dump_json

ROOT = Path(__file__).parent.parent


def name(number):
    """The id of the run of this number."""
    return f"{number:016x}"


def run(number, result, status="revert", track="t", edit=None, parent=None, **values):
    """A card: the run of this number, of an edit made from run `parent`."""
    when = f"2026-01-{1 + number // 86400:02d}T{number // 3600 % 24:02d}:{number // 60 % 60:02d}:{number % 60:02d}.000Z"
    card = {"id": name(number), "timestamp": when, "status": status, "track": track, "seed": number,
            "results": {"val_bpb": result}, "edit_key": f"edit {number if edit is None else edit}",
            "hypothesis": f"idea {number if edit is None else edit}"}  # fmt: skip
    if parent is not None:
        card["decision"] = {"status": status, "reason": "x", "champion": name(parent)}
    return complete(card | values)


def fill(knowledge, cards):
    """A commons with these cards, written faster than one by one."""
    (knowledge / "cards").mkdir(parents=True, exist_ok=True)
    for card in cards:
        validate_card(card)
        (knowledge / "cards" / f"{card['id']}.json").write_bytes(dump_json(card))


TRACK = [run(number, 1.0 + away, "keep", edit=1) for number, away in enumerate((-6e-4, 5e-4, 2e-4, -4e-4), 1)] + [
    run(5, 0.990, "keep", parent=1), run(6, 0.9902, edit=5, parent=1), run(7, 0.9905, parent=5),
    run(8, 1.002, parent=5), run(9, None, "crash"), run(10, 0.9895, "inconclusive", parent=5),
]  # fmt: skip


@pytest.fixture
def knowledge(tmp_path):
    fill(tmp_path / "knowledge", TRACK)
    return tmp_path / "knowledge"


def ask(knowledge, question, *arguments, **options):
    """Ask a question of an index that is opened for it."""
    with Index(knowledge) as index:
        return question(index, *arguments, **options)


def believed(knowledge):
    """The belief of the track without anything that was kept."""
    with Index(knowledge) as index:
        index.made.clear()
        index.rows("DELETE FROM derived RETURNING name")
        return judgement(index, "t")


def kept(knowledge):
    """How many beliefs the index keeps."""
    return ask(knowledge, lambda index: len(index.rows("SELECT * FROM derived")))


# Kept until something changes.


def test_what_is_kept_is_what_would_be_found_anew(knowledge):
    fresh = ask(knowledge, judgement, "t")
    assert fresh.champion == name(5) and kept(knowledge) == 1
    assert ask(knowledge, judgement, "t") == fresh == believed(knowledge)
    with Index(knowledge) as index:
        assert judgement(index, "t") is judgement(index, "t")  # read once


def test_another_process_reads_what_was_kept(knowledge):
    fresh = ask(knowledge, judgement, "t")
    code = (
        "import json, sys; from pathlib import Path; from lab.index import Index; from lab.judgement import *\n"
        "import lab.judgement; lab.judgement.believe = None  # it need not be found anew\n"
        "with Index(Path(sys.argv[1])) as index: print(json.dumps(as_json(judgement(index, 't'))))"
    )
    command = [sys.executable, "-c", code, str(knowledge)]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert json.loads(out) == json.loads(json.dumps(fresh))


def test_a_new_card_makes_it_anew(knowledge):
    before = ask(knowledge, judgement, "t")
    add_card(knowledge, run(20, 0.98, "keep", parent=5))
    after = ask(knowledge, judgement, "t")
    assert after.champion == name(20) and len(after.nodes) == len(before.nodes) + 1
    assert after == believed(knowledge)


def test_a_card_that_comes_while_the_index_is_open_makes_it_anew(knowledge):
    with Index(knowledge) as index:
        judgement(index, "t")
        index.remember("other", "x", "1")
        add_card(knowledge, run(20, 0.98, "keep", parent=5))  # by an index of its own
        index.refresh()
        assert judgement(index, "t").champion == name(20)
        assert index.recall("other", "x") is None


@pytest.mark.parametrize(
    ("kind", "fields", "best"),
    [("retract", {"reason": "a leak"}, 1), ("annotate", {"lesson": "fine"}, 5), ("decide", {"status": "revert"}, 1)],
)
def test_an_event_makes_it_anew(knowledge, kind, fields, best):
    before = ask(knowledge, judgement, "t")
    with Index(knowledge) as index:
        join(knowledge, index.read(name(5)), kind, fields)
    after = ask(knowledge, judgement, "t")
    assert after.champion == name(best) and after == believed(knowledge)
    assert (after == before) == (kind == "annotate")


def test_somebody_confirms_a_suspect_run(knowledge):
    add_card(knowledge, run(20, 0.98, "keep", parent=5, quarantined="slow"))
    assert ask(knowledge, judgement, "t").champion == name(5)
    with Index(knowledge) as index:
        join(knowledge, index.read(name(20)), "confirm", {})
    assert ask(knowledge, judgement, "t").champion == name(20)


def test_a_card_of_another_track_makes_it_anew(knowledge):
    before = ask(knowledge, judgement, "t")
    ask(knowledge, judgement, "t")
    for number in range(100, 140):
        results = {"val_bpb": 1.0, "delta": -0.004}
        add_card(knowledge, run(number, None, "keep", track="other") | {"results": results})
    after = ask(knowledge, judgement, "t")
    assert after == believed(knowledge) and after.effects != before.effects  # what edits do there is told here
    assert (set(after.nodes), after.noise.basis) == (set(before.nodes), before.noise.basis)


def test_the_noise_that_is_set_makes_it_anew(tmp_path):
    project = tmp_path / "project"
    knowledge = project / "knowledge"
    fill(knowledge, [run(1, 1.0, "keep"), run(2, 0.99)])
    assert ask(knowledge, track_noise, "t").sd == pytest.approx(0.001, rel=0.3)
    (project / "pyproject.toml").write_text("[tool.autoresearch]\nnoise = 0.02\n")
    assert ask(knowledge, track_noise, "t").sd == pytest.approx(0.02, rel=0.3)
    assert ask(knowledge, judgement, "t") == believed(knowledge)


def test_a_commons_that_cannot_be_written_is_judged_all_the_same(knowledge):
    fresh = ask(knowledge, judgement, "t")
    with Index(knowledge) as index:
        index.rows("DELETE FROM derived RETURNING name")
        index._db.execute("PRAGMA query_only = 1")
        assert judgement(index, "t") == fresh
        assert index.recall("belief t", "0.0 False") is None
    for file in knowledge.glob("index.sqlite*"):
        file.unlink()
    (knowledge / "index.sqlite").mkdir()  # so that there is no file to write to
    assert ask(knowledge, judgement, "t") == fresh


def test_nothing_to_judge(tmp_path):
    knowledge = tmp_path / "knowledge"
    for question in (judgement, challengers, findings, evidence):
        assert not ask(knowledge, question, "t") and not ask(knowledge, question, None)
    assert ask(knowledge, transfer) == [] and not knowledge.exists()
    fill(knowledge, [run(1, None, "crash"), run(2, 0.0, "keep", track="zero"), run(3, 0.0, track="zero")])
    for track in ("t", "zero"):
        for _ in range(2):  # that nothing can be said is kept too
            assert ask(knowledge, judgement, track) is None
            assert ask(knowledge, challengers, track) == ask(knowledge, findings, track) == []
    assert ask(knowledge, champion, "zero")["id"] == name(2) and ask(knowledge, champion, "t") is None


# The runs it rests on.


def test_runs_of_another_metric_are_left_out(knowledge):
    other = {"metric": "loss", "direction": "max", "results": {"loss": 5.0}}
    assert len(ask(knowledge, evidence, "t")) == 9
    add_card(knowledge, run(20, None, "keep") | other)
    assert len(ask(knowledge, evidence, "t")) == 9  # one stray card does not turn the track over
    assert ask(knowledge, judgement, "t").direction == "min" and ask(knowledge, champion, "t")["metric"] == "val_bpb"
    for number in range(21, 30):
        add_card(knowledge, run(number, None, "keep") | other)
    assert [row["id"] for row in ask(knowledge, evidence, "t")] == [name(number) for number in range(20, 30)]
    assert ask(knowledge, judgement, "t").direction == "max"


def test_equal_times_leave_the_same_window_in_whatever_order_the_cards_came(tmp_path):
    cards = [run(n, 1.0 + n % 7 / 1000, "keep" if n % 50 == 1 else "revert", timestamp="2026-01-01T00:00:00.000Z")
             for n in range(1, 401)]  # fmt: skip
    windows = []
    for place, order in enumerate((cards, cards[::-1])):
        knowledge = tmp_path / str(place)
        for half in (order[:200], order[200:]):  # as two merges would bring them
            fill(knowledge, half)
            (knowledge / "cards").touch()
            windows.append([row["id"] for row in ask(knowledge, evidence, "t")])
    assert windows[1] == windows[3] and len(windows[1]) < 400


def long_track(runs=1000, seed=3):
    """A track of a thousand runs, kept where they beat the best kept before by enough; some of them repeats."""
    chance, best, truth, parent, cards = random.Random(seed), 1.0, 1.0, None, []
    for number in range(1, runs + 1):
        if parent is not None and number % 9 == 0:
            cards.append(run(number, chance.gauss(truth, 0.001), edit=parent))
            continue
        effect = -chance.expovariate(700) if chance.random() < 0.1 else chance.choice([0, chance.expovariate(300)])
        result = chance.gauss(truth + effect, 0.001)
        gained = number == 1 or result < best - 0.0005
        cards.append(run(number, result, "keep" if gained else "revert", parent=parent))
        if gained:
            best, truth, parent = result, truth + effect, number
    return cards


def test_a_window_of_a_long_track_says_about_what_all_of_it_says(tmp_path):
    cards = long_track()
    fill(tmp_path / "knowledge", cards)
    with Index(tmp_path / "knowledge") as index:
        window, whole = evidence(index, "t"), evidence(index, "t", everything=True)
        some, every = judgement(index, "t"), judgement(index, "t", everything=True)
    assert len(whole) == 1000 and RECENT < len(window) <= RECENT + 3 * KEPT
    ids = {row["id"] for row in window}
    assert ids >= {card["id"] for card in cards[-RECENT:]}
    ours = {row["edit_key"] for row in window if row["status"] == "keep"}
    assert ids >= {card["id"] for card in cards if card["edit_key"] in ours}  # with all their repeats
    assert window == sorted(window, key=lambda row: (row["timestamp"], row["id"]))
    assert some.noise.sd == pytest.approx(every.noise.sd, rel=0.1) and 0.0008 < some.noise.sd < 0.0014
    (mean, sd), (whole_mean, whole_sd) = (belief.value(belief.champion) for belief in (some, every))
    assert mean == pytest.approx(whole_mean, abs=whole_sd) and sd == pytest.approx(whole_sd, rel=0.5)
    for away in (-0.003, 0.0, 0.003):
        one, other = (belief.verdict(whole_mean + away, belief.champion) for belief in (some, every))
        assert one.better == pytest.approx(other.better, abs=0.2)


@pytest.mark.parametrize("direction", ["min", "max"])
def test_the_best_runs_are_in_the_window_however_old(tmp_path, direction):
    sign = 1 if direction == "min" else -1
    cards = [run(number, sign * (1.0 + number * 1e-5), "keep" if number < 400 else "revert", direction=direction)
             for number in range(1, 701)]  # fmt: skip
    fill(tmp_path / "knowledge", cards)
    ids = {row["id"] for row in ask(tmp_path / "knowledge", evidence, "t")}
    assert ids >= {name(number) for number in (*range(1, KEPT + 1), *range(300, 400), *range(501, 701))}
    assert name(200) not in ids and name(450) not in ids


# Challengers and findings.


def test_challengers(knowledge):
    rows = ask(knowledge, challengers, "t")
    assert rows[0]["id"] == name(10) and len(rows) == 4
    chances = [row["probability"] for row in rows]
    assert chances == sorted(chances, reverse=True) and 0 < chances[0] < 1
    first = rows[0]
    assert (first["result"], first["status"], first["hypothesis"]) == (0.9895, "inconclusive", "idea 10")
    assert first["expected_sd"] > 0 and first["repeat_pays"] > 0 and first["runs"] == 1
    belief = ask(knowledge, judgement, "t")
    assert first["probability"] == belief.verdict(None, name(5), belief.nodes[name(10)]).better
    assert [row["id"] for row in ask(knowledge, challengers, "t", limit=2)] == [row["id"] for row in rows[:2]]


def test_without_a_champion_there_are_no_challengers(tmp_path):
    fill(tmp_path / "knowledge", [run(1, 1.0), run(2, 0.9)])
    assert ask(tmp_path / "knowledge", challengers, "t") == []


def test_findings(knowledge):
    found = ask(knowledge, findings, "t")
    assert [(one.card, one.change, one.standing, one.fresh) for one in found] == [(name(5), "idea 5", "likely", 1)]
    add_card(knowledge, run(20, 0.9898, edit=5, parent=1))
    add_card(knowledge, run(21, 1.0015, edit=8, parent=5))
    found = ask(knowledge, findings, "t")
    assert [(one.card, one.standing, one.fresh) for one in found] == [
        (name(5), "confirmed", 2),
        (name(8), "unclear", 1),
    ]
    assert found[0].expected < 0 < found[1].expected  # the largest gain first
    assert [one.card for one in ask(knowledge, findings, "t", limit=1)] == [name(5)]


def test_a_change_is_named_by_its_values(knowledge):
    add_card(knowledge, run(20, 0.985, "keep", parent=5, config_diff={"LR": [0.04, 0.05], "DEPTH": [8, 10]}))
    assert ask(knowledge, findings, "t")[0].change in ("DEPTH 8 to 10, LR 0.04 to 0.05", "idea 5")
    assert "DEPTH 8 to 10, LR 0.04 to 0.05" in [one.change for one in ask(knowledge, findings, "t")]


def test_transfer(tmp_path):
    knowledge = tmp_path / "knowledge"
    change = {"config_diff": {"DEPTH": [8, 10]}}
    for place, (track, result) in enumerate([("a/H100", 0.99), ("a/cpu", 0.991), ("a/M4", 1.0002)]):
        first = 100 * place
        fill(knowledge, [
            run(first + 1, 1.0, "keep", track=track), run(first + 2, 1.0003, track=track, edit=first + 1),
            run(first + 3, result, "keep", track=track, parent=first + 1, **change),
        ])  # fmt: skip
    (one,) = ask(knowledge, transfer)
    assert (one.change, one.holds, one.tried, one.tracks) == ("DEPTH 8 to 10", 2, 3, 3)
    assert one.effect < 0 and one.probability > 0.5


def test_of_more_tracks_than_are_asked_every_clone_asks_the_same(tmp_path):
    """Cards that came in another order make no other belief."""
    cards = [run(1, 1.0, "keep"), run(2, 0.9985, parent=1)]
    for number in range(60):
        results = {"val_bpb": 1.0, "delta": -0.004 if number % 2 else 0.004}
        cards.append(run(100 + number, None, track=f"other {number}") | {"results": results})
    fill(tmp_path / "one", cards)
    for card in reversed(cards):
        fill(tmp_path / "other", [card])
        if card["track"] == "other 0" or card["id"] == name(2):
            ask(tmp_path / "other", judgement, "t")
    assert ask(tmp_path / "one", judgement, "t") == ask(tmp_path / "other", judgement, "t")


# What keeps failing.


def test_challengers_lists_the_crashes_that_say_the_same_twice_or_more(knowledge):
    error = {"kind": "oom", "phase": "train", "summary": "", "tail": []}
    said = ("tried 2 GiB", "tried 33 GiB", "gone", "tried 4 GiB")
    fill(knowledge, [run(20 + n, None, "crash", error=error | {"summary": text}) for n, text in enumerate(said)])
    command = [sys.executable, "commons.py", "challengers", "--json", "--knowledge-dir", str(knowledge)]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert json.loads(out)["failures"] == [{"times": 3, "kind": "oom", "summary": "tried 4 GiB", "id": name(23)}]


def test_a_line_of_work_goes_back_to_the_baseline(knowledge):
    belief = ask(knowledge, judgement, "t")
    assert belief.line(name(7)) == [name(7), name(5), name(1)]
    assert belief.by_run()[name(6)] is belief.nodes[name(5)]  # another run of its edit
