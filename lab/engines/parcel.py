"""A job as one file that a machine without a copy of the repository can run: made here, opened there.

    write_parcel(job, path)              # here: a tar of job.json, the commit, our `lab`, and what the run needs
    checkout = unpack(folder)            # there, where the tar lies opened

The commit goes as a pack: the commit itself with its files and, without theirs, its parents, which are its horizon as
in a shallow clone. So it has its own name there, at the price of its files, however long the history is.
Not covered: submodules, and the contents of files that Git LFS keeps elsewhere.
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lab
from lab.engines import Job
from lab.errors import StoreError
from lab.git import full_hash, repository_path, run_git
from lab.store import dump_json, read_json, replace

# What of our own environment decides what an experiment is, and so goes along. The rest is this machine's.
TRAVELS = tuple(
    f"AUTORESEARCH_{name}" for name in ("TIME_BUDGET", "STEPS", "PRESET", "DATASET", "COMPILE", "SEED", "BASE_URL")
)


def write_parcel(job: Job, path: Path) -> None:
    """Write the parcel of a job. StoreError where its commit is not in this clone, or a file cannot be read."""
    found = repository_path(job.project, job.project)
    commit = full_hash(job.project, job.commit)
    if found is None or commit is None:
        raise StoreError(f"commit {job.commit} is not in the repository of {job.project}; fetch it")
    told = {name: os.environ[name] for name in TRAVELS if name in os.environ} | dict(job.told)
    parents = run_git(found[0], "rev-parse", f"{commit}^@").decode().split()
    facts = {
        "commit": commit, "horizon": parents or [commit], "below": found[1], "command": list(job.command),
        "told": told, "folder": str(job.folder), "log": job.log, "limit": job.limit,
        "data": prepared_here(told),
    }  # fmt: skip
    try:
        with tarfile.open(path, "w") as tar:
            _add(tar, "job.json", dump_json(facts))
            _add(tar, "commit.pack", _pack(found[0], commit, parents))
            for name, content in job.files.items():
                _add(tar, f"over/{name}", content)
            for file in _plain_files(job.folder):
                _add(tar, f"run/{file.name}", file.read_bytes())
            house = Path(lab.__file__).parent
            for file in sorted(house.rglob("*.py")):
                _add(tar, f"lab/{file.relative_to(house).as_posix()}", file.read_bytes())
    except OSError as error:
        raise StoreError(f"cannot pack {job.folder} for another machine: {error.strerror}") from error


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)  # its time is 0: so the other side knows what the run has not touched
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _plain_files(folder: Path) -> Iterator[Path]:
    """The files directly in a folder that are neither hidden nor links."""
    if folder.is_dir():
        yield from (at for at in sorted(folder.iterdir()) if at.is_file() and not at.is_symlink() and at.name[0] != ".")


def _pack(top: Path, commit: str, parents: list[str]) -> bytes:
    """A git pack of a commit with its files and of the bare commits that it builds on."""
    objects = run_git(top, "rev-list", "--objects", "--no-walk", commit).decode("utf-8", "surrogateescape")
    names = [line.split(" ", 1)[0] for line in objects.splitlines()]
    wanted = "".join(f"{name}\n" for name in [*names, *parents]).encode()
    return run_git(top, "pack-objects", "--stdout", "-q", stdin=wanted)


def unpack(folder: Path) -> Path:
    """Check the commit of an opened parcel out, with the job's files over it; the project's folder in the checkout.

    StoreError where git is missing, or the parcel is damaged.
    """
    job, checkout = read_json(folder / "job.json"), folder / "checkout"
    checkout.mkdir()
    kind = "sha256" if len(job["commit"]) == 64 else "sha1"
    run_git(checkout, "init", "--quiet", f"--object-format={kind}")
    replace(checkout / ".git" / "shallow", "".join(f"{name}\n" for name in sorted(job["horizon"])).encode())
    run_git(checkout, "index-pack", "--stdin", stdin=(folder / "commit.pack").read_bytes())
    run_git(checkout, "checkout", "--quiet", "--detach", job["commit"])
    project, over = checkout / str(job["below"]), folder / "over"
    for file in sorted(over.rglob("*")):
        if file.is_file():
            replace(project / file.relative_to(over), file.read_bytes())
    return project


def prepared_here(told: Mapping[str, str]) -> dict[str, str]:
    """The fingerprints of the prepared data that the run may use: {folder in the cache: fingerprint}.

    Where no data set is named the run chooses one by itself: then it is all that there are.
    """
    dataset = told.get("AUTORESEARCH_DATASET") or ""
    kind, colon, path = dataset.partition(":")
    if kind == "local" and colon:  # named as in `prepare.prepared_dir`
        dataset = "local-" + hashlib.sha256(str(Path(path).expanduser().resolve()).encode()).hexdigest()[:8]
    folders = _cache(told).glob(f"{dataset}-v*" if dataset else "*-v*")
    found = {folder.name: _fingerprint(folder) for folder in folders}
    return {name: fingerprint for name, fingerprint in found.items() if fingerprint}


def other_data(job: Mapping[str, Any]) -> str | None:
    """How prepared data of this machine differs from that of the machine that sent the job; None: not that we know."""
    for name, fingerprint in job["data"].items():
        here = _fingerprint(_cache(job["told"]) / name)
        if here not in (None, fingerprint):
            return f"data differs: {name} is {here} here, {fingerprint} where the experiment comes from"
    return None


def _cache(told: Mapping[str, str]) -> Path:
    """The folder of prepared data, as in `prepare.cache_dir`."""
    named = told.get("AUTORESEARCH_CACHE") or os.environ.get("AUTORESEARCH_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "autoresearch-commons"


def _fingerprint(folder: Path) -> str | None:
    """Of a prepared data set; None where it is not there, or damaged, which the run will tell."""
    try:
        found = json.loads((folder / "manifest.json").read_bytes())["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None
