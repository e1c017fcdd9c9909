"""Two clones end with the same records whatever git, a rival, a kill or a hostile peer does in between."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.cards import add_card, join, load_cards, new_id
from lab.errors import SettingError, StoreError
from lab.git import INDEX_PREFIX, KNOWLEDGE_REF
from lab.merge import FOLDERS, MAX_FILE_BYTES
from lab.notes import add_note
from lab.setup import init
from lab.store import dump_json, replace
from lab.sync import sync

ROOT = Path(__file__).parent.parent
DEFAULT_BRANCH = "commons"
KEPT = {"status": "keep", "results": {"val_bpb": 0.99}}
SYNC = """
import sys
from pathlib import Path
from lab.sync import sync
sync(Path(sys.argv[1]), Path(sys.argv[1]) / "knowledge")
"""


@pytest.fixture(autouse=True)
def identity(monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    (tmp_path / "gitconfig").write_text(
        "[user]\n name = Tester\n email = t@example.org\n[init]\n defaultBranch = main\n"
    )


def git(folder, *arguments):
    done = subprocess.run(["git", *map(str, arguments)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Clone:
    """A clone of the remote with its commons, and what a test asks of it."""

    def __init__(self, path, remote=None, branch=None):
        self.path, self.knowledge = path, path / "knowledge"
        if remote:
            git(remote.parent, "clone", "-q", remote, path)
        if branch:
            git(path, "switch", "-qc", branch)
        init(path, self.knowledge)

    def write(self, **values):
        return add_card(self.knowledge, KEPT | values)["id"]

    def sync(self, **options):
        return sync(self.path, self.knowledge, **options)

    def files(self):
        """Every record on disk, with its bytes."""
        found = (path for folder in FOLDERS for path in (self.knowledge / folder).glob("[!.]*"))
        return {str(path.relative_to(self.knowledge)): path.read_bytes() for path in found}

    def process(self):
        command = [sys.executable, "-c", SYNC, self.path]
        return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)


@pytest.fixture
def remote(tmp_path):
    """A bare repository with two commits of code on main."""
    git(tmp_path, "init", "-q", "--bare", "remote.git")
    git(tmp_path, "clone", "-q", tmp_path / "remote.git", "seed")
    for number in (1, 2):
        (tmp_path / "seed" / "train.py").write_text(f"DEPTH = {number}\n")
        git(tmp_path / "seed", "add", ".")
        git(tmp_path / "seed", "commit", "-qm", f"depth {number}")
    git(tmp_path / "seed", "push", "-q", "origin", "main")
    return tmp_path / "remote.git"


@pytest.fixture
def two(tmp_path, remote):
    return Clone(tmp_path / "a", remote, "autoresearch/a"), Clone(tmp_path / "b", remote, "autoresearch/b")


def test_two_clones_end_with_the_same_bytes_in_either_order(two):
    a, b = two
    card = a.write(hypothesis="wider")
    first = a.sync()
    assert first[:3] == (1, 0, 0)
    b.write(hypothesis="deeper")
    assert b.sync()[:3] == (1, 1, 0)
    (other,) = (found for found in load_cards(b.knowledge) if found["id"] == card)
    join(b.knowledge, other, "retract", {"reason": "wrong data"})
    add_note(b.knowledge, kind="question", text="why?")
    a.write(hypothesis="later")
    assert b.sync()[:3] == (2, 0, 0)
    assert a.sync()[:3] == (1, 3, 0)
    assert b.sync()[:3] == (0, 1, 0)
    assert a.files() == b.files()
    assert load_cards(a.knowledge) == load_cards(b.knowledge)
    assert {found["status"] for found in load_cards(a.knowledge) if found["id"] == card} == {"retracted"}
    tip = a.sync()
    assert (tip[:3], tip.commit) == ((0, 0, 0), b.sync().commit)


def test_it_touches_nothing_but_the_knowledge_branch(two, remote):
    a, _ = two
    (a.path / "train.py").write_text("DEPTH = 3\n")
    (a.path / "new.py").write_text("x = 1\n")
    git(a.path, "add", "new.py")
    main, head, status = (git(remote, "rev-parse", "main"), git(a.path, "rev-parse", "HEAD"),
                          git(a.path, "status", "--porcelain=v2", "--branch"))  # fmt: skip
    index = (a.path / ".git" / "index").read_bytes()
    a.write()
    a.sync()
    assert git(remote, "rev-parse", "main") == main
    assert git(a.path, "rev-parse", "HEAD") == head
    assert git(a.path, "status", "--porcelain=v2", "--branch") == status
    assert (a.path / ".git" / "index").read_bytes() == index
    assert not (a.path / ".git" / "FETCH_HEAD").exists()
    names = git(remote, "ls-tree", "-r", "--name-only", DEFAULT_BRANCH).splitlines()
    assert names == [f"knowledge/{name}" for name in a.files()]
    assert git(remote, "log", "-1", "--format=%an <%ae> %s", DEFAULT_BRANCH) == (
        "Tester <t@example.org> Share 1 file of knowledge"
    )


AGENT_COMMANDS = [
    ["reset --hard HEAD~1"],
    ["clean -fd"],
    ["stash -u"],
    ["switch main", "switch -"],
    ["checkout -q HEAD~1"],
    ["pull origin main"],
    ["pull origin main", "reset --hard HEAD~1", "clean -fd", "switch main"],
    ["add -A", "commit --allow-empty -m all", "reset --hard HEAD~1"],
]


@pytest.mark.parametrize("commands", AGENT_COMMANDS)
@pytest.mark.parametrize("synced", [False, True])
def test_no_git_command_of_an_agent_loses_a_record(two, commands, synced):
    a, b = two
    a.write()
    a.sync()
    b.write()
    if synced:
        b.sync()
    (b.path / "train.py").write_text("DEPTH = 9\n")
    git(b.path, "commit", "-qam", "an experiment")
    (b.path / "scratch").write_text("")
    before = b.files()
    for command in commands:
        git(b.path, *command.split())
        assert b.files() == before


@pytest.mark.parametrize("command", ["clean -fdxq", "stash -aq"])
def test_what_takes_excluded_files_too_is_made_good_by_the_next_sync(two, command):
    a, _ = two
    a.write()
    a.sync()
    before = a.files()
    git(a.path, *command.split())
    assert a.files() == {}
    assert a.sync(remote=None)[:3] == (0, 0, 1)
    assert a.files() == before


@pytest.mark.parametrize("command", [["reset", "-q", "--hard", "HEAD~1"], ["switch", "-q", "before"]])
def test_with_main_as_the_knowledge_branch_the_next_sync_restores(tmp_path, remote, command):
    a, b = Clone(tmp_path / "a", remote), Clone(tmp_path / "b", remote)
    git(b.path, "branch", "before")
    a.write()
    b.write()
    a.sync(branch="main")
    b.sync(branch="main")
    a.sync(branch="main")
    before = b.files()
    git(b.path, "pull", "-q", "origin", "main")  # takes over the untracked files, whose bytes are the same
    assert (git(b.path, "status", "--porcelain"), b.files()) == ("", before)
    assert len(git(b.path, "ls-files", "knowledge").splitlines()) == 2
    git(b.path, *command)
    assert b.files() != before
    assert b.sync(branch="main").restored > 0
    assert b.files() == before == a.files()
    assert "train.py" in git(remote, "ls-tree", "--name-only", "main").splitlines()


def test_both_at_once(two):
    for round_number in range(4):
        for clone in two:
            for _ in range(3):
                clone.write()
        running = [clone.process() for clone in two for _ in range(2)]
        assert [(process.communicate(timeout=60)[1], process.returncode) for process in running] == [("", 0)] * 4
        assert len(two[0].files() | two[1].files()) == 6 * (round_number + 1)
    for clone in two:
        clone.sync()
    assert two[0].files() == two[1].files()


@pytest.mark.slow
def test_kill_9_at_any_point_loses_nothing(two):
    a, b = two
    chance = random.Random(5)
    killed = 0
    for _ in range(25):
        a.write()
        b.write()
        b.sync()
        known = a.files()
        process = a.process()
        time.sleep(chance.uniform(0.05, 0.6))
        os.killpg(process.pid, signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        process.stderr.close()
        assert known.items() <= a.files().items()
        assert a.sync() and not (a.path / ".git" / f"{KNOWLEDGE_REF}.lock").exists()
    assert killed > 5
    b.sync()
    assert a.files() == b.files()
    assert len(load_cards(a.knowledge)) == 50


@pytest.mark.parametrize("seed", range(4))
def test_three_clones_in_any_order(tmp_path, remote, seed):
    chance = random.Random(seed)
    clones = [Clone(tmp_path / name, remote, name) for name in ("a", "b", "c")]
    written = {}
    for _ in range(25):
        clone = chance.choice(clones)
        action = chance.choice(["card", "event", "synthesis", "sync", "lose"])
        cards = load_cards(clone.knowledge)
        if action == "card" or (action == "event" and not cards):
            clone.write()
        elif action == "event":
            join(clone.knowledge, chance.choice(cards), "annotate", {"lesson": str(chance.random())})
        elif action == "synthesis":
            replace(clone.knowledge / "synthesis" / "meta.md", str(chance.random()).encode())
        elif action == "sync":
            clone.sync()
        else:
            clone.sync()
            shutil.rmtree(clone.knowledge, ignore_errors=True)
        written |= {name: content for name, content in clone.files().items() if name.endswith(".json")}
    for clone in (*clones, *clones):
        clone.sync()
    assert clones[0].files() == clones[1].files() == clones[2].files()
    assert {name: text for name, text in clones[0].files().items() if name.endswith(".json")} == written


def state(clone):
    """Refs, config, index and files of a clone; not the object store, where a fetch leaves what nothing refers to."""
    files = {path: path.read_bytes() for path in clone.path.rglob("*")
             if path.is_file() and ".git/objects" not in str(path)}  # fmt: skip
    return files, git(clone.path, "for-each-ref")


def test_dry_run_changes_nothing(two, remote):
    a, b = two
    a.write()
    a.sync()
    b.write()
    before, refs = state(b), git(remote, "for-each-ref")
    done = b.sync(dry_run=True)
    assert done[:3] == (1, 1, 0)
    assert done.said == ["dry run: 1 record pushed, 1 fetched, 0 restored (branch commons of origin)"]
    assert (state(b), git(remote, "for-each-ref")) == (before, refs)
    shutil.rmtree(b.knowledge)
    assert b.sync(dry_run=True)[:3] == (0, 1, 0)
    assert not b.knowledge.exists()


def put(remote, clone, entries):
    """A peer's commit on the knowledge branch: {path: (mode, bytes)}."""
    environment = os.environ | {"GIT_INDEX_FILE": str(clone / "peer-index")}
    tip = git(remote, "rev-parse", DEFAULT_BRANCH)
    subprocess.run(["git", "read-tree", tip], cwd=remote, env=environment, check=True)
    lines = ""
    for path, (mode, content) in entries.items():
        made = subprocess.run(
            ["git", "hash-object", "-w", "--stdin"], cwd=remote, input=content, capture_output=True, check=True
        )
        lines += f"{mode} {made.stdout.decode().strip()}\t{path}\0"
    subprocess.run(["git", "update-index", "-z", "--index-info"], cwd=remote, env=environment, input=lines.encode(),
                   check=True)  # fmt: skip
    tree = subprocess.run(["git", "write-tree"], cwd=remote, env=environment, capture_output=True, text=True).stdout
    commit = git(remote, "-c", "user.name=x", "-c", "user.email=x@x", "commit-tree", tree.strip(), "-p", tip, "-m", "x")
    git(remote, "update-ref", f"refs/heads/{DEFAULT_BRANCH}", commit)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def card_bytes(clone, **values):
    """A valid card as bytes, without leaving it in the commons."""
    card = add_card(clone.path / "elsewhere", KEPT | values)
    return card["id"], dump_json(card)


