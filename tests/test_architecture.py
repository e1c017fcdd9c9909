"""Imports run one way (DESIGN, section 2): read from the source, so that a lazy import cannot hide."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# From the ground up: a module imports from its own floor and from those below. One that is not named here (a door's
# room, or what is still to come) stands on top and may import whatever makes no cycle.
FLOORS = (
    {"errors", "vocabulary"},
    {"schema"},
    {"store", "locks", "settings", "git", "interrupts", "memory", "keeper", "download", "catalogue"},
    {
        "stats", "effects", "edits", "knobs", "rewrites", "words", "ideas", "likeness", "novelty", "brief",
        "lineage", "tables", "guess", "columns", "datasets", "page", "response", "envelope", "ranges", "nvidia",
        "engines",
    },
    {"belief"},
    {"tree"},
    {
        "cards", "notes", "items", "journal", "snapshot", "queue", "leases", "runs", "scatter", "confirming",
        "sweep", "strategy", "limits", "bandit", "world", "recombine", "suggest",
    },
    {"findings", "audit"},
    {"decide"},
    {"steps", "report"},
    {"mirror", "index", "merge", "witness", "salvage"},
    {"judgement"},
    {"facts", "briefing", "tried", "losses"},
    {"waiting", "guard", "situation"},
    {"planning"},
    {
        "morning", "hpo", "library", "synthesis", "canvas", "progress", "plots", "export", "ledger", "sync", "setup",
        "doctor",
    },
    {"outcome", "recorder"},
    {"runlog", "runner", "checkouts", "devices", "foreign", "crew", "status", "recheck"},
    {"engines.demand", "engines.parcel", "engines.node", "engines.host", "engines.cluster", "engines.ray"},
    {"agents", "experiment"},
    {"sentinel", "current"},
    {"proposal", "proposers"},
    {"work"},
    {"supply"},
    {"director"},
)  # fmt: skip
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
# These decide and tell: nothing they need is on a disk.
PURE = {
    "stats", "effects", "belief", "tree", "findings", "decide", "novelty", "likeness", "ideas", "words",
    "vocabulary", "edits", "rewrites", "brief", "report", "steps", "lineage", "runs", "guess", "sweep",
    "scatter", "confirming", "audit", "strategy", "bandit", "response", "world", "recombine", "suggest", "knobs",
    "limits", "envelope", "ranges",
}  # fmt: skip
# What a command that reads, or a run on its way up, loads: nothing that is installed.
STANDARD_LIBRARY_ONLY = set(FLOOR) - {
    "locks", "devices", "download", "datasets", "settings", "canvas", "progress", "plots", "export", "page", "status",
    "hpo", "engines.cluster", "engines.ray", "engines.node",
}  # fmt: skip
SCRIPTS = {path.stem for path in ROOT.glob("*.py")}
SCRIPT_IMPORTS = {name: {"prepare", "platform_utils"} - {name} for name in ("train", "prepare", "evaluate")}
MODULES = {
    ".".join(path.relative_to(ROOT / "lab").with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "lab").rglob("*.py")
    if path != ROOT / "lab" / "__init__.py"
}


def imports(path):
    """Every module that the file names in an import, at any depth of its code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno} imports by a relative name"
            yield from ([f"lab.{alias.name}" for alias in node.names] if node.module == "lab" else [node.module])


def lab_imports(path):
    """The modules of lab/ that the file imports."""
    return {name.removeprefix("lab.") for name in imports(path) if name.startswith("lab.")}


def test_the_walk_sees_every_form_of_import(tmp_path):
    source = tmp_path / "x.py"
    source.write_text("import lab.a\nfrom lab import b\nfrom lab.c import d\ndef f():\n    import torch, lab.e\n")
    assert lab_imports(source) == {"a", "b", "c", "e"}
    assert set(imports(source)) >= {"torch"}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_imports_only_what_is_below_it(name):
    found = lab_imports(MODULES[name])
    assert found <= set(MODULES), f"lab.{name} imports what does not exist"
    above = [other for other in found if FLOOR.get(other, len(FLOORS)) > FLOOR.get(name, len(FLOORS))]
    assert not above, f"lab.{name} imports {above} from a floor above it"
    assert not SCRIPTS & {module.partition(".")[0] for module in imports(MODULES[name])}


def test_there_is_no_cycle():
    below = {name: lab_imports(path) for name, path in MODULES.items()}
    while below:
        free = {name for name, needed in below.items() if not needed & set(below)}
        assert free, f"these import each other: {sorted(below)}"
        below = {name: needed for name, needed in below.items() if name not in free}


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_a_script_imports_no_script(script):
    found = SCRIPTS & {name.partition(".")[0] for name in imports(ROOT / f"{script}.py")}
    assert found <= SCRIPT_IMPORTS.get(script, set())


@pytest.mark.parametrize("name", sorted(PURE & set(MODULES)))
def test_a_pure_module_imports_only_records_and_pure_modules(name):
    # Of the settings they take the thresholds and of the catalogue what an idea is, not the files.
    assert lab_imports(MODULES[name]) <= PURE | {"schema", "errors", "tables", "settings", "catalogue"}


@pytest.mark.parametrize("name", sorted(STANDARD_LIBRARY_ONLY & set(MODULES)))
def test_what_reads_needs_only_the_standard_library(name):
    found = {module.partition(".")[0] for module in imports(MODULES[name])}
    assert found <= set(sys.stdlib_module_names) | {"lab"}
