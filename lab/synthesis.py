"""What a session, and what all sessions together, have taught: Markdown for a person and for the next agent.

    session_report(cards, notes, "mar8")            # one night, in two minutes
    meta_report(cards, notes)                       # everything, pooled over tracks
    generate_session_synthesis(knowledge, "mar8")   # the same, written to knowledge/synthesis/mar8.md

Cards are folded (`lab.cards.load_cards`), notes come from `lab.notes.load_notes`, in any order. A report is a function
of them alone, so two clones with the same records hold the same bytes. Results are compared within a track,
differences are pooled across tracks; a card without a difference gets the one to the best kept result before it.

Text written by agents goes through `escaped`: one line that is no heading, link, list, table cell or HTML of its own.
Not covered: probabilities (`commons.py read-brief`). The files are written at the end of this module, the rest is pure.
"""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from lab.brief import counted, escaped, number, one_line, signed, time_is_unknown
from lab.cards import load_cards, order
from lab.errors import SettingError, StoreError
from lab.notes import load_notes
from lab.runs import (
    Run,
    as_runs,
    best_of,
    by_category,
    by_track,
    champions,
    change,
    crashes,
    dead_ends,
    error_of,
    findings,
    idea,
    near_misses,
    never_worked,
    track_noise,
    valid,
)
from lab.schema import STATUSES, Card
from lab.stats import UNDER_EXPLORED_RUNS, saturated
from lab.store import replace

META = "meta-synthesis"
NO_META = "No meta-synthesis available yet."
TOP = 12  # rows of a list; the rest is counted
TOP_TRACKS = 4  # tracks told at length
MAX_NAME_CHARACTERS = 64

_FILE_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME_CHARACTERS - 1}}}")


def session_report(cards: Iterable[Card], notes: Iterable[Card], session: str) -> str:
    """The report on one session. SettingError, naming the sessions there are, when no card belongs to it."""
    cards = sorted(cards, key=order)
    known = sorted({card["session"] for card in cards if card["session"]})
    # Where no card names a session, as in the first version of the protocol, there is one, of any name.
    runs = [run for run in as_runs(cards) if run.card["session"] == session or not known]
    if not runs:
        listed = ", ".join(one_line(name, 40) for name in known[-TOP:]) or "none yet"
        raise SettingError(f"session {one_line(session, 80)!r} has no cards; the sessions are: {listed}")
    ids = sorted(run.card["id"] for run in runs)
    notes = [note for note in sorted(notes, key=order) if note["session"] == session or _rests_on(note, ids)]
    lines = [f"# Session {escaped(session)}", "", _counts(runs), ""]
    for track, of_track in by_track(runs):
        lines += [f"## Track {escaped(track)}", "", _progress(of_track), ""]
        lines += _section("### What helped, in order", _steps([run for run in of_track if run.kept], 2 * TOP))
        near = near_misses(of_track)[:TOP]
        lines += _section("### Dead ends", _dead_ends(of_track, near))
        lines += _section("### Near misses", [_told(run) for run in near])
    lines += _section("## Crashes", _crashes(runs))
    lines += _section("## Insights", _insights(notes))
    lines += _section("## Open questions", _bullets(open_questions([run.card for run in runs], notes)))
    return "\n".join(lines).rstrip() + "\n"


def meta_report(cards: Iterable[Card], notes: Iterable[Card]) -> str:
    """The report on everything. It has a section `## Open questions` with a bullet for each."""
    cards, notes = sorted(cards, key=order), sorted(notes, key=order)
    runs = as_runs(cards)
    tracks = by_track(runs)
    sessions = {card["session"] for card in cards if card["session"]}
    size = f"{counted(len(sessions), 'session')}, {counted(len(tracks), 'track')}"
    lines = ["# What is known", "", f"{_counts(runs)} {size}.", ""]
    champion_lines = [f"- {escaped(track)}: {_progress(of_track)}" for track, of_track in tracks]
    lines += _section("## Champions", _cut(champion_lines, "tracks"))
    for track, of_track in tracks[:TOP_TRACKS]:
        lines += _section(f"### How {escaped(track)} got there", _steps(champions(of_track), TOP))
    lines += _section("## Key findings", _findings(runs))
    lines += _section("## Coverage", _coverage(runs))
    lines += _section("## What never worked", _cut([_failed(group) for group in never_worked(runs)]))
    lines += _section("## Insights", _insights(notes))
    lines += ["## Open questions", "", *(_bullets(open_questions(cards, notes)) or ["- none yet"]), ""]
    return "\n".join(lines).rstrip() + "\n"


