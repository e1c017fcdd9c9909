"""What the tests of bad input share: what must stay as it was, what a refusal is, processes without room or rights."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def contents(home):
    """{path: bytes} of all that is there but two indexes: a reader may build ours, and `git diff` renew git's."""
    return {
        str(path.relative_to(home)): path.read_bytes()
        for path in sorted(home.rglob("*"))
        if path.is_file() and not path.name.startswith("index.sqlite") and path != home / ".git" / "index"
    }


def refused(answer, *words):
    """Whether this is a refusal as it must be; `words` are in its message."""
    code, output, errors = answer
    assert (code, output) == (2, ""), errors
    assert errors.startswith("error: ") and errors.count("\n") == len(errors.splitlines()) == 1
    assert "Traceback" not in errors
    for word in words:
        assert word in errors


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.argv[:2] = []
sys.path.insert(0, {root!r})
from importlib import import_module
from lab import cli
sys.exit(cli.main({door!r}, "", import_module({door!r}[:-3]).COMMANDS, sys.argv))
"""


def in_process(home, *command):
    """(exit code, stdout, stderr) of a process that works on the commons of `home`."""
    environment = os.environ | {"KNOWLEDGE_DIR": str(home / "knowledge"), "AUTORESEARCH_RUNS_DIR": str(home / "runs")}
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def on_a_full_disk(home, door, words, room=0):
    """The answer where no file can be longer than `room` bytes; -B, or compiled modules would be cut there too."""
    script = LIMITED.format(root=str(ROOT), door=door)
    return in_process(home, sys.executable, "-B", "-c", script, str(room), *words)


def without_rights(home, door, words):
    """The answer where permissions hold even for root."""
    drop = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
    if drop and not shutil.which("setpriv"):
        pytest.skip("root may read everything, and there is no setpriv to give that up")
    return in_process(home, *drop, sys.executable, str(ROOT / door), *words)