def test_a_hostile_peer(two, remote, tmp_path):
    a, b = two
    a.write()
    a.sync()
    good, content = card_bytes(a)
    huge = dump_json(json.loads(card_bytes(a, id="e" * 12)[1]) | {"lesson": "x" * MAX_FILE_BYTES})
    put(remote, tmp_path, {
        f"knowledge/cards/{good}.json": ("100644", content),
        "knowledge/cards/" + "a" * 12 + ".json": ("120000", b"/etc/passwd"),
        "knowledge/cards/" + "b" * 12 + ".json": ("100644", b"{"),
        "knowledge/cards/" + "c" * 12 + ".json": ("100644", content),
        "knowledge/cards/" + "d" * 12 + ".json": ("100644", b"[]"),
        "knowledge/cards/" + "e" * 12 + ".json": ("100644", huge),
        "knowledge/notes/" + "f" * 12 + ".json": ("100644", b'{"id": "ffffffffffff"}'),
        "knowledge/cards/\x1b[31m.json": ("100644", content),
        "knowledge/cards/deep/" + "a" * 13 + ".json": ("100644", content),
        "knowledge/cards/.gitkeep": ("100644", b""),
        "knowledge/synthesis/..x.md": ("100644", b"x"),
        "train.py": ("100644", b"import os"),
    })  # fmt: skip
    done = b.sync()
    assert done[:3] == (0, 2, 0)
    assert set(os.listdir(b.knowledge / "cards")) == {f"{good}.json", *os.listdir(a.knowledge / "cards")}
    assert (b.path / "train.py").read_text() == "DEPTH = 2\n"
    assert os.listdir(b.knowledge / "synthesis") == os.listdir(b.knowledge / "notes") == []
    said = "\n".join(done.said)
    assert "cards/bbbbbbbbbbbb.json is not JSON (on the knowledge branch: left there)" in done.said
    assert "cards/cccccccccccc.json holds a record of another id (on the knowledge branch: left there)" in done.said
    assert "'cards/aaaaaaaaaaaa.json' is no plain file with a record's name" in said
    assert r"'cards/\x1b[31m.json'" in said
    assert "\x1b" not in said
    b.write()
    assert b.sync()[:3] == (1, 0, 0)


