"""The current tree as an experiment: what is refused, which commit is run, and what becomes of the tree afterwards."""

import os
import re
import shutil
import subprocess

import pytest

from lab.cards import add_card, machine, utc_now
from lab.current import commit_of_tree, inspect, settle, subject_of
from lab.edits import edit_key
from lab.errors import SettingError, StoreError
from lab.git import full_hash
from lab.schema import complete

TRACK = "toy/box"
FILES = {
    "pyproject.toml": "[tool.autoresearch]\n",
    ".gitignore": "runs/\n*.log\n__pycache__/\n",
    "README.md": "about\n",
    "prepare.py": "FAIR = True\n",
    "train.py": "LR = 0.1\n",
    "lab/recorder.py": "honest = True\n",
}


class Repo:
    """A git repository with a project, on a branch of a session; the commons is beside it."""

    def __init__(self, folder, below="", template=None):
        self.top, self.project, self.knowledge = folder, folder / below, folder.parent / "knowledge"
        if template:
            shutil.copytree(template.top, folder)
            return
        self.project.mkdir(parents=True)
        self.git("-C", str(folder), "init", "-q", "-b", "main")
        for name, text in FILES.items():
            self.write(name, text)
        self.commit("the baseline")
        self.git("switch", "-q", "-c", "autoresearch/tonight")

    def git(self, *words):
        done = subprocess.run(["git", *words], cwd=self.project, check=True, capture_output=True, text=True)
        return done.stdout.rstrip("\n")

    def write(self, name, text):
        path = self.project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def commit(self, subject, **files):
        """All that there is, and what is named by its stem, as a commit; its hash."""
        for name, text in files.items():
            self.write(f"{name}.py", text)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", subject)
        return self.head()

    def head(self, name="HEAD"):
        return self.git("rev-parse", name)

    def inspect(self, replicate=False):
        return inspect(self.project, self.knowledge, replicate)

    def record(self, commit, source, result=1.0, **fields):
        """A card of a run of this machine."""
        status = fields.pop("status", "keep")
        results = {} if status == "crash" else {"val_bpb": result}
        if status == "crash":
            fields = {"error": {"kind": "exception", "phase": None, "summary": "no", "tail": []}} | fields
        values = {
            "timestamp": utc_now(), "track": TRACK, "status": status, "results": results, "commit": commit,
            "edit_key": edit_key(source.encode()), "platform": {"machine": machine()},
        } | fields  # fmt: skip
        return add_card(self.knowledge, complete({"id": os.urandom(8).hex()} | values))

    def state(self):
        """Where HEAD is and on which branch, what git says of the files, and what they hold."""
        files = {path: path.read_bytes() for path in sorted(self.top.rglob("*")) if path.is_file()}
        contents = {path: text for path, text in files.items() if ".git" not in path.relative_to(self.top).parts}
        return self.head(), self.git("rev-parse", "--abbrev-ref", "HEAD"), self.git("status", "-s"), contents


@pytest.fixture(autouse=True, scope="module")
def surroundings(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("AUTORESEARCH_", "GIT_")) or name == "KNOWLEDGE_DIR":
                patch.delenv(name)
        for name, value in (("NAME", "tester"), ("EMAIL", "tester@localhost")):
            patch.setenv(f"GIT_AUTHOR_{name}", value)
            patch.setenv(f"GIT_COMMITTER_{name}", value)
        patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        patch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path_factory.getbasetemp()))
        yield


@pytest.fixture(scope="module")
def templates(surroundings, tmp_path_factory):
    """To be copied, which is faster than git."""
    folder = tmp_path_factory.mktemp("templates")
    return {below: Repo(folder / f"{len(below)}", below) for below in ("", "examples/sorting")}


@pytest.fixture
def below():
    return ""


@pytest.fixture
def repo(templates, tmp_path, below):
    return Repo(tmp_path / "repo", below, templates[below])


def deleted(repo):
    (repo.project / "train.py").unlink()


def linked(repo):
    deleted(repo)
    (repo.project / "train.py").symlink_to("prepare.py")


def staged(repo):
    repo.write("README.md", "more\n")
    repo.git("add", "README.md")
    repo.write("README.md", "about\n")
    repo.write("prepare.py", "FAIR = False\n")
    repo.git("add", ".")


def hidden(repo):
    """A frozen file is changed by a commit, and git is told not to look at it."""
    repo.commit("cheat", prepare="FAIR = False\n")
    repo.git("update-index", "--assume-unchanged", "prepare.py")
    repo.write("prepare.py", "FAIR = True\n")


