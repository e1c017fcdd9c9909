"""Experiments on real Ray clusters: several nodes on this machine, and a second host in a network namespace."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_project import FakeProject, lives, wait_for

from lab.engines import EngineError, Job
from lab.engines.ray import RayEngine
from lab.errors import SettingError
from lab.outcome import record
from lab.runner import OvertimeError, StoppedError
from lab.store import read_json

pytest.importorskip("ray")
from ray.cluster_utils import Cluster

ROOT = Path(__file__).parent.parent
SMALL = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
pytestmark = pytest.mark.timeout(600)  # a bound for what hangs: a node takes seconds to start, or many seconds


@pytest.fixture(scope="module", autouse=True)
def temporary():
    """Where Ray and the nodes keep their files: a short path, because there are sockets in it."""
    before = os.environ.get("TMPDIR")
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    os.environ["TMPDIR"] = str(folder)
    yield folder
    for pid in subprocess.run(["pgrep", "-f", str(folder)], capture_output=True, text=True).stdout.split():
        os.kill(int(pid), signal.SIGKILL)  # what a cluster has left that did not come up
    os.environ.pop("TMPDIR")
    if before:
        os.environ["TMPDIR"] = before
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def nothing_is_left(project, temporary):
    """After every test: no experiment runs, and no node keeps a copy of one."""
    yield
    wait_for(lambda: not project.left_behind()[0] and not list(temporary.glob("autoresearch-*")))


@contextmanager
def cluster_of(*nodes, **head):
    """A cluster with a head that runs nothing, and these nodes."""
    cluster = Cluster()
    try:
        cluster.add_node(**SMALL | {"num_cpus": 0} | head)
        cluster.nodes = [cluster.add_node(**SMALL | node) for node in nodes]
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture(scope="module")
def cluster():
    with cluster_of({"labels": {"rack": "a"}}, {"labels": {"rack": "b"}}) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def engine(cluster):
    engine = RayEngine(cluster.address, wait=3.0)
    yield engine
    engine.close()


@pytest.fixture
def project(tmp_path):
    return FakeProject(tmp_path / "project")


def job_of(project, number=0, *command, limit=100.0, requires=None, **told):
    folder = project.folder / "runs" / f"{number:012x}"
    told = {
        "AUTORESEARCH_RUN_ID": folder.name, "TOY_LOG": str(project.log), "KNOWLEDGE_DIR": str(project.knowledge),
    } | told  # fmt: skip
    command = command or (sys.executable, "train.py")
    return Job(project.folder, "HEAD", {}, command, told, folder, "run.log", limit, requires or {})


def never():
    return None


class InThread(threading.Thread):
    """A job that runs while the test goes on; `code` is its exit code, or `error` what came of it."""

    def __init__(self, engine, job, look=never):
        super().__init__(daemon=True)
        self.engine, self.job, self.look = engine, job, look
        self.code = self.error = None
        self.start()

    def run(self):
        try:
            self.code = self.engine.run(self.job, self.look)
        except (EngineError, OvertimeError, StoppedError) as error:
            self.error = error


def hosts(node):
    """The processes of a node that run our hosts."""
    raylet = node.all_processes["raylet"][0].process.pid
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(raylet)], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "ray::Host" in line]


def begun(project, count=1):
    """The processes of the experiments that have begun, when there are so many."""
    wait_for(lambda: len(project.experiments()) >= count)
    return [process for process, _ in project.experiments()]


# What comes back.


def test_two_experiments_run_at_once_and_their_cards_are_made_here(cluster, engine, project):
    gate = project.folder / "gate"
    other = RayEngine(cluster.address)
    threads = [InThread(one, job_of(project, n, TOY_GATE=str(gate))) for n, one in enumerate((engine, other))]
    begun(project, 2)
    assert [len(hosts(node)) for node in cluster.nodes] == [1, 1]
    gate.touch()
    for thread in threads:
        thread.join()
    other.close()
    assert [thread.code for thread in threads] == [0, 0]
    assert project.cards() == []
    commit = project.git("rev-parse", "HEAD").strip()
    for thread in threads:
        folder = thread.job.folder
        assert read_json(folder / "start.json")["knowledge_dir"] == str(project.knowledge)
        assert (folder / "train.py").read_bytes() == (project.folder / "train.py").read_bytes()
        assert not {"error.json", "decision.md"} & {file.name for file in folder.iterdir()}
        card = record(folder)
        assert (card["commit"], card["metric"], card["error"]) == (commit, "val_bpb", None)
    assert len(project.cards()) == 2


def test_a_crash_comes_back_with_what_its_node_says_of_it(engine, project):
    job = job_of(project, TOY_FAILS="")
    assert engine.run(job, never) == 1
    assert "ValueError: no good" in (job.folder / "run.log").read_text()
    error = read_json(job.folder / "error.json")
    card = record(job.folder, error["error"], error["loss_curve"])
    assert (card["status"], card["error"]["kind"], card["track"]) == ("crash", "exception", "toy/box")


TALKS = """
import os, pathlib, sys, time
run = pathlib.Path(os.environ["AUTORESEARCH_RUN_DIR"])
print("hello", flush=True)
(run / "losses.jsonl").write_text("[1, 0.5, 9.0]\\n")
(run / "big").write_bytes(bytes(20 << 20))
(run / "link").symlink_to("/etc/passwd")
while not os.path.exists(os.environ["TOY_GATE"]):
    time.sleep(0.02)
