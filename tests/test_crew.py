"""Worker processes: what they tell, how they end, and that none is left."""

import os
import signal
import sys

import pytest
from fake_project import lives, wait_for

from lab import crew as crew_module
from lab.crew import Crew, Message
from lab.errors import StoreError


@pytest.fixture
def crew(tmp_path):
    crew = Crew(tmp_path / "logs")
    yield crew
    crew.end()


def hire(crew, number, code, tmp_path):
    crew.hire(number, [sys.executable, "-c", code], tmp_path, dict(os.environ))


def heard(crew, until="left"):
    """The messages to the next one of this name."""
    messages = []
    while not messages or messages[-1].event["event"] != until:
        if message := crew.listen(30.0):
            messages.append(message)
    return messages


def test_what_a_worker_tells_comes_in_order_and_its_end_last(crew, tmp_path):
    hire(crew, 1, 'print(\'{"event": "claimed", "item": "a"}\', flush=True)\nimport os; print(os.getcwd())', tmp_path)
    claimed, strange, left = heard(crew)
    assert claimed == Message(1, {"event": "claimed", "item": "a"})
    assert strange == Message(1, {"event": "warning", "said": str(tmp_path)})
    assert (left.worker, left.event["event"], left.event["code"], left.event["said"]) == (1, "left", 0, None)
    assert left.event["seconds"] > 0


@pytest.mark.parametrize("line", ["[]", "3", "{", '{"event": 3}', '{"status": "ended"}', "[" * 5000, "\\x1b[2J"])
def test_a_line_that_is_no_event_is_a_warning(crew, tmp_path, line):
    hire(crew, 1, f"print({line!r})", tmp_path)
    (warning,) = heard(crew)[:-1]
    assert warning.event["event"] == "warning" and warning.event["said"].isprintable()
    assert len(warning.event["said"]) <= crew_module.MAX_WORDS


@pytest.mark.parametrize(
    ("code", "exit_code", "said"),
    [
        ("import sys; sys.exit('error: no\\tgood\\n\\n')", 1, "error: no good"),
        ("import os, sys; print('so long', file=sys.stderr, flush=True); os.kill(os.getpid(), 9)", -9, "so long"),
        ("import sys; sys.stderr.buffer.write(b'x\\n' * 10**6 + b'last \\xff')", 0, "last �"),
    ],
)
def test_the_last_words_are_those_of_stderr(crew, tmp_path, code, exit_code, said):
    hire(crew, 2, code, tmp_path)
    (left,) = heard(crew)
    assert (left.event["code"], left.event["said"]) == (exit_code, said)
    assert crew.log(2) == tmp_path / "logs" / "worker-2.log"


def test_what_others_say_is_heard_too_and_silence_is_none(crew):
    assert crew.listen(0.0) is None
    crew.say({"event": "signal", "number": 15})
    assert crew.listen(30.0) == Message(None, {"event": "signal", "number": 15})


def test_a_worker_that_cannot_be_started(crew, tmp_path):
    with pytest.raises(StoreError, match=r"^cannot start worker 1: .*no-such-program: No such file or directory; "):
        crew.hire(1, ["no-such-program"], tmp_path, {})
    assert crew.workers == {}


READY = 'print(\'{"event": "ready"}\', flush=True)\nimport time\nwhile True: time.sleep(60)'


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_who_will_not_end_is_killed_with_its_children(crew, tmp_path, monkeypatch):
    monkeypatch.setattr(crew_module, "GRACE_SECONDS", 0.2)
    deaf = "import signal, subprocess\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    child = "print(subprocess.Popen(['sleep', '300'], stdout=subprocess.DEVNULL).pid, flush=True)\n"
    hire(crew, 1, deaf + child + READY, tmp_path)
    hire(crew, 2, READY, tmp_path)
    pids = [worker.process.pid for worker in crew.workers.values()]
    assert all(os.getpgid(pid) == pid for pid in pids)
    told = [*heard(crew, "ready"), *heard(crew, "ready")]
    pids += [int(message.event["said"]) for message in told if message.event["event"] == "warning"]
    crew.end()
    ends = [*heard(crew), *heard(crew)]
    assert {message.worker: message.event["code"] for message in ends} == {1: -signal.SIGKILL, 2: -signal.SIGTERM}
    assert len(pids) == 3
    wait_for(lambda: not any(lives(pid) for pid in pids))
