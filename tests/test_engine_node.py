"""A job as it travels, and what the machine that runs it does: without Ray."""

import json
import os
import select
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from fake_project import FakeProject, lives, wait_for

from lab.engines import EngineError, Job
from lab.engines.demand import demand, offers
from lab.engines.parcel import other_data, prepared_here, unpack, write_parcel
from lab.errors import StoreError
from lab.store import read_json

ROOT = Path(__file__).parent.parent
RUN = "0123456789ab"


@pytest.fixture
def project(tmp_path):
    return FakeProject(tmp_path / "project")


def job_of(project, *command, folder=None, commit="HEAD", files=(), limit=60.0, **told):
    folder = folder or project.folder / "runs" / RUN
    folder.mkdir(parents=True, exist_ok=True)
    told = {"AUTORESEARCH_RUN_ID": RUN, "TOY_LOG": str(project.log)} | told
    command = command or (sys.executable, "train.py")
    return Job(project.folder, commit, dict(files), command, told, folder, "run.log", limit, {})


def opened(job, place):
    """The parcel of a job, opened in a folder."""
    write_parcel(job, place.with_suffix(".tar"))
    with tarfile.open(place.with_suffix(".tar")) as tar:
        tar.extractall(place)
    return place


class Node:
    """The program on the node, and the line to it."""

    def __init__(self, folder):
        self.folder = folder
        command = [sys.executable, "-m", "lab.engines.node", str(folder)]
        with open(folder / "node.log", "wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        assert self.process.wait() == 0  # at once: the program goes on in a child

    def ended(self):
        wait_for((self.folder / "ended.json").exists)
        return read_json(self.folder / "ended.json")

    def hang_up(self):
        """Break the line and wait until the program is gone."""
        self.process.stdin.close()
        select.select([self.process.stdout], [], [])
        assert self.process.stdout.read() == b""
        self.process.stdout.close()


def process_of(project):
    return wait_for(project.experiments)[0][0]


# The parcel.


def git_in(folder, *arguments):
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def test_a_commit_travels_under_its_own_name_and_without_its_history(project, tmp_path):
    for number in range(8):
        (project.folder / "notes").write_bytes(os.urandom(100_000))
        project.git("add", ".")
        project.git("commit", "-q", "-m", f"notes {number}")
    commit, parent = project.git("rev-parse", "HEAD", "HEAD^").split()
    place = opened(job_of(project), tmp_path / "there")
    checkout = unpack(place)
    assert git_in(checkout, "log", "--format=%H %P %s", "-1") == f"{commit} {parent} notes 7"
    assert git_in(checkout, "rev-parse", "HEAD~1") == parent
    assert git_in(checkout, "status", "--porcelain") == ""
    assert (checkout / "notes").read_bytes() == (project.folder / "notes").read_bytes()
    assert (place / "commit.pack").stat().st_size < 120_000  # one of the eight files


def test_the_first_commit_and_a_merge_travel_too(project, tmp_path):
    first = project.git("rev-parse", "HEAD").strip()
    assert git_in(unpack(opened(job_of(project), tmp_path / "first")), "rev-parse", "HEAD") == first
    project.git("checkout", "-q", "-b", "side")
    project.git("commit", "-q", "--allow-empty", "-m", "on the side")
    project.git("checkout", "-q", "main")
    project.git("commit", "-q", "--allow-empty", "-m", "on main")
    project.git("merge", "-q", "--no-ff", "-m", "both", "side")
    merge = project.git("log", "-1", "--format=%H %P").strip()
    assert git_in(unpack(opened(job_of(project), tmp_path / "merge")), "log", "-1", "--format=%H %P") == merge


def test_a_project_in_a_folder_of_its_repository_is_found_there_with_the_files_over_it(project, tmp_path):
    below = project.folder / "examples" / "toy"
    below.mkdir(parents=True)
    (below / "toy.py").write_text("print('as committed')\n")
    project.git("add", ".")
    project.git("commit", "-q", "-m", "a toy")
    job = job_of(project, files={"toy.py": b"print('over it')\n"})._replace(project=below)
    there = unpack(opened(job, tmp_path / "there"))
    assert there.parts[-2:] == ("examples", "toy")
    assert (there / "toy.py").read_bytes() == b"print('over it')\n"
    assert (there / "../../train.py").exists()


def test_a_commit_that_is_not_here_cannot_travel(project, tmp_path):
    with pytest.raises(StoreError) as caught:
        write_parcel(job_of(project, commit="f" * 40), tmp_path / "parcel.tar")
    assert str(caught.value) == f"commit {'f' * 40} is not in the repository of {project.folder}; fetch it"


def test_of_our_environment_only_what_decides_the_experiment_goes_along(project, tmp_path, monkeypatch):
    monkeypatch.setenv("AUTORESEARCH_TIME_BUDGET", "20")
    monkeypatch.setenv("AUTORESEARCH_SEED", "7")
    monkeypatch.setenv("AUTORESEARCH_DEVICE", "mps")
    place = opened(job_of(project, AUTORESEARCH_SEED="43"), tmp_path / "there")
    told = {name: value for name, value in read_json(place / "job.json")["told"].items() if name != "TOY_LOG"}
    assert told == {"AUTORESEARCH_TIME_BUDGET": "20", "AUTORESEARCH_SEED": "43", "AUTORESEARCH_RUN_ID": RUN}


# The data.


def prepared(cache, name, fingerprint):
    folder = cache / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps({"fingerprint": fingerprint}))


