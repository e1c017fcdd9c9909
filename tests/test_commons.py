"""The commands of `commons.py`: exact output, and what a command does to the commons."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import commons
from lab import cli
from lab.brief import DATA_NOTE
from lab.cards import add_card, load_cards
from lab.notes import load_notes
from lab.schema import SCHEMA
from lab.store import dump_json, write_new

ROOT = Path(__file__).parent.parent
A, B, C = "a" * 16, "b" * 16, "c" * 16
RUN = {"id": A, "run_id": A, "commit": "abcdef0123456789", "timestamp": "2026-01-31T12:00:00.000Z"}
KEPT = RUN | {"status": "keep", "results": {"val_bpb": 0.9979}, "track": "t", "hypothesis": "baseline"}
WORSE = {
    "id": B, "timestamp": "2026-01-31T13:00:00.000Z", "status": "revert", "track": "t", "hypothesis": "wider",
    "results": {"val_bpb": 0.999, "delta": 0.0011}, "tags": ["mlp"], "category": "architecture", "lesson": "slower",
}  # fmt: skip
WRITE = ("write-card", "--commit", "abcdef01", "--hypothesis", "wider MLP", "--tags", "mlp, width")


@pytest.fixture
def knowledge(tmp_path):
    """The commons that `run` works on."""
    (tmp_path / "knowledge").mkdir()
    return tmp_path / "knowledge"


@pytest.fixture
def run(knowledge, capfd, monkeypatch):
    """Run a command on a commons of the test's own; returns (exit code, stdout, stderr)."""
    monkeypatch.setenv("KNOWLEDGE_DIR", str(knowledge))
    monkeypatch.setenv("AUTORESEARCH_RUNS_DIR", str(knowledge.parent / "runs"))
    monkeypatch.chdir(knowledge.parent)

    def command(*words):
        capfd.readouterr()
        try:
            code = cli.main("commons.py", "", commons.COMMANDS, [str(word) for word in words])
        except SystemExit as end:
            code = end.code
        return code, *capfd.readouterr()

    return command


def last_word(answer):
    """The id in `wrote card ID: ...`."""
    code, output, errors = answer
    assert (code, errors) == (0, "")
    return output.split()[2].rstrip(":")


def known(card):
    """What is not unknown in a card."""
    return {name: value for name, value in card.items() if value not in (None, _EMPTY := [])}


# Reading.


def test_an_empty_commons_is_said_in_one_line(run, knowledge):
    ways = "`uv run train.py` writes the first one, `commons.py sync` brings those of others"
    nothing = f"no cards in {knowledge} yet: {ways}\n"
    for command in (("read-brief",), ("show", "last"), ("history",), ("lineage",)):
        assert run(*command) == (0, nothing, "")
    assert run("show", "last", "--json") == (0, "null\n", "")
    assert json.loads(run("read-brief", "--json")[1])["cards"] == 0
    assert run("best")[1] == "no kept result on any track yet\n"
    assert run("coverage")[1].startswith("no track yet\n")
    assert run("tags")[1] == "no card has a tag\n"
    assert run("near-misses")[1] == "no run came close to its champion\n"
    assert run("search", "wider")[1] == "nothing has all of these words\n"
    assert run("query", "SELECT id FROM cards") == (0, "no rows\n", "")
    for command in ("best", "history", "tags", "near-misses"):
        assert run(command, "--json") == (0, "[]\n", "")


def test_read_brief(run, knowledge):
    add_card(knowledge, KEPT)
    code, output, errors = run("read-brief")
    assert (code, errors) == (0, "")
    assert output.startswith(
        f"1 card: 1 keep\n{DATA_NOTE}\n\nTrack | t\nChampion by val_bpb, smaller is better:\n"
        "  aaaaaaaa 0.997900, truly about 0.997900 ± "
    )
    found = json.loads(run("read-brief", "--json")[1])
    assert (found["champion"]["id"], found["track"], found["running"], found["queue"]) == (A, "t", [], [])
    assert len(run("read-brief", "--tokens", "20")[1]) <= 80
    assert "Related to the idea" in run("read-brief", "--for", "a new baseline")[1]


