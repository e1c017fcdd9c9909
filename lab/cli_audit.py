"""The command `commons.py audit`: what the claims of any results.tsv are worth. It needs no commons.

    commons.py audit results.tsv --out report.html

Not covered: how it is found (`lab/audit.py`).
"""

from collections import Counter
from pathlib import Path
from typing import Any

from lab.cli import Arguments, answer, arg, command
from lab.errors import CardError, SettingError
from lab.options import amount
from lab.schema import DIRECTIONS, Card
from lab.settings import Settings, load_settings


@command(
    arg("file", type=Path, metavar="FILE", help="a ledger: results.tsv, a CSV export, JSON lines"),
    arg("--sigma", type=amount, metavar="S", help="noise between repeats, in the metric (default: estimated)"),
    arg("--out", type=Path, metavar="F.md|F.html", help="write the whole report, with a picture"),
    arg("--metric", metavar="M", help="the metric's column (default: found)"),
    arg("--direction", choices=DIRECTIONS, help="which values are better (default: found)"),
)
def cmd_audit(args: Arguments) -> None:
    """Tell which claims of a results.tsv are real and which are noise"""
    from lab.audit_text import audit_text

    if args.out:
        from lab.page import require_page

        require_page(args.out)
    found = audit_file(args.file, args.metric, args.direction, args.sigma, load_settings(args.project))
    written = _report(args.out, found) if args.out else []
    said = [f"wrote {path}" for path in written]
    answer(args, found | {"wrote": list(map(str, written))}, "\n".join([audit_text(found), *said]))


def audit_file(
    path: Path, metric: str | None = None, direction: str | None = None, sigma: float | None = None,
    settings: Settings | None = None,
) -> dict[str, Any]:  # fmt: skip
    """`lab.audit.audit` of a file, with its name, the `bad` rows and what was `said` of its columns.

    SettingError where the file cannot be read, or its columns do not tell.
    """
    from lab.audit import Run, audit
    from lab.columns import layout_of
    from lab.ledger import cards_of
    from lab.tables import clean, read_table

    said: list[str] = []
    table = read_table(path)
    layout = layout_of(path, table, metric, direction, settings or Settings(), said) if table.columns else None
    runs, bad = [], []
    for line, card in cards_of(path, table, layout):
        if isinstance(card, CardError):
            bad.append({"line": line, "reason": str(card)})
        else:
            runs.append(Run(line, card))
    if layout is None:
        runs = _one_track(runs, said)
    first = runs[0].card if runs and layout is None else {}
    metric = layout.metric if layout else metric or first.get("metric")
    direction = layout.direction if layout else direction or first.get("direction")
    if metric is None or direction is None:
        raise SettingError(f"{path} has no row that can be read; `commons.py import` tells why of each")
    return {"file": clean(path.name), "said": said, "bad": bad} | audit(runs, metric, direction, sigma)


def _one_track(runs: list[Any], said: list[str]) -> list[Any]:
    """The cards that can be compared: those of the metric and track that most have."""

    def where(card: Card) -> tuple[str, str]:
        return card["metric"], card["track"] or ""

    most = Counter(where(run.card) for run in runs).most_common(2)
    if len(most) > 1:
        chosen = [run for run in runs if where(run.card) == most[0][0]]
        said.append(f"{len(chosen)} of {len(runs)} cards are of one track, {most[0][0][1] or 'none'}: only these")
        return chosen
    return runs


def _report(out: Path, found: dict[str, Any]) -> list[Path]:
    from lab.audit_plot import drawable_path, plot_audit
    from lab.audit_text import PICTURE, audit_markdown
    from lab.page import drawn, write_page

    pictures = {PICTURE: drawn(lambda file: plot_audit(found, file))} if drawable_path(found) else {}
    return write_page(out, f"Audit of {found['file']}", audit_markdown(found, bool(pictures)), pictures)
