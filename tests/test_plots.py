"""Every picture is made, whole and repeatable, of whatever the commons holds; what it says is in the SVG's text."""

import html
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from lab.canvas import label, new_figure
from lab.errors import SettingError
from lab.lineage import lineage
from lab.plots import plot_coverage, plot_lineage, plot_loss, plot_progress
from lab.schema import complete

ROOT = Path(__file__).parent.parent
HOSTILE = "$x_1$ \\frac{ 改善 🚀 `<b>` \x1b[31m\n" + "x" * 500


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def card(number, value, status="keep", **more):
    results = {"val_bpb": value, "loss_curve": more.pop("curve", None)}
    made = {"id": f"{number:012x}", "timestamp": f"2026-01-01T{number // 60:02d}:{number % 60:02d}:00.000Z"}
    return complete(made | {"status": status, "track": "T", "hypothesis": f"idea {number}", "results": results} | more)


def comments(path):
    """The texts of an SVG picture: matplotlib notes each beside its outlines."""
    return [html.unescape(line.strip()) for line in re.findall("<!-- (.*?) -->", path.read_text())]


def series(*values, **more):
    return [card(n, v, "crash" if v is None else "keep", **more) for n, v in enumerate(values)]


COMMONS = {
    "one": series(0.99),
    "crashes": series(None, None, None),
    "equal": series(*[0.97] * 20),
    "outlier": series(0.98, 0.97, 3.2, 0.96, 0.965),
    "huge": series(1e308, -1e308, 5e-324, 1.0),
    "only huge": series(1e308, -1e308),
    "negative": series(-1.0, -2.0, -3.0),
    "max": series(0.5, 0.7, 0.6, direction="max"),
    "text results": [complete(card(1, None, "inconclusive", metric="speed") | {"results": {"speed": "fast"}})],
    "retracted": [card(1, 0.9), card(2, 0.8, "retracted"), card(3, None, "retracted"), card(4, 0.7, quarantined="x")],
    "hostile": [card(n, 1 - n / 100, hypothesis=HOSTILE) for n in range(30)],
}


@pytest.mark.parametrize("name", COMMONS)
@pytest.mark.parametrize("suffix", [".png", pytest.param(".svg", marks=pytest.mark.slow)])
def test_progress_of_anything_is_a_picture_and_repeatable(tmp_path, name, suffix):
    first, again = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    plot_progress(COMMONS[name], "T", first)
    plot_progress(COMMONS[name][::-1], "T", again)
    assert first.read_bytes() == again.read_bytes()
    assert first.read_bytes().startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a{suffix}", f"b{suffix}"]


def test_the_title_tells_the_story_of_one_track(tmp_path):
    cards = [*series(1.0, None, 0.9), card(9, 0.1, track="other"), card(10, 0.2, "retracted"), card(11, 0.95, "revert")]
    plot_progress(cards, "T", tmp_path / "p.svg", [(1.0, 0.01)] * 5)
    said = comments(tmp_path / "p.svg")
    assert "5 runs · 2 kept · 1 without a result · val_bpb 1.000000 → 0.900000 (-10.00%)" in said
    assert {"T", "experiment", "val_bpb (lower is better)"} <= set(said)
    assert {"kept", "not kept", "retracted", "no result", "champion, 95%"} <= set(said)


def test_a_band_without_a_champion_yet_and_one_of_another_length(tmp_path):
    band = [(float("nan"), float("inf")), (0.98, 0.01)]
    plot_progress(series(None, 0.98), "T", tmp_path / "p.png", band)
    with pytest.raises(ValueError, match="the band has 1 places for 2 experiments"):
        plot_progress(series(None, 0.98), "T", tmp_path / "p.png", band[:1])


@pytest.mark.parametrize("up", [1, -1])
def test_of_a_thousand_places_few_are_labelled_and_the_first_always(tmp_path, up):
    _, axes = new_figure(tmp_path / "x.png")
    axes.set_xlim(0, 1000)
    axes.set_ylim(-0.5, 1.5)
    places = [(x, 0.5 + up * x / 2500, f"$idea {x}") for x in reversed(range(1000))]
    written = label(axes, places, [(x, y) for x, y, _ in places], up)
    assert 3 <= len(written) <= 18
    assert written[0] == "$idea 999"
    assert label(axes, places[:1] * 50, [], up) == ["$idea 999"]  # no text covers another