def undone(repo):
    repo.commit("cheat", prepare="FAIR = False\n")
    repo.write("prepare.py", "FAIR = True\n")


def conflicting(repo):
    repo.git("switch", "-q", "-c", "other")
    repo.commit("other", train="LR = 0.2\n")
    repo.git("switch", "-q", "autoresearch/tonight")
    repo.commit("mine", train="LR = 0.3\n")
    subprocess.run(["git", "merge", "-q", "other"], cwd=repo.project, capture_output=True)


FROZEN = "is not what it was in BASE: it is frozen, and runs would not compare; take it back: git checkout BASE --"
ALONE = "an experiment edits train.py alone"
REFUSALS = {
    "a frozen file, edited": (
        lambda repo: repo.write("prepare.py", "FAIR = False\n"),
        f"prepare.py {FROZEN} prepare.py",
    ),
    "a frozen file, staged": (staged, f"prepare.py {FROZEN} prepare.py"),
    "a frozen file, gone": (lambda repo: (repo.project / "prepare.py").unlink(), f"prepare.py {FROZEN} prepare.py"),
    "a frozen file, committed": (
        lambda repo: repo.commit("cheat", prepare="FAIR = False\n"), f"prepare.py {FROZEN} prepare.py",
    ),
    "a frozen file, committed and hidden": (hidden, f"prepare.py {FROZEN} prepare.py"),
    "a frozen file, committed and undone": (undone, f"prepare.py {FROZEN.replace('BASE', 'HEAD')} prepare.py"),
    "a file in a frozen folder": (
        lambda repo: repo.write("lab/recorder.py", "honest = False\n"), f"lab/recorder.py {FROZEN} lab/recorder.py",
    ),
    "a new file in a frozen folder": (
        lambda repo: (repo.write("lab/more.py", ""), repo.git("add", ".")),
        "lab/more.py is not in BASE: it is frozen, and runs would not compare; remove it: git rm -f lab/more.py",
    ),
    "another file, edited": (
        lambda repo: repo.write("README.md", "more\n"),
        f"README.md is not what it was in BASE: {ALONE}; take it back: git checkout BASE -- README.md",
    ),
    "another file, committed": (
        lambda repo: repo.commit("help", helper=""),
        f"helper.py is not in BASE: {ALONE}; remove it: git rm -f helper.py",
    ),
    "a new module": (
        lambda repo: repo.write("helper.py", ""),
        f"helper.py is new, and {ALONE}: it would not be there in the run; put it into the script, or remove it",
    ),
    "conflicts": (conflicting, "train.py has conflicts of a merge; settle them first"),
    "no script": (deleted, "train.py is gone, or is no plain file; restore it: git checkout HEAD -- train.py"),
    "a link for a script": (linked, "train.py is gone, or is no plain file; restore it: git checkout HEAD -- train.py"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("below", ["", "examples/sorting"])
def test_what_is_refused(repo, name):
    base = repo.head()
    spoil, message = REFUSALS[name]
    spoil(repo)
    before = repo.state()
    with pytest.raises(SettingError) as caught:
        repo.inspect()
    assert str(caught.value) == message.replace("BASE", base[:12]).replace("HEAD:", f"{repo.head()[:12]}:").replace(
        "git checkout HEAD -- prepare", f"git checkout {repo.head()[:12]} -- prepare"
    )
    assert repo.state() == before


REMEDIES = {
    "checkout": "a frozen file, edited",
    "rm": "a new file in a frozen folder",
    "commit": "another file, committed",
}


@pytest.mark.parametrize("name", REMEDIES.values(), ids=REMEDIES)
def test_the_remedy_helps(repo, name):
    REFUSALS[name][0](repo)
    with pytest.raises(SettingError) as caught:
        repo.inspect()
    repo.git(*re.search("git ((checkout|rm) .*)", str(caught.value))[1].split())
    if "committed" in name:
        repo.git("commit", "-qm", "taken back")
    assert repo.inspect().edited == {}


@pytest.mark.parametrize("default", ["main", "master", "origin", "none"])
def test_what_is_on_the_default_branch_a_person_meant(repo, default):
    if default == "origin":
        repo.git("update-ref", "refs/remotes/origin/trunk", "main")
        repo.git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/trunk")
    if default != "main":
        repo.git("branch", "-m", "main", default if default == "master" else "whatever")
    begun = repo.head()
    repo.commit("a new rule", prepare="FAIR = 'more'\n")
    if default == "none":
        assert repo.inspect().base == repo.head()
        return
    with pytest.raises(SettingError, match=r"prepare.py is not what it was in"):
        repo.inspect()
    ref = {"origin": "refs/remotes/origin/trunk"}.get(default, f"refs/heads/{default}")
    repo.git("update-ref", ref, "HEAD")
    assert (repo.inspect().base, begun) == (repo.head(), repo.head("HEAD~1"))


def test_a_new_rule_that_is_merged_is_meant(repo):
    repo.commit("an idea", train="LR = 0.2\n")
    repo.git("switch", "-q", "main")
    rule = repo.commit("a new rule", prepare="FAIR = 'more'\n")
    repo.git("switch", "-q", "-")
    repo.git("merge", "-q", "-m", "take over", "main")
    assert repo.inspect().base == rule


def test_files_that_git_ignores_or_that_are_no_code_are_nobodys_business(repo):
    repo.write("notes.txt", "mine\n")
    repo.write("debug.log", "")
    repo.write("runs/abc/train.py", "")
    repo.write(".venv/lib.py", "")
    repo.write(".gitignore", FILES[".gitignore"])
    (repo.top / ".git" / "info" / "exclude").write_text(".venv\n")
    assert repo.inspect().edited == {}


@pytest.mark.parametrize("below", ["examples/sorting"])
def test_outside_of_the_projects_folder_anything_goes(repo):
    (repo.top / "other.py").write_text("")
    repo.commit("another project")
    (repo.top / "other.py").write_text("changed")
    assert repo.inspect().edited == {}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (lambda repo: shutil.rmtree(repo.top / ".git"), "git rev-parse: fatal: not a git repository (or any of the "
         "parent directories): .git; experiments are commits: make PROJECT a git repository of yours"),
        (lambda repo: repo.git("switch", "-q", "--orphan", "fresh"),
         "PROJECT has no commit yet, and experiments are commits; make the first: git commit"),
    ],
    ids=["no repository", "no commit"],
)  # fmt: skip
def test_where_there_is_no_commit(repo, setting, message):
    setting(repo)
    with pytest.raises(StoreError) as caught:
        repo.inspect()
    assert str(caught.value) == message.replace("PROJECT", str(repo.project))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_commons_that_cannot_be_written(repo):
    repo.knowledge.mkdir()
    repo.knowledge.chmod(0o500)
    with pytest.raises(StoreError) as caught:
        repo.inspect()
    assert str(caught.value) == (
        f"cannot write in {repo.knowledge}: Permission denied; the card of the run is kept there"
    )