print("bye")
"""


def test_log_and_losses_come_while_it_runs_and_all_files_at_its_end(engine, project):
    gate = project.folder / "gate"
    job = job_of(project, 0, sys.executable, "-c", TALKS, TOY_GATE=str(gate))
    seen = []

    def look():
        log, losses = job.folder / "run.log", job.folder / "losses.jsonl"
        if log.read_text() == "hello\n" and losses.exists() and losses.read_text() == "[1, 0.5, 9.0]\n":
            seen.append(True)
            gate.touch()

    assert engine.run(job, look) == 0
    assert seen
    assert (job.folder / "run.log").read_text() == "hello\nbye\n"
    assert sorted(file.name for file in job.folder.iterdir()) == ["big", "losses.jsonl", "run.log"]
    assert (job.folder / "big").stat().st_size == 20 << 20


def test_a_second_command_in_a_folder_leaves_what_is_there(engine, project):
    job = job_of(project)
    assert engine.run(job, never) == 0
    held = {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in job.folder.iterdir()}
    script = "import os, shutil, sys; os.chdir(sys.argv[1]); shutil.copyfile('summary.json', 'evaluation.json')"
    second = job._replace(command=[sys.executable, "-c", script, str(job.folder)], log="second.log")
    assert engine.run(second, never) == 0
    now = {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in job.folder.iterdir()}
    assert now.pop("second.log")[1] == b""
    assert now.pop("evaluation.json")[1] == held["summary.json"][1]
    assert now == held


# How a run ends before its end.


def test_a_run_is_ended_when_the_look_at_it_says_so(engine, project):
    job = job_of(project, TOY_GATE="never")
    with pytest.raises(StoppedError, match=r"^the loss is lost$"):
        engine.run(job, lambda: "the loss is lost" if (job.folder / "start.json").exists() else None)
    assert read_json(job.folder / "start.json")["track"] == "toy/box"


def test_a_run_has_its_limit(engine, project):
    with pytest.raises(OvertimeError) as caught:
        engine.run(job_of(project, TOY_GATE="never", limit=4.0), never)
    assert str(caught.value) == f"{sys.executable} took longer than 4 s and was ended"


def test_what_a_node_refuses_is_an_error_that_names_it(engine, project):
    with pytest.raises(EngineError) as caught:
        engine.run(job_of(project, 0, "no-such-command"), never)
    node = os.uname().nodename
    told = "cannot start 'no-such-command': No such file or directory; install it or name another"
    assert str(caught.value) == f"node {node}: {told}"


# Which node it gets.


def test_a_label_picks_the_node(cluster, engine, project):
    gate = project.folder / "gate"
    thread = InThread(engine, job_of(project, TOY_GATE=str(gate), requires={"labels": ["rack=b"]}))
    begun(project)
    assert [len(hosts(node)) for node in cluster.nodes] == [0, 1]
    gate.touch()
    thread.join()
    assert thread.code == 0


def test_what_no_node_has_is_an_error_after_a_wait(cluster, engine, project):
    with pytest.raises(EngineError) as caught:
        engine.run(job_of(project, requires={"device": "cuda", "labels": ["H100"]}), never)
    told, has = str(caught.value).split("; it has ")
    assert told == f"no node of the Ray cluster at {cluster.address} has 1 GPU, H100, and none came in 3 s"
    assert "1 x (1 CPU, " in has and "rack=b)" in has


# What dies, and what becomes of it.


def test_a_worker_that_is_killed_is_replaced_and_its_run_begins_again(cluster, engine, project):
    gate = project.folder / "gate"
    told = []
    engine._tell = lambda event, **more: told.append(event)
    job = job_of(project, TOY_GATE=str(gate))
    thread = InThread(engine, job)
    first = begun(project)[0]
    os.kill(next(pid for node in cluster.nodes for pid in hosts(node)), signal.SIGKILL)
    wait_for(lambda: not lives(first))
    begun(project, 2)
    gate.touch()
    thread.join()
    engine._tell = lambda event, **more: None
    assert thread.code == 0
    assert told.count("lost") == 1
    assert (job.folder / "attempt-1.log").exists()
    assert record(job.folder)["error"] is None


DRIVER = """
import json, os, sys
from pathlib import Path
from lab.engines import EngineError, Job
from lab.engines.ray import RayEngine
from lab.interrupts import InterruptedRunError, interruptible
address, *job = json.loads(sys.argv[1])
job = Job(*job)._replace(project=Path(job[0]), folder=Path(job[5]))
engine = RayEngine(address, max_attempts=2)
try:
    with interruptible():
        print(json.dumps({"end": engine.run(job, lambda: None)}))