def test_the_fingerprints_of_the_data_set_that_is_named_go_along(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path))
    prepared(tmp_path, "builtin-v512", "aa")
    prepared(tmp_path, "builtin-v2048", "bb")
    prepared(tmp_path, "climbmix-v8192", "cc")
    (tmp_path / "tinystories-v512").mkdir()  # half prepared
    assert prepared_here({"AUTORESEARCH_DATASET": "builtin"}) == {"builtin-v512": "aa", "builtin-v2048": "bb"}
    assert prepared_here({"AUTORESEARCH_DATASET": "tinystories"}) == {}
    assert prepared_here({}) == {"builtin-v512": "aa", "builtin-v2048": "bb", "climbmix-v8192": "cc"}


@pytest.mark.slow
def test_a_local_data_set_is_found_as_prepare_names_it(tmp_path, monkeypatch):
    prepare = pytest.importorskip("prepare")
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "cache"))
    folder = prepare.prepared_dir(f"local:{tmp_path}/notes", 512)
    prepared(folder.parent, folder.name, "dd")
    assert prepared_here({"AUTORESEARCH_DATASET": f"local:{tmp_path}/notes"}) == {folder.name: "dd"}


def test_other_data_is_told_and_missing_data_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path))
    job = {"told": {}, "data": {"builtin-v512": "aa"}}
    assert other_data(job) is None
    prepared(tmp_path, "builtin-v512", "aa")
    assert other_data(job) is None
    prepared(tmp_path, "builtin-v512", "bb")
    assert other_data(job) == "data differs: builtin-v512 is bb here, aa where the experiment comes from"


# The node.


def test_a_run_leaves_its_results_until_they_are_fetched_and_then_nothing(project, tmp_path):
    node = Node(opened(job_of(project), tmp_path / "there"))
    assert node.ended() == {"end": "exit", "code": 0}
    run = node.folder / "run"
    assert {"run.log", "start.json", "summary.json", "train.py"} <= {file.name for file in run.iterdir()}
    assert read_json(run / "start.json")["commit"] == project.git("rev-parse", "HEAD").strip()
    assert project.cards() == []  # the node has a commons of its own, for as long as it takes
    node.hang_up()
    assert not node.folder.exists()


def test_what_the_nodes_own_card_says_of_a_crash_is_kept(project, tmp_path):
    node = Node(opened(job_of(project, TOY_FAILS=""), tmp_path / "there"))
    assert node.ended() == {"end": "exit", "code": 1}
    kept = read_json(node.folder / "run" / "error.json")
    assert (kept["error"]["kind"], kept["error"]["phase"]) == ("exception", "import")
    assert kept["error"]["summary"].startswith("ValueError: no good")
    node.hang_up()


