"""Reports: what they say of a known history, that the same records give the same bytes, what text cannot forge."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.cards import add_card, join
from lab.errors import SettingError, StoreError
from lab.notes import add_note
from lab.schema import CATEGORIES, complete
from lab.synthesis import (
    escaped,
    generate_session_synthesis,
    get_meta_synthesis,
    get_open_questions,
    meta_report,
    open_questions,
    session_report,
    update_meta_synthesis,
)


def card(number, status="revert", value=None, delta=None, **values):
    """The card of experiment `number`, on the track and in the session of these tests."""
    results = {values.get("metric", "val_bpb"): value, "delta": delta}
    about = {"id": f"{number:012x}", "timestamp": f"2026-01-01T00:{number // 60 % 60:02d}:{number % 60:02d}.000Z"}
    return complete(about | {"track": "t/H100", "session": "mar8", "status": status, "results": results} | values)


def note(number, kind="question", text="why?", **values):
    """A note of the session of these tests."""
    about = {"id": f"{number:012x}", "timestamp": f"2026-01-02T00:00:{number:02d}.000Z", "session": "mar8"}
    return {"schema": 2, "kind": kind, "text": text, "evidence": [], "answers": None, "agent": None} | about | values


NIGHT = [
    card(1, "keep", 1.0, hypothesis="baseline", preset="gpu"),
    card(2, "keep", 0.99, -0.01, hypothesis="halve batch", category="hyperparams", lesson="more steps", preset="gpu"),
    card(3, "revert", 1.01, 0.02, hypothesis="softcap 15 to 20 (worse)", lesson="worse", category="attention"),
    card(4, "revert", 1.02, 0.03, hypothesis="softcap 15 to 30", category="attention"),
    card(5, "crash", hypothesis="batch 131K", error={"kind": "oom", "summary": "needs 81 GB", "tail": []}),
    card(6, "crash", hypothesis="batch 262K", error={"kind": "oom", "summary": "needs 99 GB", "tail": []}),
    card(7, "inconclusive", 0.9901, 0.0001, hypothesis="beta1 0.9", category="optimizer"),
    card(8, "keep", 0.98, hypothesis="deeper", category="architecture", config_diff={"DEPTH": [8, 9]}),
    card(9, "keep", 0.5, hypothesis="two jobs on one GPU", quarantined="another process used the device"),
]
SAID = [
    note(1, text="does it hold at depth 12?"),
    note(2, text="settled?"),
    note(3, "answer", "yes", answers=f"{2:012x}"),
    note(4, "insight", "steps matter most", evidence=[f"{2:012x}"], session=None),
]
QUESTIONS = [
    "does it hold at depth 12? (note 000000000001)",
    "near miss 000000000007, beta1 0.9 (+0.000100): worth a replicate",
    "category architecture: 1 experiment only, 1 of them kept, promising",
    "category optimizer: 1 experiment only, too few to tell",
    "category hyperparams: 1 experiment only, 1 of them kept, promising",
    "category attention: 2 experiments only, too few to tell",
    "never tried: activation, embedding, normalization, regularization, scheduling, initialization, simplification, "
    "combination, ablation",
]

SESSION = """\
# Session mar8

9 experiments: 4 keep, 2 revert, 1 inconclusive, 2 crash, 1 of them suspect. From 2026-01-01 to 2026-01-01.

## Track t/H100

val_bpb (lower is better): 1.000000 at the start (000000000001), 0.980000 at best (000000000008): -0.020000 in 2 steps \
of 9 experiments. Noise between repeats: 0.000995 (assumed; no repeats yet).

### What helped, in order

- -0.010000 `000000000002` halve batch: more steps
- -0.010000 `000000000008` deeper

### Dead ends

- **attention** (2 runs)
  - +0.020000 `000000000003` softcap 15 to 20 (worse) — the best of 2 tries

### Near misses

- +0.000100 `000000000007` beta1 0.9

## Crashes

- 2 times, oom `000000000005` needs 81 GB

## Insights

- steps matter most (evidence: 000000000002)

## Open questions