@pytest.mark.parametrize("loser", ["a", "b"])
def test_one_name_with_two_contents_is_decided_alike_everywhere(two, loser):
    a, b = two
    versions = sorted((card_bytes(a, id="a" * 12, hypothesis=str(n))[1], shutil.rmtree(a.path / "elsewhere"))[0]
                      for n in range(2))  # fmt: skip
    versions.sort(key=sha256, reverse=loser == "a")
    for clone, content in zip(two, versions, strict=True):
        (clone.knowledge / "cards" / ("a" * 12 + ".json")).write_bytes(content)
    a.sync()
    said = b.sync().said + a.sync().said
    winner = min(versions, key=sha256)
    assert a.files() == b.files() == {"cards/" + "a" * 12 + ".json": winner}
    assert "cards/aaaaaaaaaaaa.json had two contents: the smaller SHA-256 stays, the other is in quarantine/" in said
    kept = [path.read_bytes() for clone in two for path in (clone.knowledge / "quarantine" / "cards").glob("*")]
    assert set(kept) == set(versions) - {winner}
    assert a.sync()[:3] == b.sync()[:3] == (0, 0, 0)


def test_a_damaged_file_is_named_and_not_shared(two):
    a, b = two
    good = a.write()
    bad = new_id()
    (a.knowledge / "cards" / f"{bad}.json").write_text('{"id"')
    done = a.sync()
    assert done.said == [
        f"cards/{bad}.json is not JSON (here: not shared, `commons.py doctor` sets it right)",
        "1 record pushed, 0 fetched, 0 restored (branch commons of origin)",
    ]
    b.sync()
    assert list(b.files()) == [f"cards/{good}.json"]