@pytest.mark.parametrize("spoil", ["edit", "remove"])
def test_a_record_that_was_committed_is_never_changed(repo, spoil):
    repo.knowledge = repo.project / "knowledge"
    card = repo.record(None, "LR = 0.3\n")
    repo.commit("records")
    repo.git("branch", "-f", "main")
    other = repo.record(None, "LR = 0.2\n")  # a new one is fine
    assert repo.inspect().edited == {}
    name = f"knowledge/cards/{card['id']}.json"
    repo.write(name, "{}") if spoil == "edit" else (repo.project / name).unlink()
    with pytest.raises(SettingError) as caught:
        repo.inspect()
    assert str(caught.value) == (
        f"{name} is not what was committed, and a record is never changed; restore it: git checkout HEAD -- {name}"
    )
    assert (repo.project / f"knowledge/cards/{other['id']}.json").is_file()


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        ({"status": "keep"}, "keep"),
        ({"status": "revert"}, "revert"),
        ({"status": "crash"}, "crash"),
        ({"status": "crash", "error": {"kind": "killed", "phase": None, "summary": "", "tail": []}}, None),
        ({"status": "keep", "track": "toy/other", "platform": {}}, None),
    ],
    ids=["kept", "reverted", "crashed", "killed", "another track"],
)
def test_an_edit_that_has_been_run(repo, values, refused):
    repo.record(repo.head(), FILES["train.py"])
    card = repo.record(None, "LR = 0.2\n", 1.1, **values)
    repo.write("train.py", "LR  =  .2  # the same, in other words\n")
    if refused is None:
        assert list(repo.inspect().edited) == ["train.py"]
        return
    with pytest.raises(SettingError) as caught:
        repo.inspect()
    assert str(caught.value) == (
        f"it has been run: card {card['id']} ({refused}) is this very edit; to run it once more, with another seed: "
        "--replicate --seed N"
    )
    assert list(repo.inspect(replicate=True).edited) == ["train.py"]