def test_show(run, knowledge):
    card = add_card(knowledge, KEPT | {"results": {"val_bpb": 0.9979, "loss_curve": [[0, 0.0, 5.0], [1, 1.0, 3.0]]}})
    expected = (
        "card aaaaaaaaaaaaaaaa: keep, 2026-01-31 12:00:00 UTC\n"
        "  hypothesis    | baseline\n"
        "  val_bpb       0.997900\n"
        "  track         | t\n"
        "  loss          5.000 █▁ 3.000\n"
        "  commit        | abcdef0123456789\n"
        f"{DATA_NOTE}\n"
    )
    assert run("show", "aaaa") == run("show", "last") == (0, expected, "")
    assert run("show", "last", "--json") == (0, dump_json(card).decode(), "")


ROW_A = "aaaaaaaaaaaa 2026-01-31 12:00 keep           0.997900          - | baseline"
ROW_B = "bbbbbbbbbbbb 2026-01-31 13:00 revert         0.999000  +0.001100 | wider | slower"
PAGES = [
    ("history", f"{ROW_B}\n{ROW_A}\n{DATA_NOTE}\n"),
    ("history --limit 1", f"{ROW_B}\n{DATA_NOTE}\n"),
    ("history --track t", f"{ROW_B}\n{ROW_A}\n{DATA_NOTE}\n"),
    ("best", f"{ROW_A}\n  track | t\n{DATA_NOTE}\n"),
    ("best --track t", f"{ROW_A}\n  track | t\n{DATA_NOTE}\n"),
    ("search slower", f"{ROW_B}\n{DATA_NOTE}\n"),
    ("search baseline wider", "nothing has all of these words\n"),
    ("near-misses", f"{ROW_B}\n{DATA_NOTE}\n"),
    ("tags", f"kept/runs\n0/1 | mlp\n{DATA_NOTE}\n"),
]


@pytest.mark.parametrize(("line", "page"), PAGES)
def test_pages(run, knowledge, line, page):
    add_card(knowledge, KEPT)
    add_card(knowledge, WORSE)
    assert run(*line.split()) == (0, page, "")
    assert json.loads(run(*line.split(), "--json")[1]) is not None


def test_coverage(run, knowledge):
    add_card(knowledge, KEPT)
    add_card(knowledge, WORSE)
    lines = run("coverage")[1].splitlines()
    assert lines[:4] == [
        "Track | t",
        "                  runs  kept    best delta",
        "architecture         1     0     +0.001100  under-explored",
        "other                1     1             -  under-explored",
    ]
    assert lines[-4:] == ["", "Tags: kept/runs", DATA_NOTE, "  0/1 | mlp"]
    found = json.loads(run("coverage", "--json")[1])
    assert (found["track"], found["tags"]) == ("t", [{"tag": "mlp", "count": 1, "kept": 0}])


def test_query(run, knowledge):
    add_card(knowledge, KEPT | {"hypothesis": "a\tb\nc"})
    sql = "SELECT id, hypothesis, delta FROM cards"
    assert run("query", sql) == (0, f"id\thypothesis\tdelta\n{A}\ta b c\t\n", "")
    assert json.loads(run("query", sql, "--json")[1]) == [{"id": A, "hypothesis": "a\tb\nc", "delta": None}]


def test_diff(run, knowledge):
    add_card(knowledge, KEPT)
    add_card(knowledge, WORSE)
    code, output, errors = run("diff", "aa", "bb")
    assert (code, errors) == (0, "")
    assert output.startswith(f"a {A}\nb {B}\n{DATA_NOTE}\n\na | baseline\nb | wider\n")
    assert json.loads(run("diff", "aa", "bb", "--json")[1])["comparable"] is True


# Writing.