def test_a_run_that_is_killed_tells_the_signal(project, tmp_path):
    node = Node(opened(job_of(project, TOY_GATE=str(tmp_path / "gate")), tmp_path / "there"))
    os.kill(process_of(project), 9)
    assert node.ended() == {"end": "exit", "code": -9}
    node.hang_up()


def test_a_run_is_ended_when_the_line_says_so(project, tmp_path):
    node = Node(opened(job_of(project, TOY_GATE=str(tmp_path / "gate")), tmp_path / "there"))
    trainer = process_of(project)
    node.process.stdin.write(b'{"stop": "the loss is lost"}\n')
    node.process.stdin.flush()
    assert node.ended() == {"end": "stopped", "text": "the loss is lost"}
    assert not lives(trainer)
    assert (node.folder / "run" / "start.json").exists()
    node.hang_up()


def test_a_run_is_ended_when_the_line_breaks(project, tmp_path):
    node = Node(opened(job_of(project, TOY_GATE=str(tmp_path / "gate")), tmp_path / "there"))
    trainer = process_of(project)
    node.hang_up()
    assert not lives(trainer)
    assert not node.folder.exists()


def test_a_run_has_its_limit(project, tmp_path):
    node = Node(opened(job_of(project, TOY_GATE=str(tmp_path / "gate"), limit=3.0), tmp_path / "there"))
    assert node.ended() == {"end": "overtime", "text": f"{sys.executable} took longer than 3 s and was ended"}
    assert project.left_behind()[0] == []
    node.hang_up()


def test_what_a_run_says_of_its_own_crash_is_not_believed(project, tmp_path):
    script = "import sys, time; open(sys.argv[1] + '/error.json', 'w').write('{}'); time.sleep(300)"
    folder = tmp_path / "run"
    command = (sys.executable, "-c", script, str(folder))
    node = Node(opened(job_of(project, *command, folder=folder, limit=3.0), tmp_path / "there"))
    assert node.ended()["end"] == "overtime"
    assert not (node.folder / "run" / "error.json").exists()
    node.hang_up()


def test_what_the_folder_holds_goes_along_and_the_command_is_told_its_place(project, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "checkpoint").write_bytes(b"weights")
    script = "import pathlib, sys; run = pathlib.Path(sys.argv[1]); (run / 'checkpoint').rename(run / 'seen')"
    node = Node(opened(job_of(project, sys.executable, "-c", script, str(folder), folder=folder), tmp_path / "there"))
    assert node.ended() == {"end": "exit", "code": 0}
    assert (node.folder / "run" / "seen").read_bytes() == b"weights"
    assert (node.folder / "run" / "seen").stat().st_mtime == 0  # as it came: so it need not go back
    assert [file.name for file in folder.iterdir()] == ["checkpoint"]
    node.hang_up()


def test_a_project_without_our_package_finds_it_and_uv_finds_the_packages(project, tmp_path):
    script = "import lab, os, sys; print(lab.__file__, os.environ['UV_PROJECT_ENVIRONMENT'] == sys.prefix)"
    node = Node(opened(job_of(project, sys.executable, "-c", script), tmp_path / "there"))
    assert node.ended() == {"end": "exit", "code": 0}
    assert (node.folder / "run" / "run.log").read_text() == f"{node.folder}/lab/__init__.py True\n"
    node.hang_up()


@pytest.mark.parametrize(
    ("command", "told"),
    [(("no-such-command",), "cannot start 'no-such-command': No such file or directory; install it or name another")],
)
def test_what_cannot_be_started_is_refused(project, tmp_path, command, told):
    node = Node(opened(job_of(project, *command), tmp_path / "there"))
    assert node.ended() == {"end": "refused", "text": told}
    node.hang_up()


@pytest.mark.parametrize("when", ["before", "while"])
def test_other_data_is_refused_before_and_while_the_run_prepares_it(project, tmp_path, monkeypatch, when):
    cache, gate = tmp_path / "cache", str(tmp_path / "gate")
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(cache))
    prepared(cache, "builtin-v512", "aa")
    place = opened(job_of(project, TOY_GATE=gate), tmp_path / "there")
    if when == "before":
        prepared(cache, "builtin-v512", "bb")
    node = Node(place)
    if when == "while":
        process_of(project)
        prepared(cache, "builtin-v512", "bb")
    told = "data differs: builtin-v512 is bb here, aa where the experiment comes from"
    assert node.ended() == {"end": "refused", "text": told}
    assert len(project.experiments()) == (when == "while")
    node.hang_up()