def test_untrusted_text_is_drawn_as_plain_text(tmp_path):
    plot_progress([card(1, 0.9, hypothesis=HOSTILE, track="$T$ 研究")], "$T$ 研究", tmp_path / "p.svg")
    said = comments(tmp_path / "p.svg")
    assert "$T$ □" in said
    plot_loss([card(1, 0.9, hypothesis=HOSTILE, curve=[[0, 0, 1]])], tmp_path / "l.svg")
    assert "000000 $x_1$ \\frac{ □ □ `<b>` [31m…" in comments(tmp_path / "l.svg")


def test_coverage_says_what_was_tried_and_what_was_not(tmp_path):
    coverage = {
        "optimizer": {"count": 4, "kept": 1, "best_delta": -0.01, "best_bpb": 0.9},
        "other": {"count": 0, "kept": 0, "best_delta": None, "best_bpb": None},
        HOSTILE: {"count": 2, "kept": 0, "crashed": 2, "best_delta": None, "best_bpb": None},
    }
    plot_coverage(coverage, tmp_path / "c.svg")
    said = comments(tmp_path / "c.svg")
    assert {"1 of 4 kept, best -0.010000", "0 of 2 kept", "not tried", "6 runs in 3 categories"} <= set(said)


def test_lineage_draws_the_kept_ones_and_hangs_the_others_below(tmp_path):
    cards = [card(1, 0.9, prior_knowledge_used=["gone"]), card(2, 0.8, prior_knowledge_used=[f"{1:012x}"])]
    cards += [card(n, 0.9, "revert", prior_knowledge_used=[f"{2:012x}"]) for n in range(3, 90)]
    plot_lineage(lineage(cards), tmp_path / "l.svg")
    said = comments(tmp_path / "l.svg")
    assert "90 cards, 89 links · 3 drawn large: kept, or others came from them" in said
    assert {"kept", "not kept", "not in the commons"} <= set(said)
    assert any(text.startswith("+") for text in said)
    for graph in (lineage(cards, f"{50:012x}"), lineage([card(1, None, "crash")]), lineage([card(1, 0.9)])):
        plot_lineage(graph, tmp_path / "l.png")


def test_loss_shows_the_champion_and_the_newest(tmp_path):
    curve = [[step, step * 4.7, 9 / (step + 1)] for step in range(64)]
    cards = [card(n, 0.9 + n / 100, "revert" if n else "keep", curve=curve) for n in range(30)]
    cards[29]["results"]["loss_curve"] = [*curve[:20], [20, 100.0, None], [21, 105.0, 1e308]]
    plot_loss(cards, tmp_path / "l.svg")
    said = comments(tmp_path / "l.svg")
    assert "10 runs of 30 with a curve; the champion in green" in said
    assert {"000000 idea 0", "000000 idea 29", "000000 idea 21"} <= set(said)
    plot_loss([card(1, 0.9, curve=[[0, 0, 1]])], tmp_path / "l.png")


@pytest.mark.parametrize(
    ("draw", "reason"),
    [
        (lambda out: plot_progress([], "T", out), "no results on track T: nothing to plot; "
         "`commons.py coverage` lists the tracks"),
        (lambda out: plot_coverage({"other": {"count": 0}}, out), "no results in any category: nothing to plot; "
         "record runs first"),
        (lambda out: plot_lineage(lineage([]), out), "no cards in this lineage: nothing to plot; record runs first"),
        (lambda out: plot_loss(series(0.9), out), "no card has a loss curve: nothing to plot; "
         "train.py records one with every run"),
    ],
)  # fmt: skip
def test_nothing_to_draw_is_one_clear_line(tmp_path, draw, reason):
    with pytest.raises(SettingError) as raised:
        draw(tmp_path / "x.png")
    assert str(raised.value) == reason
    assert not list(tmp_path.iterdir())


def test_where_a_picture_cannot_go(tmp_path):
    with pytest.raises(SettingError) as raised:
        plot_progress(series(0.9), "T", tmp_path / "x.pdf")
    assert str(raised.value) == f"--out {tmp_path}/x.pdf ends in .pdf; name a file that ends in .png or .svg"
    with pytest.raises(SettingError) as raised:
        plot_progress(series(0.9), "T", tmp_path / "no" / "x.png")
    assert str(raised.value) == f"--out {tmp_path}/no/x.png: there is no folder {tmp_path}/no; make it first"


def test_the_module_does_not_load_matplotlib():
    code = "import sys, lab.plots; sys.exit(bool({'matplotlib', 'numpy', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
