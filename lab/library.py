"""The functions that users of the commons call by name; `commons.py` re-exports them.

    from commons import KNOWLEDGE_DIR, get_cards_by_tag, get_recent_cards, read_brief

`knowledge_dir` may be text or a path. Cards are dictionaries (docs/protocol.md), newest first.
"""

from pathlib import Path
from typing import Any

from lab.brief import DEFAULT_TOKENS, brief_text
from lab.briefing import gather
from lab.cards import join
from lab.errors import CardError, SettingError
from lab.facts import champion, coverage, find_id, history, main_track, tag_coverage
from lab.index import Index
from lab.judgement import judgement
from lab.lineage import lineage
from lab.schema import PLOT_KINDS, Card
from lab.store import replace

LOSS_CURVES = 9  # besides the champion


def get_card(knowledge_dir: Path | str, name: str) -> Card:
    """The one card whose id starts with `name`, or the newest for "last". CardError when there is none, or several."""
    with Index(Path(knowledge_dir)) as index:
        return index.read(find_id(index, name))


def get_recent_cards(knowledge_dir: Path | str, n: int = 20) -> list[Card]:
    """The `n` newest cards."""
    return _cards(knowledge_dir, "SELECT id FROM cards ORDER BY timestamp DESC, id DESC LIMIT ?", n)


def get_cards_by_tag(knowledge_dir: Path | str, tag: str) -> list[Card]:
    """All cards with this tag."""
    return _cards(
        knowledge_dir,
        "SELECT id FROM cards WHERE id IN (SELECT card FROM tags WHERE tag = ?) ORDER BY timestamp DESC, id DESC",
        tag,
    )


def get_platform_findings(knowledge_dir: Path | str, gpu_substring: str) -> list[Card]:
    """All cards of machines whose device's name contains this text, in upper or lower case."""
    return _cards(
        knowledge_dir,
        "SELECT id FROM cards WHERE instr(lower(device_name), lower(?)) ORDER BY timestamp DESC, id DESC",
        gpu_substring,
    )


def _cards(knowledge_dir: Path | str, sql: str, value: Any) -> list[Card]:
    with Index(Path(knowledge_dir)) as index:
        return [index.read(row["id"]) for row in index.rows(sql, value)]


def get_coverage_map(knowledge_dir: Path | str) -> dict[str, dict[str, Any]]:
    """{tag: {count, kept, best_delta, best_bpb}} over all cards but the retracted ones."""
    with Index(Path(knowledge_dir)) as index:
        return tag_coverage(index)


def get_champion(knowledge_dir: Path | str, track: str | None) -> Card | None:
    """The champion of the track as a card (docs/judgement.md), None when there is none."""
    with Index(Path(knowledge_dir)) as index:
        best = champion(index, track)
        return index.read(best["id"]) if best else None


def read_brief(knowledge_dir: Path | str, tokens: int = DEFAULT_TOKENS) -> str:
    """What an agent should know before it plans, in plain text."""
    with Index(Path(knowledge_dir)) as index:
        return brief_text(gather(index), tokens)


def retract_card(knowledge_dir: Path | str, card_id: str, reason: str) -> Card:
    """Say that a card is not to be believed, and why; the card as it reads now. CardError without such a card."""
    if not reason.strip():
        raise CardError("a retraction needs a reason")
    return join(Path(knowledge_dir), get_card(knowledge_dir, card_id), "retract", {"reason": reason})


def update_index(knowledge_dir: Path | str) -> dict[str, Any]:
    """Read every record anew, write `index.json` (one row for every card, newest first), and return what it holds."""
    knowledge = Path(knowledge_dir)
    with Index(knowledge, anew=True) as index:
        content = _content(index)
    replace(knowledge / "index.json", content)
    return content


def load_index(knowledge_dir: Path | str) -> dict[str, Any]:
    """What `update_index` would write now: a row for every card, newest first, and when the newest was written."""
    with Index(Path(knowledge_dir)) as index:
        return _content(index)


def _content(index: Index) -> dict[str, Any]:
    tags: dict[str, list[str]] = {}
    for row in index.rows("SELECT card, tag FROM tags ORDER BY rowid"):
        tags.setdefault(row["card"], []).append(row["tag"])
    rows = index.rows("SELECT * FROM cards ORDER BY timestamp DESC, id DESC")
    cards = [row | {"tags": tags.get(row["id"], [])} for row in rows]
    return {"version": 1, "last_updated": cards[0]["timestamp"] if cards else None, "cards": cards}


def draw(knowledge_dir: Path | str, kind: str, out: Path | str, track: str | None = None) -> None:
    """Draw "progress", "coverage", "lineage" or "loss" into a .png or .svg. SettingError when there is nothing to draw.

    `track` None is the newest card's; a lineage is of all tracks unless one is named.
    """
    from lab import plots  # which loads matplotlib, a second, when it draws

    if kind not in PLOT_KINDS:
        raise SettingError(f"no plot {kind!r}; the kinds are {', '.join(PLOT_KINDS)}")
    out = Path(out)
    with Index(Path(knowledge_dir)) as index:
        chosen = main_track(index, track)
        if kind == "coverage":
            plots.plot_coverage(coverage(index, chosen), out)
        elif kind == "lineage":
            plots.plot_lineage(lineage(index.outlines(chosen if track else None)), out)
        elif kind == "loss":
            newest = history(index, chosen, LOSS_CURVES)
            best = champion(index, chosen)
            ids = dict.fromkeys(row["id"] for row in [*newest, *([best] if best else [])])
            plots.plot_loss([index.read(card_id) for card_id in ids], out)
        else:
            cards = index.outlines(chosen)[::-1]
            belief = judgement(index, chosen, everything=True)
            band = belief.path([card["id"] for card in cards]) if belief else None
            plots.plot_progress(cards, chosen, out, band)


def generate_progress_plot(
    knowledge_dir: Path | str, output_path: Path | str = "progress.png", track: str | None = None
) -> str:
    """Draw the progress of a track, by default the newest card's, and return the picture's path."""
    draw(knowledge_dir, "progress", output_path, track)
    return str(output_path)
