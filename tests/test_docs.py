"""What the documents tell people and agents to type works as written, and every setting is documented."""

import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)  # some of the commands train, and a slow machine may have company
ROOT = Path(__file__).parent.parent
SOURCES = [*ROOT.glob("*.py"), *(ROOT / "lab").rglob("*.py")]
README, AGENTS = (ROOT / "README.md").read_text(), (ROOT / "AGENTS.md").read_text()


def commands(text: str) -> list[str]:
    """Every command line of a document: the lines of its shell blocks, and what is quoted inline."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [re.sub(r"\s+#.*", "", line) for block in blocks for line in block.splitlines() if line.strip()]
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    inline = re.findall(r"`((?:AUTORESEARCH_SEED=43 )?(?:uv run|git commit|git reset|tail) [^`]+)`", prose)
    return lines + [re.sub(r"\s+", " ", line) for line in inline]


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
def shell(tmp_path_factory: pytest.TempPathFactory, url: str):
    """Run one command line in a fresh clone with a commit, a corpus in notes/, and `uv run` meaning this Python."""
    folder = tmp_path_factory.mktemp("docs")
    clone = folder / "clone"
    clone.mkdir()
    for name in ("train.py", "prepare.py", "platform_utils.py", "commons.py", "worker.py"):
        shutil.copy(ROOT / name, clone)
    shutil.copytree(ROOT / "lab", clone / "lab", ignore=shutil.ignore_patterns("__pycache__"))
    (clone / "notes").mkdir()
    for path in SOURCES:
        shutil.copy(path, clone / "notes")
    (clone / "results.tsv").write_text("commit\tval_bpb\tstatus\tdescription\nabc1234\t0.99\tkeep\tbaseline\n")
    (folder / "bin").mkdir()
    shim = folder / "bin" / "uv"
    shim.write_text(f'#!/bin/sh\nshift\nexec "{sys.executable}" "$@"\n')
    shim.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUTORESEARCH_")}
    environment |= {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "HOME": str(folder),
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{f"GIT_{who}_{what}": "a@b.example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        "AUTORESEARCH_DATASET": "local:notes",
        "AUTORESEARCH_PRESET": "tiny",
        "AUTORESEARCH_DEVICE": "cpu",
        "AUTORESEARCH_COMPILE": "0",
        "AUTORESEARCH_STEPS": "2",
        "AUTORESEARCH_BASE_URL": url,
    }

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["sh", "-c", command], cwd=clone, env=environment, capture_output=True, text=True)

    for command in ("git init -q", "git add *.py lab", "git commit -qm baseline"):
        assert run(command).returncode == 0
    return run


def test_the_loop_that_agents_are_told_to_run(shell) -> None:
    brief, brief_for_idea, check, commit, train, tail, again, reset, show, *learnt = commands(AGENTS)
    assert (commit, train, tail, again) == (
        'git commit train.py -m "..."',
        "uv run train.py > run.log 2>&1",
        "tail -n 22 run.log",
        "AUTORESEARCH_SEED=43 uv run train.py > run.log 2>&1",
    )
    assert shell(check).returncode == 0
    assert shell(brief).returncode == shell(brief_for_idea).returncode == 0
    shell("echo '# an idea' >> train.py")
    for command in (commit, train):
        result = shell(command)
        assert result.returncode == 0, result.stderr
    printed = shell(tail).stdout
    assert all(f"\n{name}:" in printed for name in ("val_bpb", "num_steps", "card"))
    assert "first result of its track: the baseline" in shell(show).stdout
    assert shell(again).returncode == 0
    assert "a repeat of the champion" in shell(tail).stdout
    assert shell(reset).returncode == 0
    assert "a repeat of the champion" in shell(show).stdout
    assert [shell(command).returncode for command in learnt] == [0, 0]
    assert "lesson        | what it teaches" in shell(show).stdout


def test_every_other_command(shell) -> None:
    lines = [line for line in dict.fromkeys(commands(README)) if line != "uv run pytest"]
    assert len(lines) >= 10
    for line in lines:
        result = shell(line)
        if "climbmix" in line or "tinystories" in line:
            assert result.returncode == 2
            assert result.stderr.splitlines()[-1].startswith("error: cannot download http://127.0.0.1")
        else:
            assert result.returncode == 0, (line, result.stderr)


def test_the_readme_lists_the_commands_as_the_help_does(shell) -> None:
    listed = re.search(r"<!-- commons.py --help -->\n```\n(.*?)```\n<!-- end -->", README, re.DOTALL)
    assert listed is not None
    assert listed[1] == shell("uv run commons.py --help").stdout


def test_every_setting_is_in_the_readme() -> None:
    settings = {name for path in SOURCES for name in re.findall(r"AUTORESEARCH(_[A-Z_]+[A-Z])", path.read_text())}
    internal = {"_RUN_ID", "_RUN_DIR"}  # given by whoever runs train.py for others
    assert not {name for name in settings - internal if not re.search(rf"(`|AUTORESEARCH){name}\b", README)}