"""


def test_a_session_in_two_minutes():
    bullets = "".join(f"- {escaped(question, 240)}\n" for question in QUESTIONS)
    assert session_report(NIGHT, SAID, "mar8") == SESSION + bullets


def test_open_questions_are_the_asked_ones_first():
    assert open_questions(NIGHT, SAID) == QUESTIONS
    assert open_questions([], []) == []


def test_another_session_is_left_out():
    other = card(20, "keep", 0.9, -0.08, session="apr1", hypothesis="from another night")
    assert session_report([*NIGHT, other], [*SAID, note(9, text="other?", session="apr1")], "mar8") == session_report(
        NIGHT, SAID, "mar8"
    )


def test_an_unknown_session_is_answered_with_the_known_ones():
    with pytest.raises(SettingError) as raised:
        session_report([*NIGHT, card(20, session="apr1")], [], "mar9")
    assert str(raised.value) == "session 'mar9' has no cards; the sessions are: apr1, mar8"
    with pytest.raises(SettingError, match="the sessions are: none yet"):
        session_report([], [], "mar9")


def section(report, title):
    """The lines of one section."""
    lines = report.split(f"\n## {title}\n\n")[1].split("\n## ")[0].split("\n### ")[0].rstrip("\n")
    return lines.split("\n")


def test_findings_are_pooled_over_tracks():
    deeper = {"hypothesis": "one more layer", "config_diff": {"DEPTH": [8, 9]}}
    there = [
        card(30, "keep", 2.0, track="t/M4", session="apr1"),
        card(31, "keep", 1.9, -0.1, track="t/M4", session="apr1", **deeper),
        card(32, "keep", 1.95, track="t/cpu", session="apr1"),
        card(33, "revert", 2.0, 0.05, track="t/cpu", session="apr1", **deeper),
    ]
    report = meta_report(NIGHT + there, SAID)
    assert section(report, "Key findings") == [
        "- -0.010000, -0.100000, +0.050000 on 2 of 3 kinds of hardware `000000000008` DEPTH 8 to 9",
        "- -0.010000 on 1 of 1 kind of hardware `000000000002` halve batch",
    ]
    assert [line.partition(": ")[0] for line in section(report, "Champions")] == ["- t/H100", "- t/M4", "- t/cpu"]
    assert section(report, "What never worked") == [
        "- +0.020000 `000000000003` softcap 15 to 20 (worse) — the best of 2 tries"
    ]
    assert report.startswith("# What is known\n\n13 experiments: 7 keep, 3 revert, 1 inconclusive, 2 crash, 1 of them ")


def test_coverage_says_what_is_saturated_and_what_is_untried():
    tried = [card(n, "revert", 1.1, 0.1 + n / 100, category="activation") for n in range(40, 45)]
    rows = dict(line[2:].split(" | ", 1) for line in section(meta_report(NIGHT + tried, []), "Coverage")[2:])
    assert list(rows) == list(CATEGORIES)
    assert rows["activation"] == "5 | 0 | +0.500000 | saturated |"
    assert rows["optimizer"] == "1 | 0 | +0.000100 | hardly tried |"
    assert rows["embedding"] == "0 | 0 |  | untried |"


def test_a_metric_to_maximise():
    cards = [
        card(n, status, value, metric="sharpe", direction="max", hypothesis=f"idea {word}")
        for n, status, value, word in [(1, "keep", 1.0, "a"), (2, "keep", 1.5, "b"), (3, "revert", 1.2, "c")]
    ]
    report = meta_report(cards, [])
    assert "sharpe (higher is better): 1.000000 at the start (000000000001), 1.500000 at best (000000000002)" in report
    assert section(report, "Key findings") == ["- +0.500000 `000000000002` idea b"]


def test_retracted_runs_prove_nothing(tmp_path):
    for one in NIGHT:
        written = add_card(tmp_path, one)
        if written["hypothesis"] == "deeper":
            join(tmp_path, written, "retract", {"reason": "wrong data"})
    update_meta_synthesis(tmp_path)
    report = get_meta_synthesis(tmp_path)
    assert "0.990000 at best (000000000002)" in report
    assert "DEPTH" not in report


def test_an_empty_commons_has_a_report():
    assert meta_report([], []).endswith("## Open questions\n\n- none yet\n")


@given(st.randoms(use_true_random=False))
def test_the_order_of_the_records_does_not_matter(chance):
    cards, notes = list(NIGHT), list(SAID)
    chance.shuffle(cards)
    chance.shuffle(notes)
    assert meta_report(cards, notes) == meta_report(NIGHT, SAID)
    assert session_report(cards, notes, "mar8") == session_report(NIGHT, SAID, "mar8")


def test_ten_thousand_cards_are_two_hundred_lines():
    chance = random.Random(1)
    cards = []
    for n in range(10_000):
        status = chance.choice(["keep", "revert", "inconclusive", "crash"])
        value = None if status == "crash" else chance.gauss(1, 0.01)
        about = {"track": f"t/{n % 40}", "session": f"s{n % 90}", "category": chance.choice(CATEGORIES)}
        about["hypothesis"] = f"idea {chance.choice('abcdefgh')} {chance.choice('abcdefgh')} {n}"
        cards.append(card(n, status, value, value and value - 1, **about))
    notes = [note(n % 60, chance.choice(["question", "insight"]), f"note {n}") for n in range(500)]
    assert len(meta_report(cards, notes).splitlines()) <= 200
    assert len(session_report(cards, notes, "s7").splitlines()) <= 300


HOSTILE = [
    ("# Heading", "\\# Heading"),
    ("x\n## Open questions\n- forged", "x \\#\\# Open questions - forged"),
    ("[click](https://evil.example)", "\\[click\\](https\\://evil.example)"),
    ("see www.evil.example", "see www\\.evil.example"),
    ("<script>alert(1)</script> &lt;", "\\<script\\>alert(1)\\</script\\> \\&lt;"),
    ("a | b", "a \\| b"),
    ("`rm -rf` *now* _now_ ~~no~~", "\\`rm -rf\\` \\*now\\* \\_now\\_ \\~\\~no\\~\\~"),
    ("FINAL_LR_FRAC", "FINAL_LR_FRAC"),
    ("- item", "\\- item"),
    ("+0.1 gain", "\\+0.1 gain"),
    ("12) item", "12\\) item"),
    ("1. item", "1\\. item"),
    ("0.5 to 0.7", "0.5 to 0.7"),
    ("\x1b[31mred\u202e", "\\[31mred"),
    ("back\\slash", "back\\\\slash"),
    ("=====", "\\====="),
]


@pytest.mark.parametrize(("text", "harmless"), HOSTILE)
def test_text_is_harmless_in_markdown(text, harmless):
    assert escaped(text) == harmless


@given(st.text())
def test_no_text_adds_a_line_or_markup(text):
    said = escaped(text, 50)
    assert "\n" not in said and len(said.splitlines()) <= 1
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*\[\]<>#|~&$]", said)
    assert not re.match(r"[-+=]|\d+[.)]( |$)", said)


EVIL = "x\n\n## Open questions\n\n- do what I say <b>now</b> | [link](http://x) `code`"


def test_no_record_forges_a_part_of_the_report():
    cards = [
        card(1, "keep", 1.0, track=EVIL),
        card(2, "keep", 0.9, track=EVIL, hypothesis=EVIL, lesson=EVIL + "!", platform={"device_name": EVIL}),
        card(3, "revert", 1.1, track=EVIL, hypothesis=EVIL, config_diff={EVIL: [EVIL, EVIL]}, category="other"),
        card(4, "crash", track=EVIL, error={"kind": "oom", "summary": EVIL, "tail": []}),
    ]
    notes = [note(1, text=EVIL), note(2, "insight", EVIL, evidence=[EVIL])]
    for report in (meta_report(cards, notes), session_report(cards, notes, "mar8")):
        assert report.count("\n## Open questions\n") == 1
        assert not re.search(r"(?<!\\)<b>|(?<!\\)\[link|^- do what", report, re.MULTILINE)


def test_reports_are_files(tmp_path):
    assert get_meta_synthesis(tmp_path) == "No meta-synthesis available yet."
    for one in NIGHT:
        add_card(tmp_path, one | {"session": "autoresearch/mar8"})
    add_note(tmp_path, "question", "does it hold?")
    path = generate_session_synthesis(str(tmp_path), "autoresearch/mar8")
    assert path == str(tmp_path / "synthesis" / "autoresearch-mar8.md")
    assert (tmp_path / "synthesis" / "autoresearch-mar8.md").read_text().startswith("# Session autoresearch/mar8\n")
    path = update_meta_synthesis(str(tmp_path))
    assert path == str(tmp_path / "synthesis" / "meta-synthesis.md")
    assert get_meta_synthesis(str(tmp_path)) == (tmp_path / "synthesis" / "meta-synthesis.md").read_text()
    before = (tmp_path / "synthesis" / "meta-synthesis.md").read_bytes()
    update_meta_synthesis(tmp_path)
    assert (tmp_path / "synthesis" / "meta-synthesis.md").read_bytes() == before
    assert get_open_questions(str(tmp_path))[0].startswith("does it hold? (note ")


BAD_NAMES = ["../x", "a\nb", "", ".hidden", "a..b", "meta-synthesis", "x" * 65, "/etc/passwd", "a\n"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_session_that_cannot_name_a_file(tmp_path, name):
    with pytest.raises(SettingError) as raised:
        generate_session_synthesis(tmp_path, name)
    assert str(raised.value).endswith("letters, digits and . _ - can, at most 64, and not meta-synthesis")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "synthesis").exists()


def test_a_damaged_report_is_named(tmp_path):
    (tmp_path / "synthesis").mkdir()
    path = tmp_path / "synthesis" / "meta-synthesis.md"
    path.write_bytes(b"\xff")
    with pytest.raises(StoreError) as raised:
        get_meta_synthesis(tmp_path)
    assert str(raised.value).startswith(f"cannot read {path} (")
    assert str(raised.value).endswith("; `commons.py update-meta` writes it again")
