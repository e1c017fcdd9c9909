"""The pages that agents are told to read: short, true to the code, and a round fits into an agent's context."""

import os
import re
import shlex

import pytest
from pages import INSTRUCTIONS, ROOT, SOURCES, Clone, commands, page

import commons
import director
import worker
from docs.generate import for_agents
from lab.cards import add_card
from lab.cli import load
from lab.cli_run import _told
from lab.decide import DOING
from lab.items import FIELDS
from lab.ledger import import_file
from lab.novelty import TABLE
from lab.schema import ACTIONS, DECISIONS, GIT_ACTIONS, STRATEGIES, complete
from lab.settings import Settings

REAL = ROOT.parent / "shared" / "data" / "results-h100-mar8.tsv"
DOORS = {"commons.py": commons.COMMANDS, "director.py": director.COMMANDS, "worker.py": worker.COMMANDS}
ANSWERS = {answer for row in TABLE.values() for answer in row}
GENERATED = {path.relative_to(ROOT).as_posix(): content for path, content in for_agents().items()}
MOST_LINES_OF_A_ROUND = 60
# A card whose packet has all the lines that the card of a run which measured something can have.
FULL = complete(
    {
        "id": "a" * 16, "timestamp": "2026-01-31T12:00:00.000Z", "status": "keep", "hypothesis": "an idea",
        "results": {"val_bpb": 0.99, "delta": -0.001, "hidden_bpb": 0.991},
        "decision": {
            "status": "keep", "reason": "a gain is to be expected", "action": "replicate", "priority": 3,
            "git": "keep_commit", "champion": "b" * 16, "champion_mean": 0.991, "champion_sd": 0.0003,
            "probability": 0.9, "same": 0.1, "expected": -0.001, "expected_sd": 0.0005, "noise": 0.0005,
            "noise_basis": "from 2 repeats of one edit", "repeats": 4,
        },
    }
) | {"quarantined": "suspect_device: others"}  # fmt: skip
TALKATIVE = """
import os, sys
from lab import recorder
run = recorder.start(__file__)
run.update(track=os.environ["TRACK"], seed=42, platform={"device": "cpu"})
for line in range(200):
    print("step", line)
    print("warning", line, file=sys.stderr)
run.finish({"val_bpb": 0.99})
"""


def quoted(text: str) -> list[str]:
    """What is quoted inline in a page."""
    return [" ".join(words.split()) for words in re.findall(r"`([^`]+)`", re.sub(r"(?s)```.*?```", "", text))]


def options_of(door: str, name: str) -> set[str]:
    """The options that a command takes."""
    names = {name for names, _ in load(DOORS[door], name).arguments for name in names if name.startswith("--")}
    return names | {"--json", "--knowledge-dir", "--help"}


@pytest.mark.parametrize(
    ("name", "most"), [("program.md", 149), ("director.md", 149), ("worker.md", 60), ("AGENTS.md", 59)]
)
def test_a_page_is_short(name, most):
    lines = page(name).splitlines()
    assert len(lines) <= most
    assert max(map(len, lines)) <= 124


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_what_a_page_names_exists(name):
    words = {*ACTIONS, *GIT_ACTIONS, *STRATEGIES, *DECISIONS, *ANSWERS, *FIELDS, *Settings._fields, *packet_lines()}
    words |= {word for commands_of_door in DOORS.values() for word in commands_of_door}
    words |= {
        Settings().metric,
        "|",
        "card",
        "knowledge/",
        "runs/",
        "$ITEM",
        "$LEASE",
        "$CARD",
        "$COMMIT",
    }  # of a log, of worker.md
    words |= set(re.findall(r"(?m)^ *([A-Z_]+) = ", page("train.py")))
    words |= set(re.findall(r"AUTORESEARCH_[A-Z]+", "".join(path.read_text() for path in SOURCES)))
    strange = [word for word in quoted(page(name)) if word not in words and not (ROOT / word).exists()]
    # Commands are test_docs.py's, options those of the next test but one.
    assert not [word for word in strange if word not in commands(name) and not word.startswith("--")]


def packet_lines() -> set[str]:
    """The names of the lines of a packet."""
    return {line[2:12].strip() for line in _told(FULL, ["a warning"], "stays").splitlines()[1:]}