# What a node must have.


def node_with(labels=None, alive=True, **resources):
    named = {name.replace("__", ":"): value for name, value in resources.items()}
    return {"Alive": alive, "Resources": {"CPU": 8.0, "memory": 64.0 * 2**30} | named, "Labels": labels or {}}


SMALL = node_with(CPU=2.0, memory=4.0 * 2**30)
H100 = node_with({"memory_gb": "80", "rack": "a"}, GPU=8.0, accelerator_type__H100=1.0)
A10 = node_with({"memory_gb": "24", "rack": "b"}, GPU=1.0, accelerator_type__A10G=1.0)
H200 = node_with({"memory_gb": "141"}, GPU=8.0, accelerator_type__H200=1.0)
DEAD = node_with(alive=False, GPU=8.0)
NODES = [SMALL, H100, A10, H200, DEAD]


@pytest.mark.parametrize(
    ("engine", "requires", "fitting", "options", "words"),
    [
        ((0, None, None, {}), {}, NODES[:4], {"num_cpus": 2.0}, "1 CPU"),
        ((0, 4, 8, {}), {}, NODES[1:4], {"num_cpus": 4, "memory": 8 * 2**30}, "4 CPU, 8 GB of memory"),
        ((0, None, None, {}), {"device": "cuda"}, NODES[1:4], {"num_gpus": 1.0, "num_cpus": 1}, "1 GPU"),
        ((0.5, None, None, {}), {"device": "cuda"}, NODES[1:4], {"num_gpus": 0.5, "num_cpus": 1}, "0.5 GPU"),
        ((1, None, None, {}), {"device": "cpu"}, NODES[:4], {"num_cpus": 2.0}, "1 CPU"),
        (
            (1, None, None, {}), {"min_memory_gb": 40}, [H100, H200],
            {"num_gpus": 1, "num_cpus": 1, "label_selector": {"memory_gb": "in(141, 80)"}},
            "1 GPU, 40 GB on the device",
        ),
        (
            (0, None, 2, {}), {"min_memory_gb": 8}, NODES[1:4], {"num_cpus": 8.0, "memory": 8 * 2**30},
            "8 GB of memory",
        ),
        (
            (1, None, None, {"rack": "a"}), {"labels": ["H100"]}, [H100],
            {"num_gpus": 1, "num_cpus": 1, "accelerator_type": "H100", "label_selector": {"rack": "a"}},
            "1 GPU, H100, label rack=a",
        ),
        (
            (1, None, None, {}), {"labels": ["rack=b"]}, [A10],
            {"num_gpus": 1, "num_cpus": 1, "label_selector": {"rack": "b"}}, "1 GPU, label rack=b",
        ),
    ],
)  # fmt: skip
def test_what_is_asked_for_and_who_has_it(engine, requires, fitting, options, words):
    wish = demand(requires, *engine)
    assert [node for node in NODES if wish.fits(node)] == fitting
    assert wish.options(NODES) == options
    assert wish.words() == words


@pytest.mark.parametrize(
    ("requires", "told"),
    [
        ({"device": "mps"}, "the item requires device mps, which Ray does not know; run it on a local worker there"),
        ({"labels": ["rack=b"]}, "the item requires rack=b, and this engine rack=a; start another engine"),
    ],
)
def test_what_no_cluster_can_offer_is_an_error(requires, told):
    with pytest.raises(EngineError) as caught:
        demand(requires, 1, None, None, {"rack": "a"})
    assert str(caught.value) == told


def test_what_a_cluster_has_is_told_in_words():
    assert (
        offers([SMALL, SMALL, H100, DEAD]) == "2 x (2 CPU, 4 GB); 1 x (8 CPU, 8 GPU, 64 GB, H100, memory_gb=80, rack=a)"
    )
    assert offers([DEAD]) == "no node"
