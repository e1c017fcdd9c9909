"""Imports run one way (DESIGN, section 2): read from the source, so that a lazy import cannot hide."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PURE = {"stats", "decide", "novelty", "strategy", "brief", "report"}
RECORDS = {"schema", "errors"}
# What a module of lab/ may import of lab/. One that is not named here may import whatever
# makes no cycle.
ALLOWED = {
    "errors": set(),
    "schema": {"errors"},
    "store": RECORDS,
    **dict.fromkeys(PURE, RECORDS | PURE),
    **{name: RECORDS | PURE | {"store"} for name in ("cards", "notes", "index", "queue", "sync")},
    "download": {"errors"},
    "datasets": {"errors", "download"},
    "outcome": RECORDS | PURE | {"store", "cards"},
    "git": set(),
    "recorder": RECORDS | PURE | {"store", "cards", "outcome", "git"},
}
SCRIPTS = {path.stem for path in ROOT.glob("*.py")}
SCRIPT_IMPORTS = {"train": {"prepare", "platform_utils"}, "prepare": {"platform_utils"}}
MODULES = {
    ".".join(path.relative_to(ROOT / "lab").with_suffix("").parts): path
    for path in (ROOT / "lab").rglob("*.py")
    if path.name != "__init__.py"
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
    assert found <= ALLOWED.get(name, set(MODULES)), f"lab.{name} imports {sorted(found - ALLOWED[name])}"
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


@pytest.mark.parametrize("name", sorted((set(ALLOWED) & set(MODULES)) - {"download", "datasets"}))
def test_records_and_pure_modules_need_only_the_standard_library(name):
    found = {module.partition(".")[0] for module in imports(MODULES[name])}
    assert found <= set(sys.stdlib_module_names) | {"lab"}