def test_a_synthesis_written_here_stays_and_a_newer_one_comes(two):
    a, b = two
    here, there = (clone.knowledge / "synthesis" / "meta.md" for clone in two)
    here.write_text("one")
    a.sync()
    b.sync()
    assert there.read_text() == "one"
    here.write_text("two")
    a.sync()
    there.write_text("three")
    b.sync()
    assert there.read_text() == "three"
    a.sync()
    assert here.read_text() == "three"


def test_a_commons_in_a_subfolder_shares_the_branch(two):
    a, b = two
    a.write()
    a.sync()
    inner = a.path / "examples" / "sorting of ümlauts" / "knowledge"
    card = add_card(inner, KEPT)
    sync(a.path, inner)
    there = b.path / "examples" / "sorting of ümlauts" / "knowledge"
    assert sync(b.path, there)[:3] == (0, 1, 0)
    assert load_cards(there) == [card]
    assert b.sync().restored == 1  # its clone's ref knows it since the other commons was synced


def test_a_linked_worktree_shares_the_main_ones_commons(two):
    a, b = two
    git(a.path, "worktree", "add", "-q", "-b", "w", "../linked")
    card = a.write()
    assert sync(a.path.parent / "linked", a.knowledge).pushed == 1
    b.sync()
    assert [found["id"] for found in load_cards(b.knowledge)] == [card]


