"""`init` makes folders and excludes them, says what it did, and is harmless twice."""

import os
import subprocess

import pytest

from lab.cards import add_card
from lab.errors import StoreError
from lab.setup import BEGIN, END, init

KEPT = {"status": "keep", "results": {"val_bpb": 0.99}}


@pytest.fixture(autouse=True)
def identity(monkeypatch, tmp_path):
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "Tester")
        monkeypatch.setenv(f"{name}_EMAIL", "t@example.org")
    monkeypatch.delenv("AUTORESEARCH_RUNS_DIR", raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))


def git(folder, *arguments):
    done = subprocess.run(["git", *map(str, arguments)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    git(tmp_path, "init", "-q", "-b", "main", "repo")
    git(tmp_path / "repo", "commit", "-q", "--allow-empty", "-m", "first")
    return tmp_path / "repo"


def ignored(folder, *names):
    """Those of the names that git ignores."""
    done = subprocess.run(["git", "check-ignore", "--no-index", *names], cwd=folder, capture_output=True, text=True)
    return done.stdout.splitlines()


def test_init_says_what_it_did_and_twice_is_harmless(checkout):
    knowledge, info = checkout / "knowledge", checkout / ".git" / "info"
    assert init(checkout, knowledge) == [
        f"made cards, events, notes, synthesis in {knowledge}",
        f"git passes over records, index, queue and runs now ({info}/exclude)",
        f"git keeps the bytes of records as they are now ({info}/attributes)",
    ]
    before = (info / "exclude").read_bytes(), (info / "attributes").read_bytes()
    assert init(checkout, knowledge) == [
        f"the folders are in {knowledge} already",
        f"git passes over records, index, queue and runs already ({info}/exclude)",
        f"git keeps the bytes of records as they are already ({info}/attributes)",
    ]
    assert ((info / "exclude").read_bytes(), (info / "attributes").read_bytes()) == before


def test_what_is_excluded(checkout):
    init(checkout, checkout / "knowledge")
    ours = ["knowledge/cards/a.json", "knowledge/synthesis/meta.md", "knowledge/index.sqlite-wal",
            "knowledge/queue.json.bak", "knowledge/queue.lock", "runs/x/run.log", "knowledge/quarantine/x"]  # fmt: skip
    theirs = ["train.py", "cards/a.json", "knowledge/README.md", "src/runs/x", "other/knowledge/cards/a.json"]
    assert ignored(checkout, *ours, *theirs) == ours


def test_lines_of_the_user_stay(checkout):
    exclude = checkout / ".git" / "info" / "exclude"
    exclude.parent.mkdir(exist_ok=True)
    exclude.write_bytes(b"*.swp\ncaf\xe9")
    init(checkout, checkout / "knowledge")
    with open(exclude, "ab") as file:
        file.write(b"mine\n")
    init(checkout, checkout / "examples" / "so *rt" / "knowledge")
    content = exclude.read_bytes()
    assert content.startswith(b"*.swp\ncaf\xe9\n" + BEGIN.encode())
    assert content.endswith(END.encode() + b"\nmine\n")
    assert content.count(BEGIN.encode()) == 1
    assert ignored(checkout, "examples/so *rt/knowledge/cards/a", "examples/so xrt/knowledge/cards/a") == [
        "examples/so *rt/knowledge/cards/a"
    ]
    attribute = git(checkout, "check-attr", "text", "--", "examples/so *rt/knowledge/cards/a")
    assert attribute.endswith(": text: unset")


def test_records_keep_their_bytes_where_line_ends_are_converted(checkout):
    init(checkout, checkout / "knowledge")
    card = add_card(checkout / "knowledge", KEPT)
    path = checkout / "knowledge" / "cards" / f"{card['id']}.json"
    content = path.read_bytes()
    git(checkout, "config", "core.autocrlf", "true")
    git(checkout, "add", "-f", path)
    git(checkout, "commit", "-qm", "tracked")
    path.unlink()
    git(checkout, "checkout", "--", path)
    assert path.read_bytes() == content
    assert init(checkout, checkout / "knowledge")[-1] == (
        "1 records are tracked on this branch: a switch or reset to a commit without them removes them until the next "
        "`commons.py sync`; `git rm -r --cached` on their folders ends that"
    )


def test_a_linked_worktree_shares_the_excludes(checkout, tmp_path):
    git(checkout, "worktree", "add", "-q", tmp_path / "linked")
    init(tmp_path / "linked", checkout / "knowledge")
    assert ignored(checkout, "knowledge/cards/a.json") == ["knowledge/cards/a.json"]
    assert ignored(tmp_path / "linked", "knowledge/cards/a.json", "runs/x") == ["knowledge/cards/a.json", "runs/x"]


def test_without_git_and_outside_of_the_repository(checkout, tmp_path):
    outside = tmp_path / "outside"
    assert init(checkout, outside) == [
        f"made cards, events, notes, synthesis in {outside}",
        f"{outside} is in no git repository that {checkout} belongs to: nothing to exclude, and `commons.py sync` "
        "cannot share it",
    ]
    assert sorted(os.listdir(outside)) == ["cards", "events", "notes", "synthesis"]
    assert init(tmp_path / "plain", outside)[1].endswith("nothing to exclude, and `commons.py sync` cannot share it")


def test_a_block_that_was_cut_is_not_guessed_at(checkout):
    exclude = checkout / ".git" / "info" / "exclude"
    exclude.parent.mkdir(exist_ok=True)
    exclude.write_text(f"{BEGIN}\nx\n")
    with pytest.raises(StoreError) as raised:
        init(checkout, checkout / "knowledge")
    assert str(raised.value) == (
        f"{exclude}: the line {END!r} is missing after {BEGIN!r}; remove what is left of the block"
    )
    assert exclude.read_text() == f"{BEGIN}\nx\n"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as raised:
        init(tmp_path, tmp_path / "file" / "knowledge")
    assert str(raised.value) == f"cannot make {tmp_path}/file/knowledge/cards: Not a directory"
