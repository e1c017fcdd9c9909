"""`commons.py report`: which runs belong to it, what it finds in a commons, and the files it writes."""

import json
import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from lab.cards import add_card, join
from lab.cli_report import since_when
from lab.errors import SettingError
from lab.index import Index
from lab.morning import gather
from lab.report import report
from lab.schema import complete
from lab.store import dump_json

ROOT = Path(__file__).parent.parent
NOW = "2026-01-31T12:00:00.000Z"
NIGHT = "2026-01-31T00:00:00.000Z"
MAIN = (
    "import sys; from lab.cli import main; sys.exit(main('commons.py', '', {'report': 'lab.cli_report'}, sys.argv[1:]))"
)
TRACK = "t/H100"


def card(number, status="revert", result=None, delta=None, **values):
    """The card of run `number`, one every five minutes since midnight."""
    when = datetime(2026, 1, 31, tzinfo=timezone.utc) + timedelta(minutes=5 * number)
    about = {
        "id": f"{number % 2**32:012x}0000", "timestamp": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "track": TRACK, "preset": "gpu", "seed": number, "edit_key": f"edit {number}", "hypothesis": f"idea {number}",
        "platform": {"device": "cuda", "machine": "m"}, "session": "night",
    }  # fmt: skip
    results = {"val_bpb": result, "delta": delta, "total_seconds": 360.0}
    return about | {"status": status, "results": results} | values


def write(tmp_path, *cards):
    """A commons of these cards."""
    for one in cards:
        add_card(tmp_path / "knowledge", one)
    return tmp_path / "knowledge"


def told(knowledge, since=NIGHT, **about):
    """(what was gathered, the report)."""
    with Index(knowledge) as index:
        found = gather(index, since, NOW, **about)
    return found, report(found)


def ask(folder, *arguments, knowledge="knowledge"):
    """The finished command."""
    words = [sys.executable, "-c", MAIN, "report", "--knowledge-dir", folder / knowledge, *arguments]
    return subprocess.run(
        words, cwd=folder, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT), "PATH": ""}
    )


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90m", "2026-01-31T10:30:00.000Z"),
        ("12h", "2026-01-31T00:00:00.000Z"),
        ("2d", "2026-01-29T12:00:00.000Z"),
        ("1w", "2026-01-24T12:00:00.000Z"),
        ("2026-01-30", "2026-01-30T00:00:00.000Z"),
        ("2026-01-30T22:15", "2026-01-30T22:15:00.000Z"),
        ("2026-01-30T22:15:00Z", "2026-01-30T22:15:00.000Z"),
        ("2026-01-30T22:15:00+02:00", "2026-01-30T20:15:00.000Z"),
        ("1970-01-01", "1970-01-01T00:00:00.000Z"),
    ],
)
def test_a_time_is_a_duration_or_a_date_in_utc(text, moment):
    assert since_when(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "12", "-3h", "999999999w", "0001-01-01T00:00:00+10:00", "1.5h"])
def test_what_is_no_time_is_said_in_one_line(text):
    with pytest.raises(SettingError) as error:
        since_when(text, NOW)
    assert str(error.value) == (
        f"--since {text!r} is no time; give a duration such as 90m, 12h, 2d or 1w, or a date in UTC such as "
        "2026-01-31 or 2026-01-31T22:00"
    )


def test_an_empty_commons(tmp_path):
    (tmp_path / "knowledge").mkdir()
    done = ask(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        "The commons has no card yet.\n\n## Next steps\n1. Run the first experiment: `uv run train.py`\n" in done.stdout
    )


def test_runs_before_the_time_are_told_only_as_the_start(tmp_path):
    knowledge = write(tmp_path, card(-50, "keep", 1.0), card(-40, "keep", 0.99), card(5, "keep", 0.98))
    found, text = told(knowledge)
    assert found["status"] == {"keep": 1}
    progress = found["tracks"][0]
    assert (progress["start"]["hypothesis"], progress["champion"]["hypothesis"]) == ("idea -40", "idea 5")
    assert progress["claimed"] == pytest.approx(-0.01)
    assert -0.0105 < progress["expected"] < -0.0085
    assert "- **At the start** the champion: truly about 0.99" in text


