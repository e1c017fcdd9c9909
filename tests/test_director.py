"""The director's loop, called as a function, with real workers on a project whose experiment takes a moment."""

import os
import re
import signal
import sys
import threading

import pytest
from fake_project import FakeProject, nothing_is_left, of, wait_for

from lab import director, proposers
from lab.director import run_director_loop
from lab.errors import SettingError
from lab.queue import add_to_queue

pytestmark = pytest.mark.skipif(os.name != "posix", reason="process groups")

IDEAS = [{"description": f"idea {n}"} for n in range(1, 6)]


@pytest.fixture
def project(tmp_path):
    return FakeProject(tmp_path / "project")


def test_two_workers_wait_for_the_baseline_and_then_work_side_by_side(project):
    told = []
    ended = run_loop(project, told, workers=2, max_experiments=3)
    assert ended[1:3] == (0, 3)
    ends = [number for number, event in enumerate(told) if event["event"] == "ended"]
    claims = [number for number, event in enumerate(told) if event["event"] == "claimed"]
    assert ends[0] < claims[1] and {event["worker"] for event in of(told, "claimed")} == {1, 2}
    assert len({event["item"] for event in of(told, "claimed")}) == len(project.cards()) == 3
    nothing_is_left(project)


def run_loop(project, told, **asked):
    """The loop in this process, with the environment of the project."""
    before = dict(os.environ)
    os.environ.update(project.environment | asked.pop("environment", {}))
    try:
        return run_director_loop(project.folder, project.knowledge, **{"tell": told.append} | asked)
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_workers_that_end_without_an_experiment_are_not_replaced_for_ever(project, monkeypatch):
    monkeypatch.setattr(director, "BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr(director, "FRUITLESS", 2)
    add_to_queue(project.knowledge, IDEAS)
    told = []
    ended = run_loop(project, told, agent="false")
    assert (ended.code, ended.experiments) == (1, 1)  # the baseline needs no agent
    log = project.folder / "runs" / "director" / "worker-1.log"
    assert ended.reason.startswith(
        f"2 workers in a row ended without an experiment, see {log} | the agent failed with "
    )
    assert len(of(told, "warning")) == len(of(told, "failed")) == 2


def test_without_an_agent_ideas_in_words_wait_for_one(project):
    add_to_queue(project.knowledge, [{"description": "an idea in words", "priority": 1}])
    told = []
    ended = run_loop(project, told, max_experiments=2)
    assert (ended.code, ended.experiments, of(told, "failed")) == (0, 2, [])
    assert [item["description"] for item in project.open_items()] == ["an idea in words"]


def test_changes_of_constants_that_are_refused_are_no_trouble(project, monkeypatch):
    monkeypatch.setattr(director, "FRUITLESS", 2)
    add_to_queue(project.knowledge, [item | {"changes": {"WEIGHT_DECAY": 0.2}} for item in IDEAS[:3]])
    told = []
    ended = run_loop(project, told, max_experiments=2)
    assert (ended.code, ended.experiments, of(told, "warning")) == (0, 2, [])
    assert [event["reason"] for event in of(told, "failed")] == ["these values change nothing"] * 3


@pytest.mark.slow
def test_what_has_failed_is_not_planned_again(project, monkeypatch):
    monkeypatch.setattr(director, "BACKOFF_SECONDS", 0.01)
    script = project.folder / "train.py"
    script.write_text(re.sub(r"(_LR|_DECAY|_RATIO) = (.*)", r"\1 = float(\2)", script.read_text()))
    project.git("commit", "-q", "-a", "-m", "constants that are computed")
    told = []
    ended = run_loop(project, told)
    failed = [event["description"] for event in of(told, "failed")]
    assert ended.experiments == 1 and len(failed) == len(set(failed)) > 1


def test_a_full_disk_ends_it(project, monkeypatch):
    monkeypatch.setattr(director, "LEAST_FREE_BYTES", 1 << 62)
    told = []
    ended = run_loop(project, told)
    assert re.fullmatch(rf"the disk of {project.folder}/runs is full: \d+ MiB are free; free a GiB there", ended.reason)
    assert (ended.code, project.experiments()) == (1, [])


def test_a_worker_that_found_the_disk_full_ends_it(project, monkeypatch):
    bad = project.folder / "worker.py"
    bad.write_text("import sys; sys.exit('error: cannot write x: No space left on device; free space there')")
    monkeypatch.setattr(director, "CHECKOUT", project.folder)
    told = []
    ended = run_loop(project, told)
    assert ended.reason.startswith("the disk is full | error: cannot write x: No space left on device")
    assert (ended.code, len(of(told, "warning"))) == (1, 1)


def test_when_nothing_can_be_planned_it_says_so_and_ends(project, monkeypatch):
    run_loop(project, [], max_experiments=1)
    monkeypatch.setattr(proposers, "plan_experiments", lambda *asked, words: [])
    told = []
    ended = run_loop(project, told)
    assert ended.reason == "nothing is left to be run, and the plan has nothing new that runs without an agent"
    assert ended.code == 0
    assert [event["said"] for event in of(told, "warning")] == ["the plan has nothing new that runs without an agent"]


def test_a_synthesis_that_cannot_be_written_ends_nothing(project):
    (project.knowledge / "synthesis").write_text("in the way")
    told = []
    ended = run_loop(project, told, max_experiments=1, synthesis_interval=1)
    assert (ended.code, ended.experiments) == (0, 1)
    assert [event["said"].partition(" | ")[0] for event in of(told, "warning")] == ["no synthesis"]


def test_in_a_thread_signals_are_left_alone(project):
    before, told = signal.getsignal(signal.SIGTERM), []
    thread = threading.Thread(target=run_loop, args=(project, told), kwargs={"max_experiments": 1})
    thread.start()
    wait_for(lambda: told)
    assert signal.getsignal(signal.SIGTERM) is before
    thread.join()
    assert told[-1]["event"] == "stopped" and len(project.cards()) == 1


def test_what_its_listener_raises_leaves_no_worker(project):
    def fussy(event):
        if event["event"] == "running":
            raise BrokenPipeError

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(BrokenPipeError):
        run_loop(project, [], tell=fussy, environment={"TOY_GATE": str(project.folder / "gate")})
    assert signal.getsignal(signal.SIGINT) is before
    nothing_is_left(project)


def test_a_damaged_record_ends_it_but_not_what_runs(project):
    def damaging(event):
        told.append(event)
        if event["event"] == "running":
            (project.knowledge / "cards").mkdir(exist_ok=True)
            (project.knowledge / "cards" / "0123456789ab.json").write_text("{")

    told = []
    ended = run_loop(project, told, tell=damaging)
    assert ended.code == 1 and ended.reason.startswith(f"{project.knowledge}/cards/0123456789ab.json is not JSON")
    assert len(project.ended_items()) == 1
    nothing_is_left(project)


@pytest.mark.parametrize(
    ("settings", "asked", "said"),
    [
        ("", {"hours": 1e-4}, "0.0 minutes of 0.0001 h are left, an experiment takes about 6.0"),
        (
            "price_per_hour = 2.0\n",
            {"budget": 0.1},
            "0.10 of the budget of 0.1 is left, an experiment takes about 0.20",
        ),
    ],
)
def test_what_does_not_fit_is_not_begun(tmp_path, settings, asked, said):
    project = FakeProject(tmp_path / "project", settings)
    ended = run_loop(project, [], **asked)
    assert (ended.reason, ended.code, project.experiments()) == (said, 0, [])


def test_what_the_work_cost_is_told(tmp_path):
    project = FakeProject(tmp_path / "project", "price_per_hour = 3600.0\n")
    told = []
    ended = run_loop(project, told, budget=1000.0, max_experiments=1)
    assert ended.experiments == 1 and 0 < ended.spent < 60
    assert [event["state"]["spent"] for event in told][-1] == ended.spent


def test_the_library_names_a_wrong_session(project):
    with pytest.raises(SettingError, match="is no name for a branch"):
        run_loop(project, [], session="..")


def test_suspect_runs_in_a_row_end_it_and_nothing_goes_on_from_them(tmp_path):
    project = FakeProject(tmp_path / "project", f"second_look = '''{sys.executable} look.py'''\n")
    (project.folder / "look.py").write_text("""print('{"suspect": "does not reproduce: x"}')""")
    script = project.folder / "train.py"
    script.write_text(script.read_text().replace("run.finish(", 'run.evaluated({"val_bpb": result})\nrun.finish('))
    project.git("add", ".")
    project.git("commit", "-q", "-m", "with a second look")
    told = []
    ended = run_loop(project, told)
    cards = ", ".join(card["id"][:12] for card in project.cards())
    why = "does not reproduce: x"
    assert ended.reason == f"3 runs in a row are suspect and count for nothing, mend the cause: {cards} | {why}"
    assert (ended.code, ended.experiments) == (1, 3)
    assert [(event["suspect"], event["branch"]) for event in of(told, "ended")] == [(why, None)] * 3
    nothing_is_left(project)
