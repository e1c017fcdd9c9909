"""Run experiments on this machine.

    uv run worker.py run -m "wider MLP"         one trusted run of the current tree
    uv run worker.py work --agent hpo           experiments from the queue, one after the other
    uv run worker.py devices                    the devices of this machine, and who holds them
    uv run worker.py sentinel                   the champion once more where it is due: has the machine drifted?
    uv run worker.py --help                     all commands

Exit codes: 0 done, or nothing was due; 1 the run crashed, or the machine has drifted; 2 it could not be done; 130 and
143 interrupted.
Not covered: reading the commons (commons.py) and deciding what to run (director.py).
"""

import sys

from lab import cli

COMMANDS = {
    "run": "lab.cli_run", "work": "lab.cli_work", "devices": "lab.cli_devices", "sentinel": "lab.cli_worker",
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(cli.main("worker.py", __doc__ or "", COMMANDS, sys.argv[1:]))
