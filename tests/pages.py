"""What the pages tell people and agents to type, and a clone to type it in, for the tests of the pages.

    clone = Clone(tmp_path, AUTORESEARCH_STEPS="2")
    for command in commands("program.md"):
        clone.run(command)

In a clone `uv run` means this Python, and `claude` is an agent that edits train.py.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from lab.cards import load_cards
from lab.queue import load_queue

ROOT = Path(__file__).parent.parent
SOURCES = [*ROOT.glob("*.py"), *(ROOT / "lab").rglob("*.py")]
INSTRUCTIONS = ("program.md", "director.md", "worker.md", "AGENTS.md")
LEDGER = "commit\tval_bpb\tstatus\tdescription\nabc1234\t0.99\tkeep\tbaseline\n"
UV = f"""#!/bin/sh
echo $$ >> "$STARTED"
shift
exec "{sys.executable}" "$@"
"""
CLAUDE = f"""#!{sys.executable}
import os, pathlib, sys
assert "Edit only train.py" in sys.argv[sys.argv.index("-p") + 1]
assert "| " in pathlib.Path(os.environ["AUTORESEARCH_BRIEF"]).read_text()
with open("train.py", "a") as script:
    print("tried =", os.getpid(), file=script)
"""
_SHOWN = re.compile(r"```(\w*)\n(.*?)```|`((?:uv run|git|tail|AUTORESEARCH_\w+=[^\s`]*) [^`]+)`", re.DOTALL)


def page(name: str) -> str:
    """The text of a page."""
    return (ROOT / name).read_text(encoding="utf-8")


def commands(name: str) -> list[str]:
    """Every command line of a page in its order: the lines of its shell blocks, and what is quoted inline."""
    found: list[str] = []
    for language, block, inline in _SHOWN.findall(page(name)):
        lines = block.splitlines() if language == "sh" else [inline]
        found += [re.sub(r"\s+", " ", re.sub(r"\s+#.*", "", line)).strip() for line in lines]
    return [line for line in found if line]


class Clone:
    """A git repository with one commit: the project, and a corpus in notes/. `environment` is that of its shell."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.home, self.folder = folder, folder / "clone"
        self.folder.mkdir(parents=True)
        for path in (*ROOT.glob("*.py"), *ROOT.glob("*.md"), ROOT / "pyproject.toml", ROOT / ".gitignore"):
            shutil.copy(path, self.folder)
        for name in ("lab", "docs"):
            shutil.copytree(ROOT / name, self.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        (self.folder / "notes").mkdir()
        for path in SOURCES:
            shutil.copy(path, self.folder / "notes")
        (self.folder / "results.tsv").write_text(
            "commit\tval_bpb\tstatus\tdescription\nabc1234\t0.99\tkeep\tbaseline\n"
        )
        for program, text in (("uv", UV), ("claude", CLAUDE)):
            path = folder / "bin" / program
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)
        (folder / "temporary").mkdir()
        outside = {
            name: value for name, value in os.environ.items() if not name.startswith(("AUTORESEARCH_", "KNOWLEDGE_"))
        }
        who = {f"GIT_{who}_{what}": "a@b.example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        self.environment = outside | who | environment | {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "HOME": str(folder), "GIT_CONFIG_GLOBAL": os.devnull,
            "TMPDIR": str(folder / "temporary"), "STARTED": str(folder / "started"), "AUTORESEARCH_AGENT": "tester",
        }  # fmt: skip
        for arguments in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-q", "-m", "the baseline")):
            self.git(*arguments)

    def copy(self, folder: Path) -> "Clone":
        """The same with its commons, in another place; what is installed and prepared is shared."""
        twin = object.__new__(Clone)
        twin.home, twin.folder = folder, folder / "clone"
        shutil.copytree(self.folder, twin.folder)
        (folder / "temporary").mkdir()
        own = {"TMPDIR": str(folder / "temporary"), "STARTED": str(folder / "started")}
        twin.environment = self.environment | own
        return twin

    def start(self, command: str, folder: Path | None = None) -> "subprocess.Popen[str]":
        """The process of a command line, in a group of its own."""
        return subprocess.Popen(
            ["sh", "-c", command], cwd=folder or self.folder, env=self.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def run(self, command: str, folder: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """What came of a command line."""
        process = self.start(command, folder)
        try:
            output, errors = process.communicate()
        except BaseException:  # the test's time is over
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    def git(self, *arguments: str, folder: Path | None = None) -> str:
        """What git prints, without the end of its last line."""
        done = subprocess.run(
            ["git", *arguments], cwd=folder or self.folder, env=self.environment, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        return done.stdout.rstrip("\n")

    def cards(self) -> list[dict]:
        """The cards, newest first."""
        return load_cards(self.folder / "knowledge")

    def open_items(self) -> list[dict]:
        """The open items of the queue."""
        return load_queue(self.folder / "knowledge")

    def left_behind(self) -> list[str]:
        """Processes that were started here and are still there."""
        started = Path(self.environment["STARTED"])
        numbers = started.read_text().split() if started.exists() else []
        table = subprocess.run(["ps", "-eo", "pid=,stat=,args="], capture_output=True, text=True, check=True).stdout
        found = []
        for line in table.splitlines():
            number, state, arguments = line.split(maxsplit=2)
            if not state.startswith("Z") and (number in numbers or str(self.folder) in arguments):
                found.append(arguments)
        return found