def test_the_first_night_begins_at_its_baseline(tmp_path):
    knowledge = write(tmp_path, card(1, "keep", 1.0), card(2, "revert", 1.01, 0.01), card(3, "keep", 0.98))
    assert "- **At the start** the baseline: truly about 1.00" in told(knowledge)[1]


def test_nothing_since(tmp_path):
    knowledge = write(tmp_path, card(-500, "keep", 1.0))
    text = told(knowledge)[1]
    assert "- **No experiment** in this time; the commons has 1 card, the newest from 2026-01-29 06:20 UTC\n" in text
    assert "1. Run an experiment: `uv run train.py`" in text


def test_cards_without_a_time_count_where_they_are_named(tmp_path):
    unknown = [card(n, "keep", 1 - n / 100, timestamp=f"1970-01-01T00:00:00.00{n}Z", session="old") for n in (2, 3)]
    knowledge = write(tmp_path, *unknown, card(1, "keep", 0.95))
    assert told(knowledge)[0]["runs"] == 1
    assert (
        "- 2 cards without a time left out: `--session NAME` or `--since 1970-01-01` has them\n" in told(knowledge)[1]
    )
    assert told(knowledge, session="old")[0]["runs"] == 2
    assert told(knowledge, since=None, session="old")[1].count("Session old. Without times.") == 1
    everything, text = told(knowledge, since="1970-01-01T00:00:00.000Z")
    assert (everything["runs"], everything["left_out"]) == (3, 0)
    assert "From unknown times to 2026-01-31 00:05 UTC." in text


def test_a_session_that_does_not_exist_is_an_error(tmp_path):
    write(tmp_path, card(1, "keep", 1.0))
    done = ask(tmp_path, "--session", "mar9")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: session 'mar9' has no cards; the newest are night\n"


def test_a_track_is_named_by_a_part(tmp_path):
    knowledge = write(tmp_path, card(1, "keep", 1.0), card(2, "keep", 0.9), card(3, "keep", 1.0, track="t/A100"))
    found, text = told(knowledge, track="A100")
    assert (found["runs"], [row["track"] for row in found["tracks"]]) == (1, ["t/A100"])
    assert [row["track"] for row in told(knowledge)[0]["tracks"]] == ["t/H100", "t/A100"]
    assert "## t/A100\n" in text


def test_all_crashes_and_those_that_say_the_same(tmp_path):
    def crash(number, summary, kind="oom"):
        error = {"kind": kind, "phase": "train", "summary": summary, "tail": []}
        packet = {"status": "crash", "reason": "crashed", "action": "fix_and_retry", "priority": 4, "git": "git_reset"}
        return card(number, "crash", error=error, decision=packet)

    knowledge = write(tmp_path, *(crash(n, f"tried to allocate {n} GiB") for n in range(4)), crash(9, "no *x*", "data"))
    found, text = told(knowledge)
    assert [(row["times"], row["kind"]) for row in found["failures"]] == [(4, "oom"), (1, "data")]
    assert [(row["action"], row["times"]) for row in found["waiting"]] == [("fix_and_retry", 4), ("fix_and_retry", 1)]
    assert "- 5 runs, no kept result yet\n" in text
    assert "- 4 times, oom: tried to allocate 3 GiB (`000000000003`)\n- and 1 other error\n" in text
    assert "1. Find out why 4 runs crashed alike (oom): `uv run commons.py show 000000000003`" in text
    join(knowledge, complete(crash(9, "no *x*", "data")), "annotate", {"lesson": "a typo"})
    assert len(told(knowledge)[0]["waiting"]) == 1, "a crash that somebody explained does not wait"


def test_a_decision_waits_until_somebody_acts_upon_it(tmp_path):
    packet = {"status": "inconclusive", "reason": "better than its start", "git": "git_reset", "priority": 4}
    branch = card(3, "inconclusive", 0.999, decision=packet | {"action": "branch_followup"})
    promoted = {"status": "keep", "reason": "a gain", "git": "keep_commit", "priority": 1, "action": "promote"}
    best = card(2, "keep", 0.98, decision=promoted)
    knowledge = write(tmp_path, card(1, "keep", 1.0), best, branch, card(4, "revert", 1.01, decision=packet | {
        "status": "revert", "action": "abandon"}))  # fmt: skip
    waiting = [row for row in told(knowledge)[0]["waiting"] if row["action"] != "replicate"]
    assert [(row["action"], row["id"]) for row in waiting] == [
        ("promote", best["id"]),
        ("branch_followup", branch["id"]),
    ]
    later = packet | {"status": "revert", "action": "abandon", "champion": best["id"]}
    write(tmp_path, card(5, "revert", 1.01, decision=later, prior_knowledge_used=[branch["id"]]))
    assert [row["action"] for row in told(knowledge)[0]["waiting"] if row["action"] != "replicate"] == []


