"""What the kernel tells of processes that it ended for want of memory: its files, as machines have them."""

import os

import pytest

from lab.memory import memory_ran_out, oom_kills

VMSTAT = {"proc/vmstat": "nr_free_pages 1\noom_kill 7\nzswpin 3\n"}
EVENTS = "low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\noom_group_kill 0\n"
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"


@pytest.mark.parametrize(
    ("files", "kills"),
    [
        ({"proc/self/cgroup": "0::/a:b/c\n", "sys/fs/cgroup/a:b/c/memory.events": EVENTS} | VMSTAT, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.events": EVENTS} | VMSTAT, 1),  # in a container
        ({"proc/self/cgroup": "0::/\n"} | VMSTAT, 7),  # the root group counts nothing
        ({"proc/self/cgroup": "9:pids:/x\n4:cpu,memory:/y\n", "sys/fs/cgroup/memory/y/memory.oom_control": CONTROL}, 4),
        ({"proc/self/cgroup": "4:memory:/y\n"} | VMSTAT, 7),  # mounted elsewhere
        ({"proc/self/cgroup": "torn"} | VMSTAT, 7),
        ({"proc/vmstat": "nr_free_pages 1\n"}, None),  # an old kernel
        ({}, None),  # another system
    ],
)  # fmt: skip
def test_the_nearest_counter_is_read(tmp_path, files, kills):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert oom_kills(tmp_path) == kills


@pytest.mark.skipif(not os.path.exists("/proc/vmstat"), reason="Linux tells")
def test_on_this_machine():
    now = oom_kills()
    assert now is not None and now >= 0
    assert memory_ran_out(now - 1)
    assert not memory_ran_out(now + 1)
    assert not memory_ran_out(None)
