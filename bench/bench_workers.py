"""What it costs to let a worker run an experiment, and how many a machine gets through in an hour.

    uv run --extra ray bench/bench_workers.py               some minutes
    uv run bench/bench_workers.py --only overhead
    uv run --extra ray bench/bench_workers.py --quick       few of everything: that it works

Overhead: the same script run plainly and through `worker.py run` (its checks, commit, checkout, keeper, verdict), in
turns; the difference is what a worker adds, whatever the experiment. Throughput: `director.py run` with experiments
that sleep, so that only the machinery counts, on one and two devices (a scripted nvidia-smi shows two) and on a Ray
cluster of this machine; the ideal is a device that never waits. Exit code 1 where the overhead misses its target.
Not covered: who finds more in so many experiments (bench_efficiency.py), what an agent needs to think, the second look
at a kept run, and clusters of several machines.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
ROUNDS, SLEEP_SECONDS, EXPERIMENTS = 9, 10.0, 4
BAR_SECONDS, BUDGET_SECONDS = 2.0, 300.0  # the targets: under 2 s, and under 1% of a run of five minutes
SCRIPT = f"""
import os, sys, time
sys.path.insert(0, {str(ROOT)!r})
from lab import recorder
run = recorder.start(__file__)

MATRIX_LR = 0.04
EMBEDDING_LR = 0.6
WARMDOWN_RATIO = 0.5
WEIGHT_DECAY = 0.2

SEED = int(os.environ.get("AUTORESEARCH_SEED", 42))
config = {{name: value for name, value in globals().items() if name.isupper() and name != "SEED"}}
run.update(seed=SEED, track="bench/box", platform={{"device": "cpu"}}, config=config)
time.sleep(float(os.environ.get("BENCH_SLEEP", 0)))
run.finish({{"val_bpb": 1 + (MATRIX_LR - 0.06) ** 2 + (SEED * 5 % 7) * 1e-4}})
"""
NVIDIA = """#!/bin/sh
case "$*" in
*compute-apps*) ;;
-L) ;;
*) for i in 0 1; do echo "GPU-$i, 1000, 10, 5, 40, Disabled, Bench $i"; done ;;
esac
"""


class Project:
    """A repository with an experiment, its commons and its own slots."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        (folder / "pyproject.toml").write_text(f'[tool.autoresearch]\ncommand = "{sys.executable} train.py"\n')
        (folder / ".gitignore").write_text("knowledge/\nruns/\nslots/\nbin/\n")
        (folder / "train.py").write_text(SCRIPT)
        (folder / "bin" / "nvidia-smi").write_text(NVIDIA)
        (folder / "bin" / "nvidia-smi").chmod(0o755)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AUTORESEARCH_")}
        self.environment = inherited | {
            "AUTORESEARCH_SLOTS": str(folder / "slots"), "KNOWLEDGE_DIR": str(folder / "knowledge"),
            "AUTORESEARCH_RUNS_DIR": str(folder / "runs"),
        }  # fmt: skip
        self.run("git", "init", "-q")
        self.run("git", "add", ".")
        self.run("git", "-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "-qm", "the baseline")
        self.run(sys.executable, str(ROOT / "commons.py"), "init")

    def run(self, *command: str, **environment: str) -> float:
        """Run a command to its end; the seconds that took."""
        began = time.perf_counter()
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment | environment, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}: {(done.stderr or done.stdout)[-1000:]}")
        return time.perf_counter() - began

    def director(self, experiments: int, *options: str, **environment: str) -> float:
        """The seconds of so many experiments by `director.py run`."""
        command = (sys.executable, str(ROOT / "director.py"), "run", "--max-experiments", str(experiments), *options)
        return self.run(*command, **environment)


def overhead(rounds: int) -> float:
    """Print what a worker adds to a run; the median of it in seconds."""
    print("\noverhead of a run            plain  worker.py run  difference  of a 5-minute run")
    differences = []
    with tempfile.TemporaryDirectory() as place:
        project = Project(Path(place) / "project")
        for number in range(rounds):
            plain = project.run(sys.executable, "train.py", AUTORESEARCH_SEED=str(1000 + number))
            worker = (sys.executable, str(ROOT / "worker.py"), "run", "--replicate", "--seed", str(number))
            trusted = project.run(*worker)
            differences.append(trusted - plain)
            share = differences[-1] / BUDGET_SECONDS
            print(f"round {number + 1:<4} {plain:>21.2f} s {trusted:>12.2f} s {differences[-1]:>9.2f} s {share:>18.2%}")
    found = median(differences)
    print(f"median {found:>50.2f} s {found / BUDGET_SECONDS:>18.2%}   (targets: {BAR_SECONDS:g} s, 1%)")
    return found


def throughput(sleep: float, experiments: int) -> None:
    """Print experiments an hour against a device that never waits."""
    print(f"\nexperiments of {sleep:g} s         ended in     an hour       ideal  of the ideal  seconds beside each")
    ways = [("1 worker, 1 device", 1, ("--workers", "1"), {"AUTORESEARCH_DEVICE": "cpu"}),
            ("2 workers, 2 devices", 2, ("--workers", "2"), {})]  # fmt: skip
    if find_spec("ray"):
        ray = ("--workers", "2", "--engine", "ray", "--cpus", "1")
        ways.append(("2 workers on Ray", 2, ray, {"AUTORESEARCH_DEVICE": "cpu"}))
    else:
        print("Ray is not installed: uv run --extra ray ...")
    for name, workers, options, more in ways:
        with tempfile.TemporaryDirectory() as place:
            project = Project(Path(place) / "project")
            path = f"{project.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
            environment = {"BENCH_SLEEP": f"{sleep:g}", "PATH": path} | more
            project.director(1, BENCH_SLEEP="0", AUTORESEARCH_DEVICE="cpu")  # the baseline, which is run alone
            took = project.director(experiments, *options, **environment)
        hourly, ideal = 3600 * experiments / took, 3600 * workers / sleep
        beside = took * workers / experiments - sleep
        print(f"{name:<24} {took:>10.1f} s {hourly:>11.0f} {ideal:>11.0f} {hourly / ideal:>13.2f} {beside:>20.1f}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--only", choices=("overhead", "throughput"))
    parser.add_argument("--quick", action="store_true", help="few of everything")
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"{platform.platform()}, {cores} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}")
    found = 0.0
    if args.only in (None, "overhead"):
        found = overhead(2 if args.quick else ROUNDS)
    if args.only in (None, "throughput"):
        throughput(1.0 if args.quick else SLEEP_SECONDS, 2 if args.quick else EXPERIMENTS)
    sys.exit(found > BAR_SECONDS and not args.quick)


if __name__ == "__main__":
    main()