def test_write_card(run, knowledge):
    add_card(knowledge, KEPT | {"run_id": None})
    card_id = last_word(run(
        *WRITE, "--status", "discard", "--result", "0.9989", "--delta", "0.001", "--peak-memory", "45060",
        "--training-seconds", "300", "--num-steps", "953", "--lesson", "slower", "--config-diff", '{"WIDTH": [4, 8]}',
        "--prior-cards", "aaaa", "--category", "architecture", "--session", "mar8", "--agent", "robot", "--track", "t",
        "--num-params", "50", "--estimated-flops", "1e18",
    ))  # fmt: skip
    card = load_cards(knowledge)[0]
    assert card["id"] == card_id
    assert known(card["results"]) == {
        "val_bpb": 0.9989, "delta": 0.001, "peak_vram_mb": 45060.0, "training_seconds": 300.0, "num_steps": 953,
        "num_params": 50, "estimated_flops": 1e18, "delta_stderr": pytest.approx(0.0014, rel=0.1),
    }  # fmt: skip
    assert (card["decision"]["champion"], card["decision"]["noise_basis"]) == (A, "assumed; no repeats yet")
    assert card["decision"]["expected"] > 0 and card["decision"]["action"] in ("abandon", "replicate")
    del card["id"], card["timestamp"], card["results"], card["decision"]
    assert known(card) == {
        "schema": SCHEMA, "commit": "abcdef01", "hypothesis": "wider MLP", "status": "revert", "tags": ["mlp", "width"],
        "lesson": "slower", "config_diff": {"WIDTH": [4, 8]}, "prior_knowledge_used": [A], "metric": "val_bpb",
        "direction": "min", "category": "architecture", "session": "mar8", "agent": "robot", "track": "t",
    }  # fmt: skip


def test_the_difference_is_from_the_champion_of_the_track(run, knowledge):
    add_card(knowledge, KEPT | {"run_id": None})
    add_card(knowledge, KEPT | {"id": B, "run_id": None, "track": "u", "results": {"val_bpb": 0.5}})
    for track, delta in (("t", 0.0021), ("u", 0.5), ("new", None)):
        run(*WRITE, "--status", "discard", "--result", "1.0", "--track", track)
        found = load_cards(knowledge)[0]["results"]["delta"]
        assert found == (None if delta is None else pytest.approx(delta))


def test_without_a_track_it_is_the_only_one_or_one_of_its_own(run, knowledge):
    run(*WRITE, "--status", "keep", "--result", "1.0")
    assert load_cards(knowledge)[0]["track"] == "val_bpb-by-hand"
    run(*WRITE, "--status", "keep", "--result", "0.9")
    card = load_cards(knowledge)[0]
    assert (card["track"], card["results"]["delta"]) == ("val_bpb-by-hand", pytest.approx(-0.1))
    add_card(knowledge, {"status": "crash", "track": "other"})
    run(*WRITE, "--status", "keep", "--result", "0.8")
    assert load_cards(knowledge)[0]["track"] == "val_bpb-by-hand"


def test_a_metric_of_ones_own(run, knowledge):
    section = '[tool.autoresearch]\nmetric = "score"\ndirection = "max"\n'
    (knowledge.parent / "pyproject.toml").write_text(section)
    run(*WRITE, "--status", "keep", "--result", "1.0")
    assert run(*WRITE, "--status", "keep") == (2, "", "error: --status keep needs --result, the score of the run\n")
    run(*WRITE, "--status", "keep", "--result", "3.0")
    card = load_cards(knowledge)[0]
    assert (card["metric"], card["direction"], card["results"]["score"], card["results"]["delta"]) == (
        "score",
        "max",
        3,
        2,
    )
    assert "Champion by score, larger is better:\n" in run("read-brief")[1]


def test_write_card_of_a_crash(run, knowledge):
    code, output, _ = run(*WRITE, "--status", "crash", "--json")
    assert (code, [json.loads(output)]) == (0, load_cards(knowledge))
    assert json.loads(output)["results"]["val_bpb"] is None


