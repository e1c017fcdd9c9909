"""What the documents tell people and agents to type works as written, and every setting is documented."""

import http.server
import json
import os
import re
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from fake_project import wait_for
from pages import SOURCES, Clone, commands, page

from lab.notes import load_notes
from lab.situation import load_pins

pytestmark = [  # some of the commands train, and a slow machine may have company
    pytest.mark.timeout(400),
    pytest.mark.skipif(os.name != "posix", reason="the pages speak to a shell"),
]
Steps = Generator[None, "CompletedProcess[str]", None]
RULES: dict[str, Callable[["Agent", str], Steps]] = {}
TINY = {"DEPTH": (3, 1), "BIGRAM_BUCKETS": (16384, 0), "ASPECT_RATIO": (64, 32)}  # so that a run takes seconds


class Nothing(http.server.BaseHTTPRequestHandler):
    """Answers every request with 404."""

    def do_GET(self) -> None:
        self.send_error(404)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server that has nothing."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Nothing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, url: str) -> Clone:
    """A clone whose baseline has been run."""
    clone = Clone(
        tmp_path_factory.mktemp("docs"), AUTORESEARCH_DATASET="local:notes", AUTORESEARCH_PRESET="tiny",
        AUTORESEARCH_DEVICE="cpu", AUTORESEARCH_COMPILE="0", AUTORESEARCH_STEPS="2", AUTORESEARCH_BASE_URL=url,
    )  # fmt: skip
    script = (clone.folder / "train.py").read_text()
    for name, (large, small) in TINY.items():
        assert f"    {name} = {large}\n" in script
        script = script.replace(f"    {name} = {large}\n", f"    {name} = {small}\n")
    (clone.folder / "train.py").write_text(script)
    clone.git("commit", "-qam", "baseline")
    done = clone.run("AUTORESEARCH_SESSION=tonight uv run train.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert "first result of its track: the baseline" in done.stdout
    return clone


@pytest.fixture
def clone(trained: Clone, tmp_path: Path) -> Clone:
    return trained.copy(tmp_path)


class Agent:
    """Whoever follows a page, in a folder of a clone: what it sees, and edits where a page says so."""

    def __init__(self, clone: Clone, folder: Path) -> None:
        self.clone, self.folder = clone, folder
        self.edits = 0

    def edit(self) -> None:
        self.edits += 1
        with open(self.folder / "train.py", "a") as script:
            print(f"edited = {self.edits}", file=script)

    def head(self, name: str = "HEAD") -> str:
        return self.clone.git("rev-parse", name, folder=self.folder)

    def files(self) -> str:
        """Those of the last commit."""
        return self.clone.git("show", "--format=", "--name-only", folder=self.folder)

    def follow(self, lines: list[str]) -> None:
        """Do what a page says, and check what comes of every line."""
        for line in lines:
            beginnings = [words for words in RULES if f"{line} ".startswith(f"{words} ")]
            assert beginnings, f"no rule says what `{line}` should do"
            steps = RULES[max(beginnings, key=len)](self, line)
            next(steps)
            done = self.clone.run(line, self.folder)
            assert done.returncode == 0, (line, done.stderr)
            assert done.stderr == "" or line.startswith("git"), line
            with pytest.raises(StopIteration):
                steps.send(done)


def rule(*beginnings: str) -> Callable[[Callable[["Agent", str], Steps]], Callable[["Agent", str], Steps]]:
    """What commands that begin like this need before, and what they change: the part before and after a `yield`."""

    def put(steps: Callable[["Agent", str], Steps]) -> Callable[["Agent", str], Steps]:
        RULES.update(dict.fromkeys(beginnings, steps))
        return steps

    return put


def reads(beginning: str, words: str) -> None:
    """A command that begins like this changes no record, and prints these words."""

    @rule(beginning)
    def steps(agent: Agent, line: str) -> Steps:
        before = len(agent.clone.cards()), len(agent.clone.open_items())
        done = yield
        assert words in done.stdout, line
        assert (len(agent.clone.cards()), len(agent.clone.open_items())) == before


for beginning, words in {
    "commons.py read-brief": "Champion by val_bpb",
    "commons.py check": "allow: novel",
    "commons.py near-misses": "\n",
    "commons.py challengers": "Lineages: ",
    "commons.py findings": "no finding yet",
    "commons.py lineage": "baseline",
    "commons.py coverage": "under-explored",
    "commons.py history": "baseline",
    "commons.py report": "## Next steps",
    "commons.py show": "verdict",
    "director.py suggest": "gain a run",
    "director.py strategy": "mode: ",
    "director.py plan": "Mode explore; the strategy says explore",
    "director.py list": "pending",
    "director.py status": "pending",
}.items():
    reads(f"uv run {beginning}", words)


@rule("git switch -c")
def branches(agent: Agent, line: str) -> Steps:
    yield
    assert agent.clone.git("branch", "--show-current") == line.split()[-1]


@rule("git switch -q --detach")
def repeats_a_commit(agent: Agent, line: str) -> Steps:
    agent.clone.git("checkout", "-q", "HEAD", "--", "train.py", folder=agent.folder)
    yield
    assert agent.head() == agent.clone.environment["COMMIT"]


@rule("uv run worker.py run -m")
def runs(agent: Agent, line: str) -> Steps:
    agent.edit()
    before, script = len(agent.clone.cards()), (agent.folder / "train.py").read_text()
    done = yield
    card = agent.clone.cards()[0]
    agent.clone.environment["CARD"] = card["id"]
    assert len(agent.clone.cards()) == before + 1
    assert card["hypothesis"] in line and card["error"] is None
    assert agent.clone.git("show", f"{card['commit']}:train.py", folder=agent.folder) == script.rstrip("\n")
    kept, stays = card["status"] == "keep", "as it is, to be run again" in done.stdout
    assert (agent.head() == card["commit"]) == kept
    edited = agent.clone.git("status", "--porcelain", "--untracked-files=no", folder=agent.folder)
    assert edited == (" M train.py" if stays else "")


@rule("uv run worker.py run --replicate --seed 43")
def runs_with_another_seed(agent: Agent, line: str) -> Steps:
    before = len(agent.clone.cards())
    yield
    card = agent.clone.cards()[0]
    assert (len(agent.clone.cards()), card["seed"], card["tags"]) == (before + 1, 43, ["replicate"])


@rule("git checkout -q HEAD -- train.py")
def takes_back(agent: Agent, line: str) -> Steps:
    agent.edit()
    yield
    assert agent.clone.git("status", "--porcelain", "--untracked-files=no", folder=agent.folder) == ""


@rule("git reset", "git clean")
def leaves_the_cards(agent: Agent, line: str) -> Steps:
    before, wanted = agent.clone.cards(), agent.head("HEAD~1" if "HEAD~1" in line else "HEAD")
    agent.edit()
    yield
    assert agent.clone.cards() == before
    assert agent.head() == wanted
    if "reset" in line:
        assert agent.clone.git("status", "--porcelain", "--untracked-files=no", folder=agent.folder) == ""


@rule("uv run commons.py annotate")
def annotates(agent: Agent, line: str) -> Steps:
    yield
    card = agent.clone.cards()[0]
    assert card["lesson"] == "what it teaches"
    assert card["category"] == ("architecture" if "--category" in line else None)


@rule("uv run commons.py init")
def excludes(agent: Agent, line: str) -> Steps:
    yield
    assert agent.clone.git("check-ignore", "knowledge/cards/x.json") == "knowledge/cards/x.json"
    assert (agent.folder / "knowledge" / "cards").is_dir()


@rule("uv run commons.py note")
def notes(agent: Agent, line: str) -> Steps:
    before = len(load_notes(agent.folder / "knowledge"))
    yield
    assert len(load_notes(agent.folder / "knowledge")) == before + 1


@rule("uv run commons.py synthesize --session tonight")
def synthesizes(agent: Agent, line: str) -> Steps:
    yield
    assert (agent.folder / "knowledge" / "synthesis" / "tonight.md").is_file()


@rule("uv run director.py add")
def adds(agent: Agent, line: str) -> Steps:
    before = len(agent.clone.open_items())
    yield
    items = agent.clone.open_items()
    assert len(items) == before + 1
    assert items[-1]["changes"] == ({"MUON_MOMENTUM": 0.9} if "--set" in line else None)
    assert items[-1]["commit"] == (agent.clone.cards()[0]["commit"] if "--of last" in line else None)


@rule("uv run commons.py sweep-confirm")
def queues_repeats(agent: Agent, line: str) -> Steps:
    before = len(agent.clone.open_items())
    done = yield
    added = re.search(r"added to the queue: (\d+)|^(nothing) to add", done.stdout)
    assert added
    assert len(agent.clone.open_items()) == before + int(added[1] or 0)


@rule("uv run director.py strategy --set", "uv run director.py strategy --reset")
def pins(agent: Agent, line: str) -> Steps:
    yield
    pinned = [pin["mode"] for pin in load_pins(agent.folder / "knowledge").values()]
    assert pinned == (["ablation"] if "--set" in line else [])


@rule("uv run director.py claim --owner subagent-1")
def claims(agent: Agent, line: str) -> Steps:
    yield
    item = next(item for item in agent.clone.open_items() if item["status"] == "claimed")
    assert item["lease"]["owner"] == "subagent-1"
    agent.clone.environment |= {"ITEM": item["id"], "LEASE": str(item["lease"]["token"])}


@rule("uv run director.py complete $ITEM")
def completes(agent: Agent, line: str) -> Steps:
    done = yield
    item, card = agent.clone.environment["ITEM"], agent.clone.cards()[0]["id"]
    assert done.stdout == f"completed {item} with card {card}\n"
    agent.clone.run('uv run director.py add "another idea"')
    agent.follow(["uv run director.py claim --owner subagent-1"])


@rule("uv run director.py heartbeat $ITEM")
def renews(agent: Agent, line: str) -> Steps:
    done = yield
    assert " lasts until " in done.stdout


@rule("uv run director.py fail $ITEM")
def fails(agent: Agent, line: str) -> Steps:
    yield
    item = next(item for item in agent.clone.open_items() if item["id"] == agent.clone.environment["ITEM"])
    assert (item["status"], item["attempts"]) == ("pending", 1)


@rule("git worktree add -q --detach ../experiment-1")
def makes_a_worktree(agent: Agent, line: str) -> Steps:
    yield
    assert (agent.folder.parent / "experiment-1" / "train.py").is_file()


@rule("git merge -q --ff-only")
def takes_over(agent: Agent, line: str) -> Steps:
    subagent = Agent(agent.clone, agent.folder.parent / "experiment-1")
    subagent.edit()
    agent.clone.git("commit", "-qam", "kept", folder=subagent.folder)
    yield
    assert agent.head() == subagent.head()


@rule("git worktree remove --force ../experiment-1")
def clears_away(agent: Agent, line: str) -> Steps:
    yield
    assert not (agent.folder.parent / "experiment-1").exists()


def whole_nights(name: str) -> list[str]:
    """The commands of a page that run many experiments."""
    return [line for line in commands(name) if line.startswith("uv run director.py run")]


@pytest.mark.slow
def test_what_a_single_agent_is_told_to_type(clone: Clone) -> None:
    Agent(clone, clone.folder).follow(commands("program.md"))
    assert [card["session"] for card in clone.cards()] == ["tonight"] * 3


@pytest.mark.slow
def test_what_everybody_is_told_to_type(clone: Clone) -> None:
    Agent(clone, clone.folder).follow(commands("AGENTS.md"))


@pytest.mark.slow
def test_what_a_worker_is_told_to_type(clone: Clone) -> None:
    director, worker = Agent(clone, clone.folder), Agent(clone, clone.folder.parent / "experiment-1")
    clone.environment["COMMIT"] = director.head()
    clone.run('uv run director.py add "an idea"')
    handing = [line for line in commands("director.md") if "experiment-1" in line or "claim" in line]
    director.follow(handing[:2])
    worker.follow(commands("worker.md"))
    director.follow(handing[2:])


@pytest.mark.slow
def test_a_night_without_a_director_that_thinks(clone: Clone) -> None:
    (line,) = whole_nights("director.md")
    process = clone.start(f"exec {line}")
    try:
        events = (json.loads(words) for words in process.stdout)
        ended = next(event for event in events if event["event"] == "ended")
        os.killpg(process.pid, signal.SIGINT)
        *_, stopped = events
    finally:
        process.terminate()
    assert (process.wait(), process.stderr.read(), stopped["event"]) == (130, "", "stopped")
    assert ended["card"] == clone.cards()[0]["id"]
    assert "+tried = " in clone.git("diff", "main", clone.cards()[0]["commit"])  # what `claude` did
    assert clone.git("worktree", "list").count("\n") == 0
    assert not [item for item in clone.open_items() if item["lease"]]
    wait_for(lambda: not clone.left_behind())


def test_what_a_director_is_told_to_type(clone: Clone) -> None:
    clone.run('uv run director.py add "an idea"')
    lines = [line for line in commands("director.md") if line not in whole_nights("director.md")]
    Agent(clone, clone.folder).follow(lines)


@pytest.mark.slow
def test_the_nights_that_the_readme_shows(clone: Clone) -> None:
    for line in whole_nights("README.md"):
        before = len(clone.cards())
        result = clone.run(line)
        assert (result.returncode, result.stderr) == (0, "")
        assert len(clone.cards()) == before + int(line.split("--max-experiments ")[1])


@pytest.mark.slow
def test_every_other_command_of_the_readme(clone: Clone) -> None:
    elsewhere = ["uv run pytest", *whole_nights("README.md")]
    lines = [line for line in dict.fromkeys(commands("README.md")) if line not in elsewhere and "HOST:PORT" not in line]
    assert len(lines) >= 10
    for line in lines:
        if "worker.py run" in line:
            Agent(clone, clone.folder).edit()
        result = clone.run(line)
        if "climbmix" in line or "tinystories" in line:
            assert result.returncode == 2
            assert result.stderr.splitlines()[-1].startswith("error: cannot download http://127.0.0.1")
        else:
            assert result.returncode == 0, (line, result.stderr)


def test_the_readme_lists_the_commands_as_the_help_does(clone: Clone) -> None:
    listed = re.search(r"<!-- commons.py --help -->\n```\n(.*?)```\n<!-- end -->", page("README.md"), re.DOTALL)
    assert listed is not None
    assert listed[1] == clone.run("uv run commons.py --help").stdout


def test_every_setting_is_in_the_readme() -> None:
    settings = {name for path in SOURCES for name in re.findall(r"AUTORESEARCH(_[A-Z_]+[A-Z])", path.read_text())}
    internal = {
        "_RUN_ID",
        "_RUN_DIR",
        "_FOR_RUN",
        "_BRIEF",
        "_DIRECTOR_PID",
    }  # given by whoever runs train.py or an agent for others
    assert not {name for name in settings - internal if not re.search(rf"(`|AUTORESEARCH){name}\b", page("README.md"))}
