"""The commands of `commons.py` that write: records, events, notes, reports, the index, and git."""

import json
import re
from pathlib import Path
from typing import Any

from lab import facts
from lab.brief import one_line
from lab.cards import add_card, by_hand, join, join_run, new_id, pairs, utc_now
from lab.cli import Arguments, answer, arg, command, print_json
from lab.decide import packet
from lab.errors import CardError, SettingError
from lab.index import Index
from lab.options import comma_list
from lab.schema import (
    CATEGORIES,
    DECISIONS,
    DIRECTIONS,
    MAX_NESTING,
    NOTE_KINDS,
    STATUS_ALIASES,
    Card,
    complete,
    too_deep,
    validate_card,
)
from lab.settings import Settings, load_settings
from lab.store import read_json

HASH = re.compile("[0-9a-f]{4,64}")
WRITABLE_STATUSES = (*DECISIONS, *STATUS_ALIASES)


@command()
def cmd_init(args: Arguments) -> None:
    """Make the folders of a commons and set git up for it; twice is harmless"""
    from lab.setup import init

    done = init(args.project, args.knowledge_dir)
    answer(args, {"done": done}, "\n".join(done))


@command(
    arg("--commit", required=True, help="the commit that ran: HEAD, or its hash"),
    arg("--hypothesis", required=True, help="what was tried and why it should help"),
    arg("--status", required=True, choices=WRITABLE_STATUSES),
    arg("--tags", required=True, help="labels, separated by commas"),
    arg("--result", type=float, help="the metric's value; not for a crash"),
    arg("--run", metavar="ID", help="the run whose card to add to (default: the newest of the commit)"),
    arg("--summary", type=Path, metavar="FILE", help="summary.json of the run, for its results"),
    arg("--log", type=Path, metavar="FILE", help="the run's log: the summary it ends with, or how it crashed"),
    arg("--delta", type=float, help="the metric minus the champion's (default: computed)"),
    arg("--track", help="what it may be compared with (default: the only one, if of this metric, else METRIC-by-hand)"),
    arg("--peak-memory", type=float, metavar="MIB"),
    arg("--training-seconds", type=float, metavar="S"),
    arg("--num-steps", type=int, metavar="N"),
    arg("--estimated-flops", type=float, metavar="N"),
    arg("--num-params", type=int, metavar="N"),
    arg("--lesson", help="what was learnt"),
    arg("--config-diff", metavar="JSON", help="changed constants, such as '{\"DEPTH\": [8, 10]}'"),
    arg("--prior-cards", metavar="IDS", help="cards that led here, separated by commas"),
    arg(
        "--category",
        choices=CATEGORIES,
        metavar="NAME",
        help=f"one of {', '.join(CATEGORIES)} (default: the first tag that is one)",
    ),
    arg("--session"),
    arg("--agent"),
)
def cmd_write_card(args: Arguments) -> None:
    """Write a card, or add to the card that the run has made"""
    settings = load_settings(args.project)
    for name in ("hypothesis", "tags"):
        if not getattr(args, name).strip(" ,"):
            raise SettingError(f"--{name} is empty; say what was tried")
    if not HASH.fullmatch(args.commit):
        from lab.git import full_hash  # starts a process, which a hash does not need

        args.commit = full_hash(args.project, args.commit) or args.commit
    with Index(args.knowledge_dir) as index:
        summary = _summary(args, settings)
        values = _card_values(args, index, summary, settings)
        made = _run_card(index, args.run, summary.get("run_id"), args.commit)
        if made:
            card = join_run(args.knowledge_dir, made, values)
            said = f"added to card {card['id']}: {made['status']} -> {card['status']}"
        else:
            _require_result(args, values, settings)
            card = add_card(args.knowledge_dir, _compared(index, values, settings))
            index.wrote("cards", card["id"])
            said = "\n".join([f"wrote card {card['id']}: {card['status']}", *packet(card)[1:]])
    answer(args, card, said)