def test_findings_of_this_time_and_what_a_confirmed_gain_costs(tmp_path):
    project = tmp_path / "pyproject.toml"
    project.write_text("[tool.autoresearch]\nprice_per_hour = 2.5\n")
    helps = [card(n, "keep", 0.98 + n % 3 / 1e4, edit_key="better", hypothesis="deeper") for n in range(10, 15)]
    hurts = [card(n, "revert", 1.02 + n % 3 / 1e4, edit_key="worse", hypothesis="wider") for n in range(20, 25)]
    base = [card(n, "keep", 1.0 + n % 3 / 1e4, edit_key="base", hypothesis="baseline") for n in range(4)]
    knowledge = write(tmp_path, *base, *helps, *hurts)
    found, text = told(knowledge)
    assert [row["change"] for row in found["confirmed"]] == ["deeper"]
    assert [row["change"] for row in found["refuted"]] == ["wider"]
    spent = found["spent"]
    assert spent["hours"] == pytest.approx(1.4)
    assert spent["confirmed_gain"] == pytest.approx(0.02, abs=0.001)
    assert spent["hours_per_thousandth"] == pytest.approx(1.4 / (spent["confirmed_gain"] * 1000))
    assert re.search(r"GPU-hours\*\*: 1.4, cost 3.50; per confirmed 0.001 val_bpb: 0.07\d*, cost 0.1\d\n", text)
    assert "- **confirmed** -0.0" in text and "- **refuted** +0.0" in text
    later = told(knowledge, since="2026-01-31T06:00:00.000Z")[0]
    assert (later["confirmed"], later["refuted"]) == ([], []), "settled before this time"


def test_an_idea_that_failed_again(tmp_path):
    tried = [
        card(-9, "revert", 1.05, 0.05, hypothesis="raise the embedding LR to 0.9"),
        card(1, "keep", 1.0, hypothesis="baseline"),
        card(2, "revert", 1.04, 0.04, hypothesis="embedding learning rate 0.6 -> 0.9"),
        card(3, "revert", 1.04, 0.04, hypothesis="lower the embedding LR to 0.3"),
    ]
    found, text = told(write(tmp_path, *tried))
    assert [(row["hypothesis"], row["before"]["id"]) for row in found["again"]] == [
        ("embedding learning rate 0.6 -> 0.9", tried[0]["id"])
    ]
    assert "Have agents ask before they run: 1 idea failed that had failed before" in text


def test_a_suspect_run_is_told_and_takes_no_part(tmp_path):
    knowledge = write(tmp_path, card(1, "keep", 1.0), card(2, "keep", 0.5, quarantined="two jobs | one GPU"))
    found, text = told(knowledge)
    assert found["tracks"][0]["champion"]["result"] == 1.0
    assert "- **2 experiments**: 2 keep; 1 suspect\n" in text
    assert "- 0.500000 `000000000002` two jobs \\| one GPU\n" in text
    assert "1. Decide on the suspect run 000000000002, better than the champion" in text


@pytest.mark.parametrize("values", [(0.0, 0.0), (1e308, -1e308), (-1e308, 1e308), (-1.0, -2.0), (5e-324, 0.0)])
@pytest.mark.parametrize("direction", ["min", "max"])
def test_values_of_any_size_are_told(tmp_path, values, direction):
    cards = [card(n, "keep", value, direction=direction, seed=None) for n, value in enumerate(values)]
    for one in cards:
        one["results"]["total_seconds"] = 1e308
    found, text = told(write(tmp_path, *cards))
    dump_json(found)  # no infinity, no NaN
    assert "- **GPU-hours**: unknown, no run says how long it took\n" in text
    assert "nan" not in text and "inf" not in text


