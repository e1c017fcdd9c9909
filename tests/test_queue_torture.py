"""Processes and threads work on one queue, are killed, forked, lose files and rights: nothing is lost or doubled."""

import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.errors import HeldError
from lab.items import OPEN
from lab.leases import claim_next_experiment, complete_experiment, release
from lab.queue import add_to_queue, finished_items, load_queue, read_queue

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(os.name != "posix", reason="fork, kill -9, limits")

ADD = """
import sys
from pathlib import Path
from lab.queue import add_to_queue
knowledge, me, times = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for number in range(times):
    (own,) = add_to_queue(knowledge, [{"description": f"idea {number} of {me}"}])
    both = add_to_queue(knowledge, [{"description": f"again {number}", "replicates": "abc", "seed": number}])
    print(own["id"], *(item["id"] for item in both), flush=True)
"""
# Tells each change once it is acknowledged, as (event, item, token).
WORK = """
import sys
from pathlib import Path
from lab.leases import claim_next_experiment, complete_experiment, release
from lab.queue import add_to_queue

def work(knowledge, me, times, tell=print):
    for number in range(times):
        (item,) = add_to_queue(knowledge, [{"description": f"idea {number} of {me}"}], me)
        tell("add", item["id"], 0)
        item = claim_next_experiment(knowledge, me)
        token = item["lease"]["token"]
        tell("claim", item["id"], token)
        if number % 4:
            complete_experiment(knowledge, item["id"], token, me)
            tell("complete", item["id"], token)
        else:
            release(knowledge, item["id"], token)

if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
"""
PRUNE = """
import sys
from pathlib import Path
from lab.leases import prune
while True:
    prune(Path(sys.argv[1]), 1e-9)
    print("pruned", flush=True)
"""
DELETE = """
import itertools, sys, time
from pathlib import Path
for number in itertools.count():
    Path(sys.argv[1], "queue.json" if number % 2 else "queue.json.bak").unlink(missing_ok=True)
    time.sleep(0.005)
"""
FORK = """
import os, sys
from pathlib import Path
from lab.leases import claim_next_experiment
from lab.queue import add_to_queue
knowledge = Path(sys.argv[1])
add_to_queue(knowledge, [{"description": f"idea {number}"} for number in range(20)])
children = []
while len(children) < 3 and (child := os.fork()):  # four processes that know the queue
    children.append(child)
children = children if child else []
for _ in range(5):
    item = claim_next_experiment(knowledge, str(os.getpid()))
    os.write(1, f"claim {item['id']} {item['lease']['token']}\\n".encode())
for child in children:
    os.waitpid(child, 0)
"""
FULL = """
import resource, sys
from pathlib import Path
from lab.errors import StoreError
from lab.leases import claim_next_experiment, complete_experiment
from lab.queue import add_to_queue
knowledge = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
uses = (lambda: add_to_queue(knowledge, [{"description": "b"}]), lambda: claim_next_experiment(knowledge, "me"),
        lambda: complete_experiment(knowledge, sys.argv[3], 1))
for use in uses:
    try:
        print(use())
    except StoreError as error:
        print(error)
"""
READ_ONLY = """
import sys
from pathlib import Path
from lab.errors import StoreError
from lab.queue import add_to_queue, load_queue
print(len(load_queue(Path(sys.argv[1]))))
try:
    add_to_queue(Path(sys.argv[1]), [{"description": "b"}])
except StoreError as error:
    print(error)
"""


