"""The settings of a project: what `[tool.autoresearch]` says, what it leaves out, and what it may not say."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import SettingError
from lab.settings import Settings, judging, load_settings, project_root

ROOT = Path(__file__).parent.parent
SORTING = """
[tool.autoresearch]
metric = "speedup"
direction = "max"
command = "python sort.py"
editable = ["sort.py", "kernels/merge.py"]
frozen = []
second_look = "python again.py"
knowledge_branch = "team/knowledge"
"""


def project(folder, text):
    """A folder with this pyproject.toml."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def message_of(folder):
    """The message of the error that loading the folder's settings raises."""
    with pytest.raises(SettingError) as raised:
        load_settings(folder)
    return str(raised.value)


def test_every_setting_is_read(tmp_path):
    assert load_settings(project(tmp_path, SORTING)) == Settings(
        metric="speedup",
        direction="max",
        command="python sort.py",
        editable=("sort.py", "kernels/merge.py"),
        frozen=(),
        second_look="python again.py",
        knowledge_branch="team/knowledge",
    )


def test_the_defaults_are_what_this_repository_says():
    assert load_settings(ROOT) == Settings(second_look="uv run evaluate.py")


@pytest.mark.parametrize("text", ["", "[project]\nname = 'x'\n", "[tool.autoresearch]\n", "[tool.ruff]\n"])
def test_what_is_left_out_has_its_default(tmp_path, text):
    assert load_settings(project(tmp_path, text)) == Settings()


def test_no_pyproject_is_the_defaults(tmp_path):
    assert load_settings(tmp_path) == load_settings(tmp_path / "missing") == Settings()


PATHS = 'a list of paths below this folder, such as ["train.py", "lab"], without .. or a / at an end'


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("metric = 3", "metric = 3 is not allowed; it must be a name of at most 64 letters"),
        ('metric = "val bpb"', "metric = 'val bpb' is not allowed"),
        ('metric = "1st"', "metric = '1st' is not allowed"),
        ('metric = ""', "metric = '' is not allowed"),
        ('direction = "up"', "direction = 'up' is not allowed; it must be one of min, max"),
        ("direction = ['max']", "direction = ['max'] is not allowed; it must be one of min, max"),
        ('command = ""', "command = '' is not allowed; it must be a command on one line"),
        (r'command = "a\nb"', r"command = 'a\nb' is not allowed; it must be a command on one line"),
        ('editable = "train.py"', f"editable = 'train.py' is not allowed; it must be {PATHS}"),
        ("editable = [1]", f"editable = [1] is not allowed; it must be {PATHS}"),
        ('frozen = ["/etc"]', f"frozen = ['/etc'] is not allowed; it must be {PATHS}"),
        ('knowledge_branch = "-f"', "knowledge_branch = '-f' is not allowed; it must be the name of a git branch"),
        ('knowledge_branch = "a..b"', "knowledge_branch = 'a..b' is not allowed"),
        ("noise = -0.1", "noise = -0.1 is not allowed; it must be a number, 0 or more"),
        ("noise = inf", "noise = inf is not allowed"),
        ("noise = true", "noise = True is not allowed"),
        ("confirm_probability = 1", "confirm_probability = 1 is not allowed; it must be a number between 0 and 1"),
        ("likely_probability = 0.0", "likely_probability = 0.0 is not allowed"),
        ("refute_probability = nan", "refute_probability = nan is not allowed"),
        ('revert_probability = "0.1"', "revert_probability = '0.1' is not allowed"),
        ("confirm_repeats = 0", "confirm_repeats = 0 is not allowed; it must be a whole number, 1 or more"),
        ("confirm_repeats = 2.0", "confirm_repeats = 2.0 is not allowed"),
        ("same_error = true", "same_error = True is not allowed"),
        ("repeat_worth = -1", "repeat_worth = -1 is not allowed; it must be a number, 0 or more"),
        ("price_per_hour = -2", "price_per_hour = -2 is not allowed"),
    ],
)
def test_a_value_that_is_not_allowed_is_named(tmp_path, line, words):
    project(tmp_path, f"[tool.autoresearch]\n{line}\n")
    assert message_of(tmp_path).startswith(f"{tmp_path}/pyproject.toml: [tool.autoresearch] {words}")


@pytest.mark.parametrize("path", ["../x", "a/../b", "..", ".", "./a", "a//b", "a/", "", r"a\\b", "C:/x", r"a\u0000"])
def test_a_path_stays_below_its_folder(tmp_path, path):
    project(tmp_path, f'[tool.autoresearch]\neditable = ["train.py", "{path}"]\n')
    assert message_of(tmp_path).endswith(f"is not allowed; it must be {PATHS}")