def test_the_log_gives_what_is_not_said(run, knowledge):
    log = knowledge.parent / "run.log"
    log.write_text("---\nval_bpb:          0.997900\nnum_steps:        953\npeak_vram_mb:     45060.2\n")
    last_word(run(*WRITE, "--status", "keep", "--log", log, "--peak-memory", "1"))
    (card,) = load_cards(knowledge)
    assert known(card["results"]) == {"val_bpb": 0.9979, "num_steps": 953, "peak_vram_mb": 1.0}
    log.write_text("Traceback\ntorch.OutOfMemoryError: CUDA out of memory\n")
    card_id = last_word(run(*WRITE, "--status", "crash", "--log", log))
    assert json.loads(run("show", card_id, "--json")[1])["error"]["kind"] == "oom"


def test_two_cards_for_one_commit_are_two_cards(run, knowledge):
    for _ in range(2):
        assert run(*WRITE, "--status", "crash")[0] == 0
    assert len(load_cards(knowledge)) == 2


@pytest.mark.parametrize("named_by", ["commit", "run", "summary"])
def test_what_is_written_for_a_run_joins_its_card(run, knowledge, tmp_path, named_by):
    add_card(knowledge, KEPT)
    add_card(knowledge, KEPT | {"id": B, "run_id": B, "commit": "99990000", "track": None})
    summary = tmp_path / "summary.json"
    write_new(summary, {"run_id": A, "val_bpb": 0.9979, "depth": 8})
    naming = {"commit": (), "run": ("--run", "aaaa"), "summary": ("--summary", summary)}[named_by]
    said = ("--status", "revert", "--result", "0.998", "--lesson", "slower")
    assert run(*WRITE, *said, *naming) == (0, f"added to card {A}: keep -> revert\n", "")
    card, other = sorted(load_cards(knowledge), key=lambda card: card["id"])
    assert other["status"] == "keep"
    assert (card["status"], card["hypothesis"], card["lesson"]) == ("revert", "wider MLP", "slower")
    assert (card["results"]["val_bpb"], card["tags"]) == (0.9979, ["mlp", "width"])
    assert run("history", "--limit", "2")[1].count(" revert ") == 1


def test_the_newest_run_of_a_commit_is_meant(run, knowledge):
    add_card(knowledge, KEPT)
    add_card(knowledge, KEPT | {"id": B, "run_id": B, "timestamp": "2026-01-31T13:00:00.000Z"})
    assert run(*WRITE, "--status", "keep")[1] == f"added to card {B}: keep -> keep\n"


def test_a_run_whose_card_is_missing_gets_it_from_its_summary(run, knowledge, tmp_path):
    summary = tmp_path / "summary.json"
    write_new(summary, {"run_id": C, "val_bpb": 0.99, "depth": 8, "track": "t", "artifacts": {"x": 1}})
    code, output, errors = run(*WRITE, "--status", "keep", "--summary", summary)
    assert (code, errors) == (0, "") and output.startswith(f"wrote card {C}: keep\n")
    assert "\n  verdict    keep: first result of its track: the baseline\n" in output  # the decision packet
    assert len(output.splitlines()) <= 15
    assert run(*WRITE, "--status", "keep", "--summary", summary)[1] == f"added to card {C}: keep -> keep\n"
    (card,) = load_cards(knowledge)
    assert (card["run_id"], card["results"]["val_bpb"], card["results"]["depth"], card["track"]) == (C, 0.99, 8, "t")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (("--status", "crash"), f"status 'crash' contradicts run {A}, which has a result (0.997900)"),
        (("--status", "keep", "--result", "0.5"),
         f"result 0.5 contradicts run {A}, which measured 0.997900; give the right run's id"),
    ],
)  # fmt: skip
def test_a_contradiction_to_the_run_is_refused(run, knowledge, said, message):
    add_card(knowledge, KEPT)
    assert run(*WRITE, *said) == (2, "", f"error: {message}\n")
    assert not (knowledge / "events").exists()