def _summary(args: Arguments, settings: Settings) -> dict[str, Any]:
    """What the run left in summary.json, in its log, or in both."""
    summary = read_json(args.summary) if args.summary else {}
    if args.log:
        from lab.runlog import read_log

        summary = read_log(args.log, settings.metric, crashed=args.status == "crash") | summary
    return summary


def _card_values(args: Arguments, index: Index, summary: dict[str, Any], settings: Settings) -> Card:
    """The card's values as the command line and the summary give them; what is not given is left out."""
    if args.status == "crash" and args.result is not None:
        raise SettingError("--result: a crash has no result; leave it out, or give the status that the result earned")
    apart = ("run_id", "artifacts", "error", "track")
    results = {name: value for name, value in summary.items() if name not in apart} | _given(
        **{settings.metric: args.result},
        delta=args.delta,
        peak_vram_mb=args.peak_memory,
        training_seconds=args.training_seconds,
        num_steps=args.num_steps,
        estimated_flops=args.estimated_flops,
        num_params=args.num_params,
    )
    if args.status == "crash":
        results = results | {settings.metric: None}
    run, tags = summary.get("run_id"), comma_list(args.tags) or []
    difference = json_object("--config-diff", args.config_diff)
    prior = comma_list(args.prior_cards)
    values = _given(
        id=run,
        run_id=run,
        metric=settings.metric,
        direction=settings.direction,
        commit=args.commit,
        hypothesis=args.hypothesis,
        status=STATUS_ALIASES.get(args.status, args.status),
        tags=tags,
        results=results,
        error=summary.get("error"),
        lesson=args.lesson,
        track=args.track or summary.get("track"),
        config_diff=pairs(difference),
        prior_knowledge_used=None if prior is None else [facts.find_id(index, name) for name in prior],
        category=args.category or next((tag for tag in tags if tag in CATEGORIES), None),
        session=args.session,
        agent=args.agent,
    )
    # Before anything is computed from them: a summary may hold anything. Whether there must be a result comes later.
    validate_card(complete({"id": new_id(), "timestamp": utc_now()} | values | {"status": "inconclusive"}))
    return values


def _run_card(index: Index, run: str | None, summary_run: str | None, commit: str) -> Card | None:
    """The card of the run that --run or the summary names; without either, of the newest run of the commit."""
    name = run or summary_run
    if name is None:
        found = index.row(
            "SELECT id FROM cards WHERE run_id IS NOT NULL AND commit_id >= ? AND commit_id < ? "
            "ORDER BY timestamp DESC, id DESC LIMIT 1",
            commit, commit + "g",
        )  # fmt: skip
    else:
        runs = index.rows(
            "SELECT id, run_id FROM cards WHERE run_id >= ? AND run_id < ? ORDER BY run_id LIMIT 2", name, name + "g"
        )
        if len(runs) > 1 and runs[0]["run_id"] != name:
            raise CardError(f"--run {name}: several runs begin so; give more of the id, such as {runs[0]['run_id']}")
        found = runs[0] if runs else None
    if run and not found:
        raise CardError(f"--run {run}: no run of this id has a card; without --run a card of its own is written")
    return index.read(found["id"]) if found else None


def _require_result(args: Arguments, values: Card, settings: Settings) -> None:
    if values["status"] != "crash" and values["results"].get(settings.metric) is None:
        raise SettingError(f"--status {args.status} needs --result, the {settings.metric} of the run")


def _compared(index: Index, values: Card, settings: Settings) -> Card:
    """The values with a track, the decision packet, and what the packet says where it was not given."""
    if "track" not in values:
        tracks = facts.tracks_of(index)
        best = facts.champion(index, tracks[0]["track"]) if len(tracks) == 1 else None
        alike = len(tracks) == 1 and (best is None or best["metric"] == settings.metric)
        values = values | {"track": tracks[0]["track"] if alike else by_hand(settings.metric)}
    best = facts.champion(index, values["track"])
    if best and best["metric"] != settings.metric:
        return values
    from lab.outcome import compared  # which only a card of its own needs

    found = compared(index, complete(values))
    computed = {name: found["results"][name] for name in ("delta", "delta_stderr")}
    return found | values | {"results": computed | values["results"]}


