"""Asking git, where there is one: no answer is an answer."""

import subprocess
from pathlib import Path

GIT_TIMEOUT_SECONDS = 5.0


def git(folder: Path, *arguments: str) -> bytes | None:
    """What git prints; None when there is no git, no repository, or no answer in time."""
    command = ["git", "--no-optional-locks", *arguments]  # an agent may be using git at the same moment
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=GIT_TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def full_hash(folder: Path, name: str) -> str | None:
    """The whole hash of the commit that `name` (HEAD, a branch, the beginning of a hash) stands for, None if none."""
    answer = git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    return answer.decode().strip() if answer else None