except (InterruptedRunError, EngineError) as error:
    print(json.dumps({"end": str(error)}))
finally:
    engine.close()
"""


class Driver:
    """A process that runs a job, and the process of it that talks with Ray."""

    def __init__(self, address, job, **environment):
        told = json.dumps([address, *job], default=str)
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, told], stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        )  # fmt: skip

    def bridge(self):
        found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True)
        return int(found.stdout.split()[0])

    def end(self):
        said, _ = self.process.communicate()
        return json.loads(said)["end"] if said else None


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_driver_ends_its_run(cluster, project, number):
    driver = Driver(cluster.address, job_of(project, TOY_GATE="never"))
    begun(project)
    driver.process.send_signal(number)
    assert driver.end() == "interrupted; what had been started is ended and cleared away"
    assert project.left_behind()[0] == []


@pytest.mark.slow
@pytest.mark.parametrize("who", ["the driver", "the driver's connection", "both"])
def test_of_a_driver_that_is_killed_nothing_is_left(cluster, project, who):
    driver = Driver(cluster.address, job_of(project, TOY_GATE="never"))
    begun(project)
    bridge = driver.bridge()
    if who != "the driver's connection":
        driver.process.kill()
    if who != "the driver":
        os.kill(bridge, signal.SIGKILL)
    ended = driver.end()
    assert ended is None or ended.startswith(f"lost the Ray cluster at {cluster.address}: ")
    wait_for(lambda: not lives(bridge))
    assert len(project.experiments()) == 1
    assert project.cards() == []
    wait_for(lambda: not [pid for node in cluster.nodes for pid in hosts(node)])


@pytest.mark.slow
def test_a_run_goes_on_elsewhere_when_its_node_is_killed(project):
    with cluster_of({}, {}) as cluster:
        engine = RayEngine(cluster.address)
        gate = project.folder / "gate"
        job = job_of(project, TOY_GATE=str(gate))
        thread = InThread(engine, job)
        first = begun(project)[0]
        node = next(node for node in cluster.nodes if hosts(node))
        os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)
        begun(project, 2)
        wait_for(lambda: not lives(first))
        gate.touch()
        thread.join()
        engine.close()
    assert thread.code == 0
    assert record(job.folder)["error"] is None


@pytest.mark.slow
def test_a_run_that_loses_every_node_is_an_error(project):
    with cluster_of({}) as cluster:
        engine = RayEngine(cluster.address, max_attempts=1)
        thread = InThread(engine, job_of(project, TOY_GATE="never"))
        begun(project)
        os.kill(hosts(cluster.nodes[0])[0], signal.SIGKILL)
        thread.join()
        engine.close()
    assert str(thread.error).startswith("lost 1 times, the last time because: ")


@pytest.mark.slow
def test_a_dead_head_is_an_error_and_ends_the_run(project, monkeypatch):
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
    with cluster_of({}) as cluster:
        engine = RayEngine(cluster.address)
        thread = InThread(engine, job_of(project, TOY_GATE="never"))
        begun(project)
        os.kill(cluster.head_node.all_processes["gcs_server"][0].process.pid, signal.SIGKILL)
        thread.join()
        engine.close()
        assert f"at {cluster.address}" in str(thread.error)


@pytest.mark.slow
def test_without_a_cluster_one_is_started_here_and_ends_with_the_engine(project, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ | {"HOME": str(tmp_path)})  # Ray puts a token there
    first = RayEngine(None)
    second = RayEngine(first.connect())
    assert second.run(job_of(project), never) == 0
    head = second.address
    second.close()
    first.close()
    with pytest.raises(EngineError, match=rf"^cannot connect to a Ray cluster at {head}: "):
        RayEngine(head).connect()


def test_an_address_of_ray_client_is_refused():
    with pytest.raises(SettingError) as caught:
        RayEngine("ray://there:10001")
    assert str(caught.value) == (
        "--address ray://there:10001: Ray Client cannot be used; give HOST:PORT on a cluster's node"
    )


# Another host.

HERE, THERE, SPACE = "10.213.77.1", "10.213.77.2", f"lab{os.getpid()}"


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def far_host():
    """A network namespace with a cable to it: what is put before a command that is to run there."""
    try:
        ip("netns", "add", SPACE)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to make a network namespace")
    try:
        near, far = f"{SPACE}a", f"{SPACE}b"
        ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", SPACE)
        ip("address", "add", f"{HERE}/30", "dev", near)
        ip("link", "set", near, "up")
        for words in (("address", "add", f"{THERE}/30", "dev", far), ("link", "set", far, "up")):
            ip("-n", SPACE, *words)
        ip("-n", SPACE, "link", "set", "lo", "up")
        yield ["ip", "netns", "exec", SPACE]
    finally:
        for pid in ip("netns", "pids", SPACE).split():
            os.kill(int(pid), signal.SIGKILL)
        ip("netns", "delete", SPACE)  # and the cable with it


@pytest.mark.slow
def test_a_run_goes_on_elsewhere_when_the_network_is_cut(project, far_host):
    # A cut node is declared dead after 4 s here, not after 65, and gives up itself after 10 s, not after 60.
    hasty = {"health_check_period_ms": 1000, "health_check_timeout_ms": 1000, "health_check_failure_threshold": 2}
    hasty["gcs_rpc_server_reconnect_timeout_s"] = 10
    with cluster_of(node_ip_address=HERE, _system_config=hasty) as cluster:
        start = [Path(sys.executable).with_name("ray"), "start", "--block", "--address", cluster.address]
        start += ["--node-ip-address", THERE, "--num-cpus", "1", "--object-store-memory", str(80 << 20)]
        far = subprocess.Popen([*far_host, *start], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        engine = RayEngine(cluster.address)
        gate = project.folder / "gate"
        job = job_of(project, TOY_GATE=str(gate))
        thread = InThread(engine, job)
        first = begun(project)[0]
        assert str(first) in ip("netns", "pids", SPACE).split()
        cluster.add_node(**SMALL, node_ip_address=HERE)
        ip("-n", SPACE, "link", "set", f"{SPACE}b", "down")
        begun(project, 2)
        gate.touch()
        thread.join()
        engine.close()
        assert thread.code == 0
        assert record(job.folder)["error"] is None
        far.wait()  # it has noticed, too
        wait_for(lambda: not lives(first))