def test_annotate(run, knowledge):
    add_card(knowledge, WORSE)
    add_card(knowledge, KEPT)
    words = ("--lesson", "pays later", "--category", "scheduling", "--tags", "x, ,y", "--prior-cards", "aaaa")
    assert run("annotate", "bbbb", *words) == (0, f"annotated card {B}\n", "")
    card = json.loads(run("show", "bbbb", "--json")[1])
    assert (card["lesson"], card["tags"], card["prior_knowledge_used"]) == ("pays later", ["x", "y"], [A])
    assert card["category"] == "scheduling"
    assert run("tags")[1].splitlines()[1:3] == ["0/1 | x", "0/1 | y"]
    assert json.loads(run("annotate", "last", "--lesson", "again", "--json")[1])["lesson"] == "again"


def test_retract_and_confirm(run, knowledge):
    add_card(knowledge, KEPT)
    add_card(knowledge, KEPT | {"id": B, "run_id": None, "results": {"val_bpb": 0.5}, "quarantined": "slow"})
    assert run("best")[1].startswith("aaaa")
    assert run("confirm", "--id", "bb") == (0, f"confirmed card {B}\n", "")
    assert run("best")[1].startswith("bbbb")
    assert run("retract", "--id", "bb", "--reason", "a leak") == (0, f"retracted card {B}, which said keep\n", "")
    assert run("best")[1].startswith("aaaa")
    line = f"error: card {B} is retracted: there is no result to confirm\n"
    assert run("confirm", "--id", "bb", "--reason", "still") == (2, "", line)
    again = json.loads(run("retract", "--id", "bb", "--reason", "two leaks", "--json")[1])
    assert (again["status_before"], again["retraction_reason"]) == ("keep", "two leaks")


def test_notes(run, knowledge):
    add_card(knowledge, KEPT)
    asked = last_word(run("note", "--kind", "question", "--text", "does depth pay?", "--evidence", "aaaa"))
    assert f"Open questions\n  {asked[:8]} | does depth pay?\n" in run("read-brief")[1]
    words = ("--text", "it does", "--session", "s", "--agent", "robot")
    code, output, errors = run("answer", asked[:6], *words)
    answer = output.split()[2].rstrip(":")
    assert (code, output, errors) == (0, f"wrote note {answer}: answers {asked}\n", "")
    assert "Open questions" not in run("read-brief")[1]
    said, question = (next(note for note in load_notes(knowledge) if note["id"] == name) for name in (answer, asked))
    assert (question["evidence"], said["answers"], said["agent"], said["session"]) == ([A], asked, "robot", "s")
    insight = run("note", "--kind", "insight", "--text", "depth pays")
    assert insight == (0, f"wrote note {last_word(insight)}: insight\n", "")
    assert run("search", "depth")[1].count("\n") == 3 and "it does" in run("search", "does")[1]


def test_two_sessions_side_by_side(run, knowledge):
    for session in ("mar8", "mar9"):
        for _ in range(2):
            last_word(run(*WRITE, "--status", "crash", "--session", session))
    assert run("export", "--session", "mar9", "--format", "jsonl")[1].count("\n") == 2
    for session in ("mar8", "mar9"):
        path = knowledge / "synthesis" / f"{session}.md"
        assert run("synthesize", "--session", session) == (0, f"wrote {path}\n", "")
        assert session in path.read_text()


def test_init_makes_a_commons_where_there_is_none(run, knowledge):
    new = knowledge.parent / "new"
    assert run("history", "--knowledge-dir", new)[0] == 2
    code, output, errors = run("init", "--knowledge-dir", new)
    assert (code, errors) == (0, "") and output.startswith("made ") and (new / "cards").is_dir()
    assert run("init", "--knowledge-dir", new)[1].startswith(f"the folders are in {new} already\n")
    assert run("history", "--knowledge-dir", new)[0] == 0