def python(code, *arguments, before=()):
    command = [*before, sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answers(processes):
    """The lines that processes have printed, split into words, when all have ended well."""
    done = [process.communicate() for process in processes]
    assert [(process.returncode, errors) for process, (_, errors) in zip(processes, done, strict=True)] == [
        (0, "")
    ] * len(processes)
    return [line.split() for output, _ in done for line in output.splitlines()]


def sound(knowledge, told, pruned=False):
    """Nothing that was told is lost, and nobody had what was somebody else's."""
    of = {kind: [line[1] for line in told if line[0] == kind] for kind in ("add", "complete")}
    tokens = [int(line[2]) for line in told if line[0] == "claim"]
    assert len(set(tokens)) == len(tokens) and read_queue(knowledge).token == max(tokens)
    assert len(set(of["complete"])) == len(of["complete"])
    still_there = [item["id"] for item in load_queue(knowledge)]
    assert sorted(of["complete"] + still_there) == sorted(of["add"])
    assert pruned or sorted(item["id"] for item in finished_items(knowledge)) == sorted(of["complete"])
    assert {item["status"] for item in load_queue(knowledge)} <= {"pending"}
    return True


def test_eight_who_add_lose_nothing_and_add_nothing_twice(tmp_path):
    told = [name for line in answers([python(ADD, tmp_path, number, 5) for number in range(8)]) for name in line]
    items = load_queue(tmp_path)
    assert sorted(item["id"] for item in items) == sorted(told)
    assert sorted(item["seed"] for item in items if item["replicates"]) == list(range(5))
    assert len(items) == 8 * 5 + 5


@pytest.mark.parametrize("beside", [None, PRUNE, DELETE], ids=["alone", "pruned", "files deleted"])
def test_eight_who_work(tmp_path, beside):
    third = python(beside, tmp_path) if beside else None
    workers = [python(WORK, tmp_path, number, 12) for number in range(8)]
    while any(worker.poll() is None for worker in workers):
        assert {item["status"] for item in load_queue(tmp_path)} <= set(OPEN)
        finished_items(tmp_path)
    if third:
        assert third.poll() is None, third.communicate()
        third.kill()
        third.communicate()
    assert sound(tmp_path, answers(workers), pruned=beside == PRUNE)


def test_threads_of_one_process(tmp_path):
    told, lock, space = [], threading.Lock(), {"__name__": "work"}
    exec(WORK, space)

    def tell(*line):
        with lock:
            told.append([str(word) for word in line])

    with ThreadPoolExecutor(8) as threads:
        for future in [threads.submit(space["work"], tmp_path, str(number), 8, tell) for number in range(8)]:
            future.result()
    assert sound(tmp_path, told)


def test_forked_after_use(tmp_path):
    told = answers([python(FORK, tmp_path)])
    assert len({line[1] for line in told}) == 20
    assert sorted(int(line[2]) for line in told) == list(range(1, 21))
    assert {item["status"] for item in load_queue(tmp_path)} == {"claimed"}


@pytest.mark.parametrize("kills", [30, pytest.param(300, marks=pytest.mark.slow)])
def test_kill_9_at_random_moments(kills):
    command = [sys.executable, "bench/bench_queue.py", "--only", "kills", "--kills", str(kills)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    row = [cell.strip() for cell in done.stdout.strip().splitlines()[-1].split("|")]
    assert row[1] == str(kills) and int(row[2].replace(",", "")) > kills and row[3:5] == ["0", "0"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_bench_of_claims_runs():
    command = [sys.executable, "bench/bench_queue.py", "--only", "claims", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    rows = [line.split("|") for line in done.stdout.splitlines() if line[:3] in ("| 1", "| 8")]
    assert [[cell.strip() for cell in row[1:3]] for row in rows] == [["1", "0"], ["1", "500"], ["8", "0"], ["8", "500"]]
    assert "LOST" not in done.stdout and done.stderr == ""


@pytest.mark.parametrize(("room", "why"), [(0, "File too large"), (100, "the disk is full")])
def test_a_full_disk_changes_nothing(tmp_path, room, why):
    (item,) = add_to_queue(tmp_path, [{"description": "a"}])
    claim_next_experiment(tmp_path, "me")
    add_to_queue(tmp_path, [{"description": "c"}])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    history = tmp_path / "queue-history.jsonl"
    output, errors = python(FULL, tmp_path, len(before[history]) + room, item["id"]).communicate()
    assert (output.splitlines(), errors) == ([f"cannot write {history}: {why}; free space there"] * 3, "")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_must_not_be_written_can_be_read(tmp_path):
    before = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
    if before and not shutil.which("setpriv"):
        pytest.skip("root may write everything, and there is no setpriv to give that up")
    add_to_queue(tmp_path, [{"description": "a"}])
    (tmp_path / "queue.json.lock").unlink()
    tmp_path.chmod(0o555)
    try:
        output, errors = python(READ_ONLY, tmp_path, before=before).communicate()
    finally:
        tmp_path.chmod(0o755)
    said = f"cannot lock {tmp_path / 'queue.json.lock'}: Permission denied; make the folder writable"
    assert (output.splitlines(), errors) == (["1", said], "")


def test_what_was_killed_within_a_change(tmp_path):
    """The lock is free at once, a torn line is not there, and a file half written is nobody's."""
    add_to_queue(tmp_path, [{"description": "a"}])
    item = claim_next_experiment(tmp_path, "me")
    with open(tmp_path / "queue-history.jsonl", "ab") as history:
        history.write(b'{"at": "2026", "event": "complete", "items": [')
    (tmp_path / ".queue.json.1.ab.tmp").write_bytes(b'{"schema"')
    assert load_queue(tmp_path) == [item]
    complete_experiment(tmp_path, item["id"], item["lease"]["token"])
    lines = (tmp_path / "queue-history.jsonl").read_text().splitlines()
    assert [json.loads(line).get("event") for line in lines] == [None, "add", "claim", "complete"]


def test_a_lock_that_is_held_is_waited_for(tmp_path):
    from lab.locks import locked

    (item,) = add_to_queue(tmp_path, [{"description": "a"}])
    token = claim_next_experiment(tmp_path, "me")["lease"]["token"]
    with ThreadPoolExecutor(1) as other:
        with locked(tmp_path / "queue.json.lock"):
            late = other.submit(release, tmp_path, item["id"], token)
            assert load_queue(tmp_path)[0]["status"] == "claimed"  # who reads waits for nobody
            with pytest.raises(
                HeldError, match=r"queue\.json\.lock has been held for 0 s; end the process that holds it$"
            ):
                locked(tmp_path / "queue.json.lock", timeout=0).__enter__()
        assert late.result()["status"] == "pending"