def test_the_way_to_the_champion_and_another_end(tmp_path):
    steps = [
        card(1, "keep", 1.0, commit="1111111"),
        card(2, "keep", 0.98, commit="2222222", parent_commit="1111111", hypothesis="deeper"),
        card(3, "keep", 0.96, commit="3333333", parent_commit="2222222", hypothesis="wider"),
        card(4, "keep", 0.97, commit="4444444", parent_commit="2222222", hypothesis="longer"),
    ]
    for one in steps:
        one["edit_key"] = None
    ways = told(write(tmp_path, *steps))[0]["lineages"]
    assert [(way["hypothesis"], way["steps"], way["shared"]) for way in ways] == [("wider", 2, 0), ("longer", 2, 1)]
    assert sorted(step["hypothesis"] for step in ways[0]["largest"]) == ["deeper", "wider"]
    assert [step["hypothesis"] for step in ways[1]["largest"]] == ["longer"]


def test_two_thousand_runs_are_as_short_as_a_hundred(tmp_path):
    lengths = []
    for runs in (100, 2000):
        folder = tmp_path / str(runs) / "cards"
        folder.mkdir(parents=True)
        for n in range(runs):
            status, result = (
                ("keep", 1 - n / 1e4) if n % 10 == 0 else ("crash", None) if n % 7 == 0 else ("revert", 1.1)
            )
            error = {"kind": "oom", "summary": f"error {'x' * (n % 9)}", "tail": []} if status == "crash" else None
            values = card(
                0, status, result, id=f"{n:016x}", hypothesis=f"{'raise' if n % 2 else 'lower'} idea {n % 31}"
            )
            values |= {"edit_key": f"e{n}", "error": error, "quarantined": "throttled" if n % 50 == 3 else None}
            (folder / f"{n:016x}.json").write_bytes(dump_json(complete(values)))
        lengths.append(len(told(tmp_path / str(runs))[1].splitlines()))
    assert max(lengths) <= 90


def test_a_page_with_its_pictures(tmp_path):
    write(tmp_path, card(1, "keep", 1.0), card(2, "keep", 0.99, hypothesis="<script>alert(1)</script>"))
    done = ask(tmp_path, "--since", "2026-01-01", "--out", "r.html")
    assert (done.returncode, done.stdout) == (0, "wrote r.html\n"), done.stderr
    page = (tmp_path / "r.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "<script" not in page and "&lt;script&gt;" in page
    done = ask(tmp_path, "--since", "2026-01-01", "--out", "r.md", "--json")
    assert json.loads(done.stdout) == {"files": ["r-progress.png", "r-coverage.png", "r.md"]}
    assert "![every run and the champion](r-progress.png)" in (tmp_path / "r.md").read_text()


@pytest.mark.parametrize("arguments", [("--out", "r.html"), ("--json",)])
def test_with_nothing_to_draw_there_is_a_page_all_the_same(tmp_path, arguments):
    write(tmp_path, card(-9000, "keep", 1.0))
    done = ask(tmp_path, "--since", "2026-01-30", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    if "--json" in arguments:
        assert json.loads(done.stdout)["steps"] == [{"text": "Run an experiment", "command": "uv run train.py"}]


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("r.txt", "error: --out r.txt ends in .txt; name a file that ends in .md or .html\n"),
        ("no/r.md", "error: --out no/r.md: there is no folder no; make it first\n"),
    ],
)
def test_a_file_that_cannot_be_a_report_is_refused_at_once(tmp_path, out, message):
    write(tmp_path, card(1, "keep", 1.0))
    done = ask(tmp_path, "--out", out)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)


def test_printing_imports_nothing_heavy(tmp_path):
    write(tmp_path, card(1, "keep", 1.0))
    code = MAIN.replace("sys.exit(", "print(").replace("))", "), sorted(sys.modules))", 1)
    done = subprocess.run(
        [sys.executable, "-c", code, "report", "--knowledge-dir", tmp_path / "knowledge"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert not {"matplotlib", "numpy", "torch", "markdown_it"} & set(re.findall(r"'(\w+)'", done.stdout))


def test_runs_that_name_no_track_are_counted(tmp_path):
    found, text = told(write(tmp_path, card(1, "inconclusive", 1.0, track=None), card(2, "crash", track=None)))
    assert (found["runs"], found["tracks"], found["lineages"]) == (2, [], [])
    assert "- **2 experiments**: 1 inconclusive, 1 crash\n" in text
    assert "- **GPU-hours**: 0.2; per confirmed 0.001 of the metric: unknown" in text