def open_questions(cards: Iterable[Card], notes: Iterable[Card]) -> list[str]:
    """Questions that no note answers, newest first; then those that the cards raise themselves. One line each."""
    notes = sorted(notes, key=order, reverse=True)
    answered = {note["answers"] for note in notes}
    asked = [note for note in notes if note["kind"] == "question" and note["id"] not in answered]
    questions = [f"{one_line(note['text'], 200)} (note {note['id'][:12]})" for note in asked]
    runs = as_runs(sorted(cards, key=order))
    for _, of_track in by_track(runs)[:TOP_TRACKS]:
        for run in near_misses(of_track)[:3]:
            about = f"{run.card['id'][:12]}, {idea(run.card)} ({signed(run.delta)})"
            questions.append(f"near miss {about}: worth a replicate")
    for name, of_category in by_category(runs).items():
        count, kept = len(of_category), sum(run.kept for run in of_category)
        if 0 < count <= UNDER_EXPLORED_RUNS and name != "other":
            promise = f"{kept} of them kept, promising" if kept else "too few to tell"
            questions.append(f"category {name}: {counted(count, 'experiment')} only, {promise}")
    untried = [name for name, of_category in by_category(runs).items() if not of_category and name != "other"]
    return questions + ([f"never tried: {', '.join(untried)}"] if runs and untried else [])


def _rests_on(note: Card, ids: list[str]) -> bool:
    """Whether the note names one of the sorted ids, or the beginning of one, as its evidence."""
    places = ((prior, bisect_left(ids, prior)) for prior in note["evidence"] if prior)
    return any(place < len(ids) and ids[place].startswith(prior) for prior, place in places)


# From runs to lines


def _section(title: str, lines: list[str]) -> list[str]:
    return [title, "", *lines, ""] if lines else []


def _cut(lines: list[str], what: str = "more") -> list[str]:
    """The first lines, and how many there are besides."""
    return lines[:TOP] + ([f"- and {len(lines) - TOP} {what}"] if len(lines) > TOP else [])


def _bullets(texts: list[str]) -> list[str]:
    return _cut([f"- {escaped(text, 240)}" for text in texts])


def _counts(runs: Sequence[Run]) -> str:
    counts = Counter(run.card["status"] for run in runs)
    suspect = sum(bool(run.card["quarantined"]) for run in runs)
    parts = [f"{counts[status]} {status}" for status in STATUSES if counts[status]]
    parts += [f"{suspect} of them suspect"] if suspect else []
    times = [run.card["timestamp"][:10] for run in runs if not time_is_unknown(run.card["timestamp"])]
    when = f" From {times[0]} to {times[-1]}." if times else ""
    return f"{counted(len(runs), 'experiment')}: {', '.join(parts) or 'no cards yet'}.{when}"


def _progress(of_track: Sequence[Run]) -> str:
    """Baseline to best, in one line."""
    path = champions(of_track)
    if not path:
        return "No kept result yet."
    first, last = path[0], path[-1]
    metric, better = escaped(first.card["metric"]), "lower" if first.card["direction"] == "min" else "higher"
    said = f"{metric} ({better} is better): {number(first.value)} at the start ({first.card['id'][:12]})"
    if last is first:
        return f"{said}; nothing has beaten it in {counted(len(of_track) - 1, 'further experiment')}."
    gained = (last.value or 0.0) - (first.value or 0.0)
    sd, basis = track_noise(of_track)
    return (
        f"{said}, {number(last.value)} at best ({last.card['id'][:12]}): {signed(gained)} "
        f"in {counted(len(path) - 1, 'step')} of {counted(len(of_track), 'experiment')}. "
        f"Noise between repeats: {number(sd)} ({basis})."
    )


def _told(run: Run) -> str:
    """One run as a bullet: difference, id, what was tried, and the lesson unless the hypothesis has it."""
    tried, lesson = run.card["hypothesis"] or "no hypothesis", run.card["lesson"] or ""
    more = f": {escaped(lesson)}" if lesson and lesson.casefold() not in tried.casefold() else ""
    return f"- {signed(run.delta)} `{run.card['id'][:12]}` {escaped(tried)}{more}"


def _steps(runs: Iterable[Run], most: int) -> list[str]:
    """These runs in their order; where there are more than `most`, the largest differences of them."""
    steps = [run for run in runs if run.delta is not None]
    largest = sorted(steps, key=lambda run: -(run.gain or 0.0))[:most]
    shown = {run.card["id"] for run in largest}
    lines = [_told(run) for run in steps if run.card["id"] in shown]
    return lines + ([f"- and {len(steps) - most} smaller ones"] if len(steps) > most else [])


