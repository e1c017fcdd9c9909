"""Plan experiments, queue them, and run many: what to try next, who works on what, and a whole night unattended.

    uv run director.py plan                     what would be tried next, and why
    uv run director.py add "wider MLP"          an idea of your own into the queue
    uv run director.py run --hours 8            plan, run and adapt, until it is told to stop
    uv run director.py --help                   all commands

As a library: `from director import add_to_queue, claim_next_experiment, ...` (docs/protocol.md).
Not covered: one experiment (worker.py, train.py) and what came of it (commons.py).
"""

import sys

from lab import cli

QUEUE, PLAN = "lab.cli_queue", "lab.cli_plan"
COMMANDS = {
    "strategy": "lab.cli_strategy", "suggest": PLAN, "plan": PLAN, "run": "lab.cli_director", "add": QUEUE,
    "list": QUEUE, "status": QUEUE, "claim": QUEUE, "heartbeat": QUEUE, "complete": QUEUE, "fail": QUEUE,
    "release": QUEUE, "cancel": QUEUE, "requeue": QUEUE, "prune": QUEUE,
}  # fmt: skip

# The library: where each name is at home. They are loaded when they are asked for.
LIBRARY = {
    "lab.queue": ("add_to_queue", "finished_items", "load_queue"),
    "lab.leases": (
        "cancel", "claim_next_experiment", "complete_experiment", "fail_experiment", "heartbeat", "prune", "release",
        "requeue",
    ),
    "lab.planning": ("plan_experiments",),
    "lab.director": ("run_director_loop",),
}  # fmt: skip
__all__ = [name for names in LIBRARY.values() for name in names]
__getattr__ = cli.exports(__name__, LIBRARY)

if __name__ == "__main__":
    sys.exit(cli.main("director.py", __doc__ or "", COMMANDS, sys.argv[1:]))