@pytest.mark.parametrize("prepare", [[], [["checkout", "-q", "--detach"]], [["checkout", "-q", "--orphan", "new"]]])
def test_head_does_not_matter(two, prepare):
    a, _ = two
    for command in prepare:
        git(a.path, *command)
    a.write()
    assert a.sync().pushed == 1


def test_an_empty_remote_and_a_clone_without_commits_or_identity(tmp_path, monkeypatch):
    (tmp_path / "gitconfig").write_text("[init]\n defaultBranch = main\n")
    git(tmp_path, "init", "-q", "--bare", "empty.git")
    a = Clone(tmp_path / "a", tmp_path / "empty.git")
    nothing = "0 records pushed, 0 fetched, 0 restored (branch commons of origin)"
    assert a.sync() == (0, 0, 0, None, DEFAULT_BRANCH, [nothing])
    a.write()
    assert a.sync().pushed == 1
    assert git(a.path, "log", "-1", "--format=%an <%ae>", KNOWLEDGE_REF) == "autoresearch-commons <noreply@localhost>"


def test_a_shallow_clone(tmp_path, remote, two):
    a, _ = two
    a.write()
    a.sync()
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{remote}", "shallow")
    shallow = Clone(tmp_path / "shallow")
    shallow.write()
    assert shallow.sync()[:3] == (1, 1, 0)


def test_without_a_remote_the_records_are_committed_here(tmp_path):
    git(tmp_path, "init", "-q", "alone")
    a = Clone(tmp_path / "alone")
    a.write()
    done = a.sync()
    assert done.said == [
        f"no remote 'origin' here: the records are committed to {KNOWLEDGE_REF} of this clone only",
        f"1 record pushed, 0 fetched, 0 restored ({KNOWLEDGE_REF})",
    ]
    assert git(a.path, "rev-parse", KNOWLEDGE_REF) == done.commit
    git(tmp_path, "init", "-q", "--bare", "later.git")
    git(a.path, "remote", "add", "origin", "../later.git")
    assert a.sync().commit == done.commit == git(tmp_path / "later.git", "rev-parse", DEFAULT_BRANCH)