def _dead_ends(of_track: Sequence[Run], near: Sequence[Run]) -> list[str]:
    lines = []
    for name, groups in dead_ends(of_track, near).items():
        lines.append(f"- **{name}** ({counted(sum(map(len, groups)), 'run')})")
        lines += [f"  {_failed(group)}" for group in groups[: TOP // 2]]
        lines += [f"  - and {len(groups) - TOP // 2} more"] if len(groups) > TOP // 2 else []
    return lines


def _failed(group: Sequence[Run]) -> str:
    """Runs that failed alike as one bullet: the best of them, how many, and why."""
    best = best_of(group)
    return _told(best) if len(group) == 1 else f"{_told(best)} — the best of {len(group)} tries"


def _crashes(runs: Sequence[Run]) -> list[str]:
    lines = []
    for group in crashes(runs):
        kind, summary = error_of(group[0].card)
        often = f"{len(group)} times, " if len(group) > 1 else ""
        lines.append(f"- {often}{escaped(kind)} `{group[0].card['id'][:12]}` {escaped(summary)}")
    return _cut(lines)


def _insights(notes: Sequence[Card]) -> list[str]:
    """What agents noted, the newest first, with the cards it rests on."""
    found = [note for note in reversed(notes) if note["kind"] in ("insight", "memory")]
    lines = []
    for note in found:
        cards = ", ".join(escaped(prior[:12]) for prior in note["evidence"][:5])
        lines.append(f"- {escaped(note['text'], 240)} ({'evidence: ' + cards if cards else 'no evidence named'})")
    return _cut(lines)


def _findings(runs: Sequence[Run]) -> list[str]:
    """Changes that helped, with every difference they made."""
    lines, kinds = [], len({run.hardware for run in valid(runs)})
    for group in findings(runs):
        held = [run for run in group if run.helped]
        where, tried = ({run.hardware for run in some} for some in (held, group))
        deltas = ", ".join(signed(run.delta) for run in group[:5])
        more = f", and {len(group) - 5} more" if len(group) > 5 else ""
        told = f" on {len(where)} of {counted(len(tried), 'kind')} of hardware" if kinds > 1 else ""
        lines.append(f"- {deltas}{more}{told} `{held[0].card['id'][:12]}` {escaped(change(held[0].card))}")
    return _cut(lines)


def _coverage(runs: Sequence[Run]) -> list[str]:
    lines = ["| category | tried | kept | best | |", "|---|---:|---:|---:|---|"]
    for name, of_category in by_category(runs).items():
        row = {"count": len(of_category), "kept": sum(run.kept for run in of_category)}
        rare = "hardly tried" if row["count"] else "untried"
        state = "saturated" if saturated(row) else rare if row["count"] <= UNDER_EXPLORED_RUNS else ""
        compared = [run for run in of_category if run.gain is not None]
        best = signed(best_of(compared).delta) if compared else ""
        lines.append(f"| {name} | {row['count']} | {row['kept']} | {best} | {state} |")
    return lines


# Files


def generate_session_synthesis(knowledge_dir: Path | str, session_tag: str) -> str:
    """Write the report on a session; the path of `synthesis/<session>.md`, where a / in the name is written as -.

    SettingError when the session has no cards, or its name cannot be a file's. StoreError when it cannot be written.
    """
    knowledge, name = Path(knowledge_dir), session_tag.replace("/", "-")
    if not _FILE_NAME.fullmatch(name) or ".." in name or name == META:
        raise SettingError(
            f"session {one_line(session_tag, 80)!r} cannot name a file; letters, digits and . _ - can, at most "
            f"{MAX_NAME_CHARACTERS}, and not {META}"
        )
    return _write(knowledge, name, session_report(load_cards(knowledge), load_notes(knowledge), session_tag))


def update_meta_synthesis(knowledge_dir: Path | str) -> str:
    """Write the report on everything; the path of `synthesis/meta-synthesis.md`. StoreError when it cannot be."""
    knowledge = Path(knowledge_dir)
    return _write(knowledge, META, meta_report(load_cards(knowledge), load_notes(knowledge)))


def get_meta_synthesis(knowledge_dir: Path | str) -> str:
    """The report on everything as it was last written; a sentence that says so when there is none."""
    path = Path(knowledge_dir) / "synthesis" / f"{META}.md"
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return NO_META
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"cannot read {path} ({error}); `commons.py update-meta` writes it again") from error


def get_open_questions(knowledge_dir: Path | str) -> list[str]:
    """`open_questions` of a commons as it is now."""
    knowledge = Path(knowledge_dir)
    return open_questions(load_cards(knowledge), load_notes(knowledge))


def _write(knowledge: Path, name: str, text: str) -> str:
    path = knowledge / "synthesis" / f"{name}.md"
    replace(path, text.encode("utf-8", "replace"))
    return str(path)