def test_of_several_editable_files_all_must_be_the_same(repo):
    repo.write("pyproject.toml", '[tool.autoresearch]\neditable = ["train.py", "model"]\n')
    repo.write("model/net.py", "DEPTH = 1\n")
    commit = repo.commit("two files")
    repo.git("branch", "-f", "main")
    repo.record(commit, FILES["train.py"])
    with pytest.raises(SettingError, match="it has been run"):
        repo.inspect()
    repo.write("model/net.py", "DEPTH = 2\n")
    assert list(repo.inspect().edited) == ["model/net.py"]
    repo.git("checkout", "-q", "model/net.py")
    repo.write("model/new.py", "WIDTH = 2\n")
    tree = repo.inspect()
    assert tree.edited == {"model/new.py": b"WIDTH = 2\n"}
    tried = commit_of_tree(tree, "wider")
    assert repo.git("show", "--format=", "--name-only", tried) == "model/new.py"
    assert settle(tree, tried, card_of("revert"), repo.knowledge) == (
        f"back at {commit[:12]}; what was tried is {tried[:12]}"
    )
    assert (repo.git("status", "-s"), sorted(os.listdir(repo.project / "model"))) == ("", ["net.py"])


# The commit.


def test_the_commit_of_an_edit_is_on_top_of_head_and_moves_nothing(repo):
    repo.write("train.py", "LR = 0.2\n")
    repo.git("add", "train.py")
    before = repo.state()
    commit = commit_of_tree(repo.inspect(), "  a higher\n\nLR \x1b[31m  ")
    assert repo.state() == before
    assert (repo.head(f"{commit}~1"), repo.git("log", "-1", "--format=%B", commit)) == (repo.head(), "a higher LR [31m")
    assert repo.git("show", f"{commit}:train.py") == "LR = 0.2"


def test_without_an_edit_the_commit_is_head(repo):
    tree = repo.inspect()
    assert (commit_of_tree(tree, "nothing new"), subject_of(tree)) == (repo.head(), "the baseline")


def test_line_ends_are_committed_as_git_would(repo):
    (repo.top / ".git" / "info" / "attributes").write_text("*.py text\n")
    (repo.project / "train.py").write_bytes(b"LR = 0.2\r\n")
    tree = repo.inspect()
    commit = commit_of_tree(tree, "an idea")
    assert repo.git("cat-file", "blob", f"{commit}:train.py") == "LR = 0.2"
    assert settle(tree, commit, card_of("keep"), repo.knowledge).startswith("autoresearch/tonight is at")
    assert repo.git("status", "-s") == ""


# What becomes of the tree.


def card_of(status, action=None, quarantined=None):
    action = action or {"keep": "promote", "crash": "fix_and_retry"}.get(status, "abandon")
    return {"status": status, "decision": {"action": action}, "quarantined": quarantined, "track": TRACK}


class Night:
    """A champion, other files in every state, and perhaps commits on top; `settle` tells what a result changes."""

    def __init__(self, repo, commits=0, dirty=True):
        self.repo = repo
        self.champion = repo.commit("the champion", train="LR = 0.2\n")
        repo.record(self.champion, "LR = 0.2\n", 0.9)
        for number in range(commits):
            repo.commit(f"step {number}", train=f"LR = {0.3 + number / 10}\n")
        repo.write("notes.txt", "mine\n")
        repo.write("debug.log", "ignored\n")
        repo.write("knowledge/cards/0.json", "{}\n")
        (repo.top / ".git" / "info" / "exclude").write_text("knowledge/\n")
        self.start = repo.head()
        if dirty:
            repo.write("train.py", "LR = 9\n")
        self.tree = repo.inspect(replicate=True)
        self.commit = commit_of_tree(self.tree, "the idea")

    def settle(self, *values):
        """(what is told, what HEAD is now, the script, whether all else is as it was)"""
        others = self.others()
        told = settle(self.tree, self.commit, card_of(*values), self.repo.knowledge)
        assert self.others() == others
        for name, commit in (("CHAMPION", self.champion), ("START", self.start), ("COMMIT", self.commit)):
            told = told.replace(commit[:12], name)
        return told, self.repo.head(), (self.repo.project / "train.py").read_text()

    def others(self):
        *_, status, files = self.repo.state()
        kept = {path.name: text for path, text in files.items() if path.name != "train.py"}
        return [line for line in status.splitlines() if "train.py" not in line], kept