@command(
    arg("card", help='a card\'s id, the beginning of it, or "last"'),
    arg("--lesson", help="what was learnt"),
    arg("--category", choices=CATEGORIES, metavar="C", help="what kind of idea it was"),
    arg("--tags", help="labels, separated by commas; they take the place of the old ones"),
    arg("--prior-cards", metavar="IDS", help="cards that led to it, separated by commas"),
)
def cmd_annotate(args: Arguments) -> None:
    """Add to a card what was learnt later"""
    with Index(args.knowledge_dir) as index:
        card = index.read(facts.find_id(index, args.card))
        prior = comma_list(args.prior_cards)
        said = _given(
            lesson=args.lesson,
            category=args.category,
            tags=comma_list(args.tags),
            prior_knowledge_used=None if prior is None else [facts.find_id(index, name) for name in prior],
        )
    if not said:
        raise SettingError("annotate: nothing to add; give --lesson, --category, --tags or --prior-cards")
    card = join(args.knowledge_dir, card, "annotate", said)
    answer(args, card, f"annotated card {card['id']}")


@command(
    arg("--id", required=True, metavar="CARD"), arg("--reason", required=True, help="why it is not to be believed")
)
def cmd_retract(args: Arguments) -> None:
    """Say that a card is not to be believed; what it said stays readable"""
    from lab.library import retract_card

    card = retract_card(args.knowledge_dir, args.id, args.reason)
    answer(args, card, f"retracted card {card['id']}, which said {card['status_before']}")


@command(arg("--id", required=True, metavar="CARD"), arg("--reason", help="why it is to be believed"))
def cmd_confirm(args: Arguments) -> None:
    """Stand up for a card: a suspect run takes part in verdicts again, a finding counts as confirmed"""
    with Index(args.knowledge_dir) as index:
        card = index.read(facts.find_id(index, args.id))
    if card["status"] in ("retracted", "crash"):
        raise CardError(f"card {card['id']} is {card['status']}: there is no result to confirm")
    card = join(args.knowledge_dir, card, "confirm", _given(reason=args.reason))
    answer(args, card, f"confirmed card {card['id']}")


@command(
    arg("--kind", required=True, choices=[kind for kind in NOTE_KINDS if kind != "answer"]),
    arg("--text", required=True),
    arg("--evidence", metavar="IDS", help="cards it rests on, separated by commas"),
    arg("--session"),
    arg("--agent"),
)
def cmd_note(args: Arguments) -> None:
    """Write down an insight, an open question or a memory"""
    from lab.notes import add_note

    with Index(args.knowledge_dir) as index:
        evidence = [facts.find_id(index, name) for name in comma_list(args.evidence) or []]
    note = add_note(args.knowledge_dir, args.kind, args.text, evidence=evidence, session=args.session, agent=args.agent)
    answer(args, note, f"wrote note {note['id']}: {note['kind']}")


@command(
    arg("note", help="a question's id, or the beginning of it"),
    arg("--text", required=True),
    arg("--evidence", metavar="IDS", help="cards it rests on, separated by commas"),
    arg("--session"),
    arg("--agent"),
)
def cmd_answer(args: Arguments) -> None:
    """Answer an open question"""
    from lab.notes import add_note

    with Index(args.knowledge_dir) as index:
        question = index.row("SELECT id, kind FROM notes WHERE id = ?", facts.find_id(index, args.note, "notes"))
        evidence = [facts.find_id(index, name) for name in comma_list(args.evidence) or []]
    if question is None or question["kind"] != "question":
        raise CardError(f"note {args.note} is no question; `commons.py read-brief` lists the open ones")
    note = add_note(
        args.knowledge_dir,
        "answer",
        args.text,
        evidence=evidence,
        answers=question["id"],
        session=args.session,
        agent=args.agent,
    )
    answer(args, note, f"wrote note {note['id']}: answers {question['id']}")