@pytest.mark.parametrize("path", ["a", "a/b.py", "..a", "a..", ".hidden/x", "two words/ü.py"])
def test_a_path_below_its_folder_is_accepted(tmp_path, path):
    assert load_settings(project(tmp_path, f'[tool.autoresearch]\nfrozen = ["{path}"]\n')).frozen == (path,)


def test_an_unknown_setting_is_answered_with_the_known_ones(tmp_path):
    project(tmp_path, '[tool.autoresearch]\nmetrc = "x"\n')
    assert message_of(tmp_path) == (
        f"{tmp_path}/pyproject.toml: [tool.autoresearch] has no setting 'metrc'; the settings are "
        + ", ".join(Settings._fields)
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tool", "is not TOML ("),
        (b"x = '\xff'", "is not TOML ('utf-8' codec can't decode byte 0xff"),
        ("x = " + "[" * 9000, "is not TOML ("),
        ("tool = 3", ": [tool] is 3; it must be a table of settings"),
        ("[tool]\nautoresearch = []", ": [tool.autoresearch] is []; it must be a table of settings"),
        ("[[tool.autoresearch]]", ": [tool.autoresearch] is [{}]; it must be a table of settings"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, text, words):
    said = message_of(project(tmp_path, text))
    assert said.removeprefix(f"{tmp_path}/pyproject.toml").strip().startswith(words)
    assert "\n" not in said


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "pyproject.toml").mkdir()
    assert message_of(tmp_path) == f"cannot read {tmp_path}/pyproject.toml: Is a directory; make it a file you may read"


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: f"[tool.autoresearch]\n{text}".encode()))
def test_any_file_is_settings_or_one_line(tmp_path_factory, content):
    folder = project(tmp_path_factory.getbasetemp() / "any", content)
    try:
        assert isinstance(load_settings(folder), Settings)
    except SettingError as error:
        assert str(error).isprintable()


def test_the_root_is_the_nearest_folder_with_the_section(tmp_path):
    outer = project(tmp_path, "[tool.autoresearch]\n")
    inner = project(tmp_path / "examples" / "sorting", SORTING)
    (inner / "deep").mkdir()
    project(tmp_path / "package", "[project]\nname = 'x'\n")
    assert project_root(inner / "deep") == project_root(inner) == inner
    assert project_root(tmp_path / "package") == project_root(tmp_path / "missing" / "folder") == outer


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("  [ tool . autoresearch ]  # ours\n", True),
        ("x = [1\n[tool.autoresearch]\n", True),  # not parsed here: load_settings says what is wrong
        ("# [tool.autoresearch]\n", False),
        ("[tool.autoresearch-plus]\n", False),
    ],
)
def test_the_section_is_a_header_line(tmp_path, text, found):
    above = project_root(tmp_path)  # nothing, unless the machine's temporary folder is inside a project
    assert project_root(project(tmp_path, text)) == (tmp_path if found else above)


def test_a_file_that_cannot_be_read_is_passed_over(tmp_path):
    project(tmp_path, "[tool.autoresearch]\n")
    (tmp_path / "a" / "pyproject.toml").mkdir(parents=True)
    assert project_root(tmp_path / "a") == tmp_path


def test_a_relative_folder_is_where_the_process_is(tmp_path, monkeypatch):
    monkeypatch.chdir(project(tmp_path, "[tool.autoresearch]\n"))
    assert project_root(Path()) == tmp_path


def test_what_decides_about_results_is_read_from_the_project_of_the_commons(tmp_path, monkeypatch):
    ours = project(tmp_path / "ours", "[tool.autoresearch]\nnoise = 0.001\nconfirm_repeats = 3\n")
    here = project(tmp_path / "here", "[tool.autoresearch]\nprice_per_hour = 2.5\n")
    monkeypatch.chdir(here)
    assert judging(ours / "knowledge") == Settings(noise=0.001, confirm_repeats=3)
    project(ours, '[tool.autoresearch]\nmetric = "speedup"\n')
    assert judging(ours / "knowledge") == Settings()  # what says nothing about results is not parsed
    (ours / "pyproject.toml").unlink()
    assert judging(ours / "knowledge") == Settings(price_per_hour=2.5)  # a commons outside of projects
    project(here, '[tool.autoresearch]\nnoise = "x"\n')
    with pytest.raises(SettingError, match="noise = 'x' is not allowed"):
        judging(ours / "knowledge")


def test_finding_the_root_parses_nothing():
    code = "import sys; from pathlib import Path; from lab.settings import project_root; project_root(Path.cwd())"
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", f"{code}; print(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not {"tomllib", "tomli", "subprocess", "dataclasses", "json"} & set(loaded)