def test_update_index(run, knowledge):
    add_card(knowledge, KEPT)
    assert run("update-index") == (0, f"indexed 1 card in {knowledge}/index.json\n", "")
    (row,) = json.loads((knowledge / "index.json").read_text())["cards"]
    assert (row["id"], row["result"], row["status"]) == (A, 0.9979, "keep")
    add_card(knowledge, WORSE)
    assert json.loads(run("update-index", "--json")[1]) == {"path": f"{knowledge}/index.json", "cards": 2}


def test_ten_writers_at_once_lose_nothing(knowledge):
    command = [sys.executable, str(ROOT / "commons.py"), *WRITE, "--status", "keep", "--result", "1.0"]
    environment = os.environ | {"KNOWLEDGE_DIR": str(knowledge)}
    writers = [subprocess.Popen(command, env=environment, cwd=knowledge, stdout=subprocess.PIPE) for _ in range(10)]
    said = {writer.communicate()[0].decode().split()[2].rstrip(":") for writer in writers}
    assert {card["id"] for card in load_cards(knowledge)} == said and len(said) == 10
    command = [sys.executable, str(ROOT / "commons.py"), "query", "SELECT count(*) AS n FROM cards"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "n\n10\n"


def test_a_status_that_the_run_does_not_bear_leaves_nothing_behind(run, knowledge):
    add_card(knowledge, RUN | {"status": "inconclusive"})
    code, output, errors = run(*WRITE, "--status", "keep", "--run", "aaaa", "--result", "nan")
    assert (code, output) == (2, "") and errors.startswith("error: ")
    code, output, errors = run(*WRITE, "--status", "keep", "--run", "aaaa")
    assert (code, output, errors) == (
        2, "", "error: card field results.val_bpb: null is not allowed; a card with status keep needs a result\n",
    )  # fmt: skip
    assert not (knowledge / "events").exists()


def test_a_whole_id_that_begins_another_is_the_card(run, knowledge):
    for name in ("a" * 12, "a" * 12 + "b"):
        add_card(knowledge, KEPT | {"id": name, "run_id": name, "hypothesis": name})
    assert run("show", "a" * 12)[0] == 0
    assert run("show", "aaaa")[::2] == (2, f"error: 'aaaa' names 2 cards; give more of the id, such as {'a' * 12}\n")
    said = ("--status", "keep", "--result", "0.9979")
    assert run(*WRITE, *said, "--run", "a" * 12)[1] == f"added to card {'a' * 12}: keep -> keep\n"
    message = f"error: --run aaaa: several runs begin so; give more of the id, such as {'a' * 12}\n"
    assert run(*WRITE, *said, "--run", "aaaa")[::2] == (2, message)


def test_what_a_peer_wrote_is_harmless_in_every_answer(run, knowledge):
    odd = {"score": 1.5, "score_stderr": "big", "n": 10**400}
    about = {"metric": "score", "direction": "max", "track": "t\x1b[31m", "results": odd}
    add_card(knowledge, KEPT | about)
    add_card(knowledge, KEPT | about | {"id": B, "run_id": B, "results": odd | {"n": 3 * 10**400}})
    for words in (("show", A), ("diff", A, B), ("export", "--format", "parquet", "--out", "cards.parquet")):
        assert run(*words)[::2] == (0, "")
    assert run("best", "--track", "x")[::2] == (2, "error: --track 'x' is none of the tracks: t [31m\n")


def test_an_import_into_any_folder_has_the_metric_of_the_project(run, knowledge, tmp_path_factory):
    (knowledge.parent / "pyproject.toml").write_text('[tool.autoresearch]\nmetric = "speedup"\ndirection = "max"\n')
    (knowledge.parent / "results.tsv").write_text("commit\tspeedup\tstatus\tdescription\na1\t1.5\tkeep\tx\n")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert run("import", "results.tsv", "--knowledge-dir", elsewhere)[0] == 0
    assert load_cards(elsewhere)[0]["direction"] == "max"