def test_every_word_of_a_decision_is_explained():
    told = set(quoted(page("program.md")))
    assert set(ACTIONS) == set(DOING)
    assert not {*ACTIONS, *GIT_ACTIONS, *DECISIONS, *ANSWERS} - told
    assert not set(STRATEGIES) - set(quoted(page("director.md")))


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_every_option_is_one_of_its_command(name):
    for line in commands(name):
        words = shlex.split(line)
        if words[:2] == ["uv", "run"] and words[2] in DOORS:
            asked = {word for word in words if word.startswith("--") and " " not in word}
            assert not asked - options_of(words[2], words[3]), line
    anywhere = {option for door, names in DOORS.items() for command in names for option in options_of(door, command)}
    alone = {word.split()[0] for word in quoted(page(name)) if word.startswith("--")}
    assert not alone - anywhere


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_every_link_leads_somewhere(name):
    assert not [link for link in re.findall(r"\]\(([^)]+)\)", page(name)) if not (ROOT / link).exists()]


@pytest.mark.parametrize("name", GENERATED)
def test_the_head_of_a_generated_page(name):
    head, body = re.fullmatch(r"---\n(.*?)\n---\n\n(.*)", GENERATED[name], re.DOTALL).groups()
    fields = dict(line.split(": ", 1) for line in head.splitlines())
    place = ROOT / name
    assert fields["name"] == (place.parent.name if place.name == "SKILL.md" else place.stem)
    assert re.fullmatch("[a-z0-9-]{1,64}", fields["name"])
    about = fields["description"]
    assert "Use when" in about and ": " not in about and " #" not in about and len(about) < 1024
    assert body == page("worker.md") == place.read_text().partition("\n---\n\n")[2]
    assert set(fields) <= {"name", "description", "tools"}
    assert ("tools" in fields) == ("agents" in place.parts)


def simulated(knowledge) -> None:
    """Sixty runs of all categories with long hypotheses, some kept and some crashed."""
    best = 1.0
    for run in range(60):
        result = 1.0 + (run * 37 % 19 - 9) * 4e-4
        crashed, kept = run % 11 == 5, result < best
        best = min(best, result) if not crashed else best
        add_card(
            knowledge,
            {
                "id": f"{run + 1:016x}", "timestamp": f"2026-01-31T12:{run:02d}:00.000Z", "track": "t-300s/GPU",
                "status": "crash" if crashed else "keep" if kept else "revert", "edit_key": f"edit {run}",
                "results": {} if crashed else {"val_bpb": result, "delta": result - best},
                "hypothesis": f"idea {run} of widening the hidden layer of the MLP " + "further " * (run % 5),
                "category": ("architecture", "optimizer", "attention", "scheduling", "embedding")[run % 5],
                "error": {"kind": "oom", "phase": "train", "summary": "out of memory", "tail": []} if crashed else None,
            },
        )  # fmt: skip


def real(knowledge) -> None:
    """The public night of 126 runs."""
    if not REAL.exists():
        pytest.skip("the public night is not here")
    assert import_file(knowledge, REAL).added == 126


@pytest.fixture(scope="module", params=[real, simulated], ids=lambda made: made.__name__)
def clone(request, tmp_path_factory):
    """A clone with a commons, whose experiment only talks."""
    clone = Clone(tmp_path_factory.mktemp("instructions"), AUTORESEARCH_DEVICE="cpu")
    (clone.folder / "train.py").write_text(TALKATIVE)
    project = clone.folder / "pyproject.toml"  # what it says that it measured nobody has evaluated
    project.write_text(re.sub("(?m)^second_look = .*\n", "", project.read_text()))
    clone.git("commit", "-qam", "talkative")
    request.param(clone.folder / "knowledge")
    clone.environment["TRACK"] = clone.cards()[0]["track"]
    return clone


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="the pages speak to a shell")
@pytest.mark.parametrize("idea", ["your idea", "raise the embedding LR to 0.9", "idea 7 of widening the hidden layer"])
def test_a_round_fits_into_an_agents_context(clone, idea):
    run = f"{len(clone.cards())}"
    lines = [line for line in commands("program.md") if "your idea" in line or "annotate" in line]
    seen = []
    for line in lines[:4]:
        with open(clone.folder / "train.py", "a") as script:
            print(f"edit = {run}", file=script)
        done = clone.run(line.replace("your idea", idea))
        assert (done.returncode, done.stderr) == (0, "")
        seen.append(len(done.stdout.splitlines()))
    brief, check, packet, annotate = seen
    assert brief and check and (5 <= packet <= 15, annotate) == (True, 1)
    assert sum(seen) + 15 - packet < MOST_LINES_OF_A_ROUND