@command(arg("--session", required=True))
def cmd_synthesize(args: Arguments) -> None:
    """Write the report of a session into knowledge/synthesis/"""
    from lab.synthesis import generate_session_synthesis

    path = generate_session_synthesis(args.knowledge_dir, args.session)
    answer(args, {"path": path}, f"wrote {path}")


@command()
def cmd_update_meta(args: Arguments) -> None:
    """Write the synthesis over all sessions into knowledge/synthesis/"""
    from lab.synthesis import update_meta_synthesis

    path = update_meta_synthesis(args.knowledge_dir)
    answer(args, {"path": path}, f"wrote {path}")


@command()
def cmd_update_index(args: Arguments) -> None:
    """Read every record anew and write index.json, one row for every card"""
    from lab.library import update_index

    cards, path = len(update_index(args.knowledge_dir)["cards"]), args.knowledge_dir / "index.json"
    answer(args, {"path": str(path), "cards": cards}, f"indexed {cards} card{'s' * (cards != 1)} in {path}")


@command(
    arg("file", type=Path, help="results.tsv, .csv, .jsonl, .json, or a folder of cards"),
    arg("--metric", help="the column that was measured (default: guessed, and said)"),
    arg("--direction", choices=DIRECTIONS, help="which values are better (default: guessed, and said)"),
    arg("--track", help="what the rows may be compared with (default: imported:FILE)"),
    arg("--session", help="(default: the file's name)"),
)
def cmd_import(args: Arguments) -> None:
    """Take in the experiments of another ledger; twice adds nothing"""
    from lab.ledger import import_file

    done = import_file(
        args.knowledge_dir,
        args.file,
        metric=args.metric,
        direction=args.direction,
        track=args.track,
        session=args.session,
        settings=load_settings(args.project),
    )
    lines = [*done.said, *(f"line {line}: {reason}" for line, reason in done.bad)]
    lines.append(f"{done.added} cards added, {done.known} known already, {len(done.bad)} bad rows")
    answer(args, done._asdict(), "\n".join(lines))


@command(arg("--repair", action="store_true", help="do what it says"))
def cmd_doctor(args: Arguments) -> None:
    """Examine the commons: what is damaged, and what would set it right"""
    from lab.doctor import examine, repair

    problems = examine(args.knowledge_dir)
    done = repair(args.knowledge_dir, problems) if args.repair else []
    if args.json:
        print_json({"problems": [problem._asdict() for problem in problems], "done": done})
        return
    for problem in problems:
        print(one_line(f"{problem.path}: {problem.detail}; {problem.remedy}", 400))
    count = f"{len(problems)} problem{'s' * (len(problems) != 1)}" if problems else "all is well"
    print("\n".join([*(one_line(sentence, 400) for sentence in done), count]))


@command(
    arg("--remote", default="origin", help="(default: origin)"),
    arg("--dry-run", action="store_true", help="only say what would be done"),
)
def cmd_sync(args: Arguments) -> None:
    """Exchange records with everybody else through git; touches nothing outside knowledge/"""
    from lab.sync import sync

    branch = load_settings(args.project).knowledge_branch
    done = sync(args.project, args.knowledge_dir, remote=args.remote, branch=branch, dry_run=args.dry_run)
    answer(args, done._asdict(), "\n".join(done.said))


def _given(**values: Any) -> dict[str, Any]:
    """The values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def json_object(option: str, text: str | None) -> dict[str, Any] | None:
    """The JSON object given to an option."""
    try:
        value = None if text is None else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingError(f"{option}: {text!r} is not JSON ({error}); give an object") from error
    if value is not None and not isinstance(value, dict):
        raise SettingError(f"{option}: {text!r} is not an object")
    if value is not None and too_deep(value):
        raise SettingError(f"{option}: it is nested deeper than {MAX_NESTING} levels")
    return value
