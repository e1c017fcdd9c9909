"""Where a track stands: the numbers from real commons, a real night replayed, pins, and `director.py strategy`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.cards import add_card, join
from lab.errors import LabError, SettingError, StoreError
from lab.index import Index
from lab.ledger import import_file
from lab.queue import add_to_queue
from lab.schema import STRATEGIES
from lab.settings import Settings
from lab.situation import ALL, load_pins, numbers, pin, strategy_of

ROOT = Path(__file__).parent.parent
REAL = ROOT.parent / "shared" / "data" / "results-h100-mar8.tsv"
# Thirty runs at a noise of 0.001, in ten-thousandths: the last was kept, and others are as good or better for all one
# can tell.
NIGHT = (
    10013, 10020, 9986, 10007, 9963, 9978, 10004, 9971, 10029, 9983, 9964, 9983, 9980, 9989, 9943,
    9952, 10002, 9988, 9975, 9943, 10006, 9947, 9960, 9947, 9976, 9948, 9977, 9955, 9948, 9939,
)  # fmt: skip
NEAR, FAR = 0.0003, 0.02
COMMAND = "import sys\nfrom lab.cli import main\nsys.exit(main('director.py', 'x', {'strategy': 'lab.cli_strategy'}, "


class Track:
    """A track that grows by one run a second; ids are 000000000001, ..."""

    def __init__(self, knowledge, track="t"):
        self.knowledge, self.track, self.runs, self.best = knowledge, track, 0, 1.0

    def run(self, status, delta=None, **values):
        """Add a run that is so much worse than the champion; a kept one is the next champion. Its id."""
        self.runs += 1
        name = f"{self.runs:012x}"
        result = None if delta is None else self.best + delta
        about = {
            "id": name, "timestamp": f"2026-01-31T12:{self.runs // 60:02d}:{self.runs % 60:02d}.000Z", "status": status,
            "results": {"val_bpb": result, "delta": delta}, "track": self.track, "preset": "gpu",
            "edit_key": f"edit {self.runs}",
        }  # fmt: skip
        if status == "crash":
            about["error"] = {"kind": "oom", "phase": "train", "summary": "out of memory", "tail": []}
        add_card(self.knowledge, about | values)
        if status == "keep":
            self.best = result
        return name

    def baseline(self):
        return self.run("keep", 0.0)

    def ideas(self, times, status="revert", delta=FAR):
        return [self.run(status, None if status == "crash" else delta) for _ in range(times)]

    def say(self, card, kind, **fields):
        with Index(self.knowledge) as index:
            join(self.knowledge, index.read(card), kind, fields)

    def numbers(self, settings=None):
        with Index(self.knowledge) as index:
            return numbers(index, self.track, settings or Settings())

    def choice(self):
        with Index(self.knowledge) as index:
            return strategy_of(index, self.track)

    def mode(self):
        return self.choice().mode


@pytest.fixture
def track(tmp_path):
    return Track(tmp_path / "knowledge")


# The modes, end to end.


def test_without_runs_and_without_a_champion_one_explores(track):
    track.knowledge.mkdir()
    choice = track.choice()
    assert (choice.mode, choice.reason) == ("explore", "no champion yet, runs so far: 0; the baseline comes first")
    track.ideas(7, "crash")
    choice = track.choice()
    assert (choice.mode, choice.reason) == ("explore", "no champion yet, runs so far: 7; the baseline comes first")
    with Index(track.knowledge) as index:
        assert strategy_of(index, None).mode == "explore"
    track.baseline()
    found = track.numbers()
    assert (found.champion, found.recent, found.since_keep, found.runs) == (True, 0, 0, 8)  # earlier ones were no ideas


def test_crashes_ask_for_small_steps(track):
    track.baseline()
    track.ideas(4)
    track.ideas(5, "crash")
    assert track.choice().conservative
    track.ideas(1)
    assert (track.mode(), track.numbers().crashes) == ("explore", 5)
    track.ideas(1, "crash")
    assert (track.choice()[:2], track.numbers().crashes) == (("exploit", True), 6)


def test_a_plateau_combines_its_near_misses_or_takes_things_out(track):
    track.baseline()
    track.ideas(7)
    track.ideas(2, delta=NEAR)
    track.ideas(3, "crash")  # of these nothing is known: no evidence for a plateau
    assert (track.mode(), track.numbers().since_keep) == ("explore", 9)
    track.ideas(1)
    assert (track.mode(), track.numbers().near_misses) == ("combine", 2)
    track.ideas(8)
    assert (track.mode(), track.numbers().near_misses) == ("ablation", 1)  # of late
    track.ideas(1, "keep", -0.01)
    assert (track.mode(), track.numbers().since_keep) == ("explore", 0)


def test_gains_are_followed(track):
    track.baseline()
    track.ideas(7)
    track.ideas(3, "keep", -0.01)
    assert (track.mode(), track.numbers().keeps) == ("explore", 3)
    track.ideas(1, "keep", -0.01)
    assert (track.choice()[:2], track.numbers().keeps) == (("exploit", False), 4)


def test_claims_that_nobody_has_settled_are_repeated_until_enough_repeats_wait(track):
    kept = 20_000
    for result in NIGHT:
        status = "keep" if result < kept else "revert"
        track.run(status, result / 10_000 - track.best)
        kept = min(kept, result)
    choice = track.choice()
    assert choice.mode == "replicate" and choice.numbers.repeat_worth > 1
    items = [{"description": "again", "replicates": f"{30:012x}", "seed": seed} for seed in range(100, 130)]
    add_to_queue(track.knowledge, items)
    again = track.choice()
    assert again.mode == "explore" and again.numbers.repeat_worth < 1


# What is an idea.


def test_repeats_are_no_new_ideas(track):
    track.baseline()
    (missed, *_) = track.ideas(9, delta=0.0)
    for _ in range(10):
        track.run("keep", 0.0, edit_key="edit 1", seed=track.runs)  # "a repeat of the champion": kept
        track.run("revert", FAR, edit_key="edit 3", seed=track.runs)
        track.run("crash", edit_key="edit 4")
    found = track.numbers()
    assert (found.runs, found.recent, found.crashes, found.keeps, found.since_keep) == (40, 9, 0, 0, 9)
    assert missed == f"{2:012x}" and found.near_misses == 9


def test_a_gain_that_a_second_look_shows_is_a_gain_of_that_time(track):
    track.baseline()
    track.ideas(6)
    track.run("inconclusive", 0.0, edit_key="x")
    track.ideas(4)
    assert track.numbers()[5:7] == (11, 1)
    track.run("keep", -0.001, edit_key="x", seed=43)
    found = track.numbers()
    assert (found.recent, found.keeps, found.since_keep, found.near_misses) == (10, 1, 0, 0)


def test_what_crashed_first_is_new_when_it_runs(track):
    track.baseline()
    track.run("crash", edit_key="x")
    track.run("revert", FAR, edit_key="x")
    assert track.numbers()[2:6] == (2, 1, 0, 1)


def test_retracted_suspect_and_interrupted_runs_take_no_part(track):
    track.baseline()
    wrong = track.ideas(3, "keep", -0.01)
    error = {"kind": "interrupted", "phase": "train", "summary": "Ctrl-C", "tail": []}
    for _ in range(9):
        track.run("crash", error=error)
        track.run("revert", 0.0, quarantined="half the usual speed")
    for card in wrong:
        track.say(card, "retract", reason="a leak")
    assert track.numbers()[:7] == (10, True, 0, 0, 0, 0, 0)
    assert track.mode() == "explore"


def test_a_track_is_judged_by_its_own_runs(track):
    Track(track.knowledge, "other").ideas(30, "crash")
    track.runs = 30
    track.baseline()
    assert track.numbers()[:4] == (1, True, 0, 0)


def test_long_ago_is_known_too(track):
    """The baseline and what was kept are known when more runs came after them than are looked at."""
    track.baseline()
    track.ideas(1, "keep", -0.01)
    settings = Settings(recent_runs=300)
    track.ideas(210)
    track.run("keep", 0.0, edit_key="edit 1")
    track.run("keep", 0.0, edit_key="edit 2")
    found = track.numbers()
    assert (found.runs, found.recent, found.keeps, found.since_keep) == (214, 10, 0, 198)
    assert track.numbers(settings)[2:6] == (211, 0, 1, 210)


@pytest.mark.parametrize("direction", ["min", "max"])
def test_near_is_within_noise_or_as_it_is_set(track, direction):
    sign = 1 if direction == "min" else -1
    track.run("keep", 0.0, direction=direction)
    for worse in (0.0006, 0.0008, 0.0021):
        track.run("revert", sign * worse, direction=direction)
    found = track.numbers()
    assert found.near_misses == 1 and found.margin == pytest.approx(0.0005 * 2**0.5, rel=0.1)
    for margin, near in ((0.0007, 1), (0.001, 2), (0.01, 3)):
        found = track.numbers(Settings(near_miss=margin))
        assert (found.near_misses, found.margin) == (near, margin)


def test_where_noise_is_unknown_near_is_two_thousandths(track):
    track.best = 0.0
    track.run("keep", 0.0)
    found = track.numbers()
    assert (found.champion, found.margin, found.repeat_worth) == (True, 0.002, None)


def test_settings_of_the_project_decide(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.autoresearch]\nplateau_runs = 2\n")
    track = Track(tmp_path / "knowledge")
    track.baseline()
    track.ideas(2)
    assert track.mode() == "ablation"
    (tmp_path / "pyproject.toml").write_text("[tool.autoresearch]\nplateau_runs = 0\n")
    with pytest.raises(SettingError, match=r"plateau_runs = 0 is not allowed; it must be a whole number, 1 or more"):
        track.mode()


@pytest.mark.skipif(not REAL.exists(), reason="the real ledger is not here")
def test_a_real_night_begins_with_gains_and_comes_to_plateaus(tmp_path):
    """126 runs: eight of the first ten ideas were kept; of the 25 up to the 66th none, and many were near misses."""
    lines = REAL.read_text().splitlines(keepends=True)
    modes = {}
    for runs in (1, 11, 26, 66, 126):
        ledger = tmp_path / f"{runs}.tsv"
        ledger.write_text("".join(lines[: runs + 1]))
        import_file(tmp_path / str(runs), ledger)
        with Index(tmp_path / str(runs)) as index:
            (name,) = {row["track"] for row in index.rows("SELECT track FROM cards")}
            modes[runs] = strategy_of(index, name).mode
    assert modes == {1: "explore", 11: "exploit", 26: "explore", 66: "combine", 126: "explore"}


# Pins.


def test_a_pin_holds_until_it_is_taken_away(track):
    track.baseline()
    history = track.choice()
    pin(track.knowledge, ALL, "combine")
    pin(track.knowledge, "t", "ablation", by="me")
    choice = track.choice()
    assert choice == history._replace(mode="ablation", pinned=True, reason=choice.reason)
    assert choice.reason == f"pinned; the history says explore: {history.reason}"
    pin(track.knowledge, "t", None)
    assert track.choice()[0] == "combine"
    pin(track.knowledge, "other", "exploit")
    pin(track.knowledge, ALL, None)
    assert track.choice() == history
    assert [(name, entry["mode"], entry["by"]) for name, entry in load_pins(track.knowledge).items()] == [
        ("other", "exploit", None)
    ]


def test_what_another_version_added_to_the_pins_stays(tmp_path):
    path = tmp_path / "strategy.json"
    path.write_text(json.dumps({"schema": 1, "more": 1, "pinned": {"a": {"mode": "explore", "until": "noon"}}}))
    pin(tmp_path, "b", "exploit")
    content = json.loads(path.read_text())
    assert (content["more"], content["pinned"]["a"]) == (1, {"mode": "explore", "until": "noon"})
    assert list(content["pinned"]) == ["a", "b"]


def test_processes_that_pin_at_once_lose_nothing(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom lab.situation import pin\nfor number in range(20):\n"
        "    pin(Path(sys.argv[1]), f'{sys.argv[2]}{number}', 'combine')\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name], cwd=ROOT) for name in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert set(load_pins(tmp_path)) == {f"{name}{number}" for name in "ab" for number in range(20)}


REMEDY = "; mend it or move it away: it holds what `director.py strategy --set` pinned"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", " is not JSON (Expecting value: line 1 column 1 (char 0))"),
        ("[1]", " holds a list where an object belongs"),
        ('{"schema": 2, "pinned": {}}', " has schema 2, this version reads 1"),
        ('{"pinned": {}}', " has schema None, this version reads 1"),
        ('{"schema": 1}', ": pinned is no object"),
        ('{"schema": 1, "pinned": []}', ": pinned is no object"),
        ('{"schema": 1, "pinned": {"t": null}}', ": pinned['t'] has no mode of " + ", ".join(STRATEGIES)),
        ('{"schema": 1, "pinned": {"t": {"mode": []}}}', ": pinned['t'] has no mode of " + ", ".join(STRATEGIES)),
        ('{"schema": 1, "pinned": {"t": {"mode": "sleep"}}}', ": pinned['t'] has no mode of " + ", ".join(STRATEGIES)),
    ],
)
def test_pins_that_cannot_be_used_are_an_error_and_stay(tmp_path, content, what):
    path = tmp_path / "strategy.json"
    path.write_text(content)
    for use in (lambda: load_pins(tmp_path), lambda: pin(tmp_path, "t", "explore")):
        with pytest.raises(StoreError) as raised:
            use()
        assert str(raised.value) == f"{path}{what}{REMEDY}"
    assert path.read_text() == content


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["schema", "pinned", "mode"]), inner),
    max_leaves=6,
)


@given(content=PLAIN | st.fixed_dictionaries({"schema": st.just(1), "pinned": PLAIN}))
def test_any_pins_are_read_or_refused_in_one_line(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("pins")
    (folder / "strategy.json").write_text(json.dumps(content))
    try:
        assert all(entry["mode"] in STRATEGIES for entry in load_pins(folder).values())
    except LabError as error:
        assert "\n" not in str(error)


# The command.


def strategy(knowledge, *arguments):
    """(exit code, stdout, stderr) of `director.py strategy`."""
    code = f"{COMMAND}sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "strategy", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env=os.environ | {"KNOWLEDGE_DIR": str(knowledge), "AUTORESEARCH_AGENT": "an agent\x1b[2J"},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_the_command_tells_the_mode_its_reason_and_its_numbers(track):
    track.baseline()
    track.ideas(10)
    track.ideas(1, delta=NEAR)
    code, out, error = strategy(track.knowledge)
    assert (code, error) == (0, "")
    lines = out.splitlines()
    margin = f"{track.numbers().margin:.2g}"
    assert lines == [
        "Track | t",
        "mode: ablation",
        f"  plateau: new ideas since a gain was last kept: 11; near misses, within {margin} of the champion, among the "
        "last 10: 1; find out what the champion can do without",
        "  12 runs; the last 10 new ideas: 0 kept, 0 crashed",
        "  since a gain was last kept: 11 new ideas",
        f"  near misses of late, within {margin} of the champion: 1",
        lines[-1],
    ]
    assert lines[-1].startswith("  what the best repeat promises: 0")
    found = json.loads(strategy(track.knowledge, "--json")[1])
    assert (found["track"], found["mode"], found["pinned"], found["pin"]) == ("t", "ablation", False, None)
    assert found["numbers"] == track.numbers()._asdict() and found["history"]["mode"] == "ablation"


def test_the_command_pins_and_takes_away(track):
    track.baseline()
    code, out, error = strategy(track.knowledge, "--set", "combine")
    lines = out.splitlines()
    assert (code, error, len(lines)) == (0, "", 9)
    assert lines[1].startswith("mode: combine") and lines[2].startswith("  pinned; the history says explore: among the")
    assert lines[-2].startswith("pinned, by and since | an agent") and "\x1b" not in out
    assert lines[-1] == "pinned for the track: combine; the history says explore"
    out = strategy(track.knowledge, "--set", "replicate", "--track", "*")[1]
    assert out.splitlines()[-1] == "pinned for all tracks: replicate; the history says explore"
    assert out.splitlines()[1] == "mode: combine"  # the track's own goes first
    ends = [strategy(track.knowledge, "--reset")[1].splitlines() for _ in range(3)]
    assert [(lines[1], lines[-1]) for lines in ends] == [
        ("mode: replicate", "no longer pinned for the track"),
        ("mode: explore", "no longer pinned for all tracks"),
        ("mode: explore", "nothing was pinned"),
    ]


def test_in_an_empty_commons_a_pin_is_for_all_tracks(tmp_path):
    code, out, _ = strategy(tmp_path, "--set", "exploit")
    assert code == 0 and out.splitlines()[:2] == ["Track | none yet", "mode: exploit"]
    assert list(load_pins(tmp_path)) == ["*"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "explore", "--reset"), "error: --set and --reset exclude each other; give one of them\n"),
        (("--track", "moon"), "error: --track 'moon' is none of the tracks: t\n"),
        (("--set", "sleep"), "error: argument --set: invalid choice: 'sleep'"),
    ],
)
def test_bad_arguments_change_nothing(track, arguments, message):
    track.baseline()
    code, out, error = strategy(track.knowledge, *arguments)
    assert (code, out) == (2, "") and error.startswith(message) and error.count("\n") == 1
    assert load_pins(track.knowledge) == {}


def test_pins_that_cannot_be_read_are_one_line(track):
    track.baseline()
    (track.knowledge / "strategy.json").write_text("{")
    code, out, error = strategy(track.knowledge)
    assert (code, out, error.count("\n")) == (2, "", 1) and error.endswith(REMEDY + "\n")