ON = "autoresearch/tonight is at COMMIT, to go on from"
BACK = "back at CHAMPION; what was tried is COMMIT"
AGAIN = "stays as it is, to be run again with another seed"
MEND = "stays as it is: mend the edit, or take it back"


@pytest.mark.parametrize(
    ("values", "told", "where"),
    [
        (("keep",), ON, "commit"),
        (("keep", "replicate"), ON, "commit"),
        (("revert",), BACK, "champion"),
        (("inconclusive",), BACK, "champion"),
        (("inconclusive", "branch_followup"), BACK, "champion"),
        (("inconclusive", "replicate"), AGAIN, None),
        (("crash",), MEND, None),
        (("keep", None, "suspect_device: others"), BACK, "champion"),
        (("inconclusive", "replicate", "suspect_device: others"), BACK, "champion"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_where_a_result_leads(repo, values, told, where):
    night = Night(repo, commits=1)
    before = repo.state()
    said, head, script = night.settle(*values)
    assert said == told
    if where is None:
        assert repo.state() == before
        return
    assert head == getattr(night, where)
    assert script == repo.git("show", "HEAD:train.py") + "\n"
    assert repo.git("status", "-s", "--untracked-files=no") == ""
    assert repo.git("rev-parse", "--abbrev-ref", "HEAD") == "autoresearch/tonight"


@pytest.mark.parametrize(("commits", "dirty"), [(0, True), (0, False), (1, False), (3, True), (3, False)])
def test_the_way_back_is_as_long_as_it_takes(repo, commits, dirty):
    night = Night(repo, commits, dirty)
    tried = "COMMIT" if dirty else "START" if commits else "CHAMPION"
    assert night.settle("revert") == (f"back at CHAMPION; what was tried is {tried}", night.champion, "LR = 0.2\n")
    assert repo.git("status", "-s", "--untracked-files=no") == ""


@pytest.mark.parametrize("status", ["keep", "revert"])
def test_on_a_detached_head(repo, status):
    repo.git("switch", "-q", "--detach")
    night = Night(repo)
    told, head, _ = night.settle(status)
    assert told == (ON.replace("autoresearch/tonight", "HEAD") if status == "keep" else BACK)
    assert (head, repo.git("rev-parse", "--abbrev-ref", "HEAD")) == (
        night.commit if status == "keep" else night.champion, "HEAD",
    )  # fmt: skip
    assert repo.head("autoresearch/tonight") == repo.head("main")


def new_commit(repo):
    repo.commit("meanwhile", train="LR = 5\n")


def new_branch(repo):
    repo.git("switch", "-q", "-c", "elsewhere")


@pytest.mark.parametrize("meanwhile", [new_commit, new_branch])
@pytest.mark.parametrize("status", ["keep", "revert"])
def test_where_head_has_moved_meanwhile(repo, meanwhile, status):
    night = Night(repo)
    meanwhile(repo)
    before = repo.state()
    assert night.settle(status)[0] == "stays: HEAD has moved since the run began"
    assert repo.state() == before


def test_what_was_edited_meanwhile_stays(repo):
    night = Night(repo)
    repo.write("train.py", "LR = 10\n")
    before = repo.state()
    assert night.settle("revert")[0] == "stays: train.py has been edited since the run began"
    assert repo.state() == before
    told, head, script = night.settle("keep")
    assert (told, head, script) == (ON, night.commit, "LR = 10\n")
    assert repo.git("diff", "--name-only") == "train.py"


def test_what_was_edited_on_top_of_a_commit_meanwhile_stays(repo):
    night = Night(repo, commits=1, dirty=False)
    repo.write("train.py", "LR = 10\n")
    before = repo.state()
    assert night.settle("revert")[0].startswith("stays: git reset: error: Entry 'train.py' not uptodate")
    assert repo.state() == before


def test_a_file_that_was_only_touched_is_not_in_the_way(repo):
    night = Night(repo, commits=1, dirty=False)
    os.utime(repo.project / "train.py", (1, 1))
    assert night.settle("revert")[0] == BACK.replace("COMMIT", "START")


@pytest.mark.parametrize("below", ["", "examples/sorting"])
def test_commits_that_hold_other_files_are_not_taken_back(repo):
    repo.record(repo.head(), FILES["train.py"])
    (repo.top / "notes.md").write_text("a person's\n")
    noted = repo.commit("notes, the script is the champion's")
    (repo.top / "notes.md").write_text("more\n")
    repo.commit("more notes, and a step", train="LR = 0.3\n")
    repo.git("branch", "-f", "main")
    repo.write("train.py", "LR = 0.4\n")
    tree = repo.inspect()
    commit = commit_of_tree(tree, "the idea")
    before = repo.state()
    assert settle(tree, commit, card_of("revert"), repo.knowledge) == (
        f"stays: the commits since {noted[:12]} hold notes.md too; go back by hand"
    )
    assert repo.state() == before


def test_without_a_champion_in_sight_only_the_experiment_is_taken_back(repo):
    repo.record(None, "LR = 0.2\n", 0.9)  # another machine's, whose commit is not here
    first, second = (repo.commit(f"step {number}", train=f"LR = 0.{number}\n") for number in (3, 4))
    tree = repo.inspect()
    assert settle(tree, second, card_of("revert"), repo.knowledge) == (
        f"back at {first[:12]}; what was tried is {second[:12]}"
    )
    repo.write("train.py", "LR = 9\n")
    tree = repo.inspect()
    commit = commit_of_tree(tree, "the idea")
    assert settle(tree, commit, card_of("revert"), repo.knowledge).startswith(f"back at {first[:12]};")
    assert repo.head() == first and repo.git("status", "-s") == ""


def test_what_is_on_the_default_branch_is_never_taken_for_the_experiment(repo):
    repo.record(None, "LR = 0.2\n", 0.9)
    repo.git("switch", "-q", "main")
    meant = repo.commit("a person's", train="LR = 0.3\n")
    assert settle(repo.inspect(), meant, card_of("revert"), repo.knowledge).startswith(f"back at {meant[:12]};")
    assert repo.head() == meant


def test_without_any_champion_the_tree_stays_where_it_was(repo):
    commit = repo.commit("a start", train="LR = 0.3\n")
    assert settle(repo.inspect(), commit, card_of("keep", None, "suspect"), repo.knowledge).startswith(
        f"back at {commit[:12]};"
    )
    assert repo.head() == commit


def test_a_champion_that_was_run_twice_is_found_by_its_content(repo):
    repo.write("train.py", "LR = 0.2\n")
    once = commit_of_tree(repo.inspect(), "the idea")
    repo.record(once, "LR = 0.2\n", 0.9)  # asked for another run, so the tree stayed
    twice = repo.commit("the idea, again", train="LR = 0.2\n")
    repo.commit("step", train="LR = 0.3\n")
    last = repo.commit("step", train="LR = 0.4\n")
    assert settle(repo.inspect(), last, card_of("revert"), repo.knowledge).startswith(f"back at {twice[:12]};")


def test_where_git_refuses_nothing_is_moved(repo):
    night = Night(repo)
    lock = repo.top / ".git" / "HEAD.lock"
    lock.touch()
    before = repo.state()
    assert night.settle("keep")[0].startswith("stays: git update-ref: fatal: ")
    assert repo.state() == before


def test_in_a_linked_worktree_and_in_a_shallow_clone(repo, tmp_path):
    night = Night(repo, commits=2)
    linked, shallow = tmp_path / "linked", tmp_path / "shallow"
    repo.git("worktree", "add", "-q", "-b", "autoresearch/other", str(linked), night.champion)
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{repo.top}", shallow], check=True)
    for folder in (linked, shallow):
        (folder / "train.py").write_text("LR = 7\n")
        tree = inspect(folder, repo.knowledge)
        commit = commit_of_tree(tree, "there")
        assert full_hash(folder, f"{commit}~1") == tree.head
        assert settle(tree, commit, card_of("keep"), repo.knowledge).endswith("to go on from")
        status = ["git", "status", "--porcelain", "--untracked-files=no"]
        assert subprocess.run(status, cwd=folder, capture_output=True, text=True).stdout == ""
    assert repo.head() == night.start


@pytest.mark.parametrize("branch", ["später", "a'b$(x)\"c", "feature/x;y", "HEAD1", "x@y"])
def test_branches_of_odd_names(repo, branch):
    repo.git("switch", "-q", "-c", branch)
    night = Night(repo)
    assert night.settle("keep")[0] == ON.replace("autoresearch/tonight", branch)
    assert repo.head(f"refs/heads/{branch}") == night.commit