def message_of(error, function, *arguments, **options):
    with pytest.raises(error) as raised:
        function(*arguments, **options)
    return str(raised.value)


def test_settings_that_cannot_be(two, tmp_path, monkeypatch):
    a, _ = two
    assert message_of(SettingError, a.sync, remote="orgin") == "no remote 'orgin' in this clone; it has origin"
    assert message_of(SettingError, a.sync, branch="a..b") == (
        "'a..b' cannot name a branch; set knowledge_branch in pyproject.toml"
    )
    outside = tmp_path / "outside"
    assert message_of(SettingError, sync, a.path, outside) == (
        f"{outside} is not in a git repository that holds {a.path}: sync needs one (`git init`)"
    )


def test_an_unreachable_remote_loses_nothing(two, remote):
    a, _ = two
    a.write()
    a.sync()
    a.write()
    away = remote.rename(remote.with_name("away.git"))
    said = message_of(StoreError, a.sync)
    assert said == (
        f"cannot sync with origin: git ls-remote: fatal: '{remote}' does not appear to be a git repository; "
        f"the records are safe in {KNOWLEDGE_REF}; run `commons.py sync` again later"
    )
    git(a.path, "clean", "-fdxq")
    away.rename(remote)
    done = a.sync()
    assert done[:3] == (1, 0, 2)


def test_a_refused_push_is_one_line_and_what_came_is_kept(two, remote):
    a, b = two
    a.write()
    a.sync()
    b.write()
    hook = remote / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'no \033[31mpermission'\nexit 1\n")
    hook.chmod(0o755)
    said = message_of(StoreError, b.sync)
    assert said.startswith("cannot sync with origin: git push: ! [remote rejected] ")
    assert f"(pre-receive hook declined); the records are safe in {KNOWLEDGE_REF}; " in said
    assert "\n" not in said
    assert len(b.files()) == 2
    hook.unlink()
    assert b.sync()[:3] == (1, 0, 0)


def test_hooks_of_the_user_do_not_run(two):
    a, _ = two
    for name in ("pre-push", "reference-transaction", "post-index-change", "pre-commit"):
        hook = a.path / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text("#!/bin/sh\ntouch ran\nexit 1\n")
        hook.chmod(0o755)
    a.write()
    assert a.sync().pushed == 1
    assert not list(a.path.rglob("ran"))


def test_what_a_killed_sync_has_left_is_cleared(two):
    a, _ = two
    old = time.time() - 7200
    lock = a.path / ".git" / f"{KNOWLEDGE_REF}.lock"
    index = a.path / ".git" / f"{INDEX_PREFIX}x"
    lock.parent.mkdir(parents=True)
    lock.touch()
    index.mkdir()
    os.utime(lock, (old, old))
    os.utime(index, (old, old))
    a.write()
    assert a.sync().pushed == 1
    assert not lock.exists()
    assert not index.exists()


def test_the_branch_of_a_remote_that_was_rewound_is_filled_again(two, remote):
    a, _ = two
    a.write()
    first = a.sync().commit
    a.write()
    a.sync()
    git(remote, "update-ref", f"refs/heads/{DEFAULT_BRANCH}", first)
    git(a.path, "clean", "-fdxq")
    assert a.sync()[:3] == (1, 0, 2)
    assert len(git(remote, "ls-tree", "-r", "--name-only", DEFAULT_BRANCH).splitlines()) == 2


def test_a_hook_of_git_may_sync(two, monkeypatch):
    """Git tells its hooks where its folder is, which is not meant for the git that sync starts."""
    a, _ = two
    a.write()
    monkeypatch.setenv("GIT_DIR", str(a.path / ".git"))
    done = a.sync()
    monkeypatch.delenv("GIT_DIR")
    assert done.pushed == 1
    assert a.files() and "knowledge/cards/" in git(a.path, "ls-tree", "-r", "--name-only", KNOWLEDGE_REF)
