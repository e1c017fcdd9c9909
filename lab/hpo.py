"""Experiments without a model: new values for the constants of a script, by Optuna or at random.

    item = propose(knowledge, track, Path("train.py").read_text(), "hpo", seed=1)      # for `lab.queue.add_to_queue`
    moves(space, known, "random", random.Random(1))                       # changes without end; take what is new

Cards are the truth: Optuna's study is built anew from them each time, one trial for each configuration of the track and
for each that crashed through its own fault. Which constants are turned, and how far, says `lab/ranges.py`.

`hpo` is Optuna's multivariate TPE (Bergstra et al. 2011, Algorithms for Hyper-Parameter Optimization). It turns one to
three constants and leaves the others as the champion has them: in 40 runs of a simulated night that gained 0.49 of what
there was, and turning all twelve at once 0.25 (medians of 20 nights of bench/bench_efficiency.py). `random` turns one
constant: the baseline that a search has to beat.
Not covered: which constants depend on each other (a run that a script refuses takes seconds, and values that have only
crashed are not tried again), and repeats.
"""

import random
import warnings
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.belief import Belief
from lab.brief import counted, one_line
from lab.catalogue import ideas
from lab.edits import edit_key
from lab.errors import SettingError
from lab.facts import champion, main_track
from lab.index import Index
from lab.items import Item
from lab.judgement import judgement
from lab.knobs import set_constants
from lab.novelty import NOT_THE_IDEAS_FAULT
from lab.planning import CRASHES, baseline
from lab.queue import load_queue
from lab.ranges import Range, space_of
from lab.schema import is_number
from lab.tried import equal_run

if TYPE_CHECKING:
    import optuna

AGENTS = ("hpo", "random")
MOST_TURNED = 3  # constants of an experiment
START_UP = 5  # trials before there is anything to learn from
TRIES = 50  # of a search for something new

Config = Mapping[str, Any]
Known = tuple[Config, float]  # the constants of an experiment, and its result: smaller is better


# Where to go.


def moves(
    space: Mapping[str, Range], known: Sequence[Known], agent: str, chance: random.Random
) -> Iterator[dict[str, Any]]:
    """Changes of the champion without end, not all of them new; nothing where there is nothing to turn.

    SettingError where Optuna is needed and not there.
    """
    if not space:
        return
    if agent == "hpo":
        yield from _asked(space, known, chance)
    names = list(space)
    while True:
        name = chance.choice(names)
        value = space[name].value(chance.uniform(space[name].low, space[name].high))
        if value is not None:
            yield {name: value}


def _asked(space: Mapping[str, Range], known: Sequence[Known], chance: random.Random) -> Iterator[dict[str, Any]]:
    """What Optuna proposes for some of the constants at a time."""
    for _ in range(TRIES):
        free = chance.sample(list(space), min(len(space), chance.randint(1, MOST_TURNED)))
        part = {name: space[name] for name in free}
        places = study_of(part, known, chance.getrandbits(31)).ask(distributions_of(part)).params
        values = {name: part[name].value(place) for name, place in places.items()}
        if changes := {name: value for name, value in values.items() if value is not None}:
            yield changes


def study_of(space: Mapping[str, Range], known: Sequence[Known], seed: int) -> "optuna.Study":
    """Optuna's study of these experiments, to be minimised. SettingError where Optuna is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is experimental in it is no news to who runs an experiment
            import optuna
    except ImportError as error:
        raise SettingError(
            "--agent hpo needs Optuna; install it with `uv sync --extra hpo`, or run this with `uv run --extra hpo ...`"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = optuna.samplers.TPESampler(multivariate=True, n_startup_trials=START_UP, seed=seed)
    study = optuna.create_study(sampler=sampler)
    distributions = distributions_of(space)
    for config, result in known:
        places = {name: span.place(config.get(name)) for name, span in space.items()}
        study.add_trial(optuna.trial.create_trial(params=places, distributions=distributions, value=result))
    return study


def distributions_of(space: Mapping[str, Range]) -> "dict[str, optuna.distributions.BaseDistribution]":
    """Optuna's distributions: of the places, which are logarithms already."""
    import optuna

    return {name: optuna.distributions.FloatDistribution(span.low, span.high) for name, span in space.items()}


# What is known, and what comes next.


def propose(
    knowledge: Path, track: str | None, source: str, agent: str = "hpo", seed: int = 0, file: str = "train.py"
) -> Item | None:
    """The next experiment on a track, for the queue; the baseline without a champion, None where nothing is new.

    `source` is the champion's script, `agent` one of AGENTS. The same seed and records propose the same; what has been
    run, or is queued, is not proposed again. SettingError for an unknown track, without Optuna, and for a script that
    is unsound.
    """
    with Index(knowledge) as index:
        track = main_track(index, track)
        best, waiting = champion(index, track), load_queue(knowledge)
        if best is None:
            return None if any(item["changes"] == {} for item in waiting) else baseline(track)
        config = index.read(best["id"])["config"] or {}
        space = space_of(source, config, file)
        belief = judgement(index, track)
        runs, crashes = _known(index, track, belief)
        worst = max((result for _, result in runs), default=0.0)
        known = [*runs, *((crashed, worst) for crashed in crashes)]
        pending = [config | item["changes"] for item in waiting if item["changes"]]
        seen = [one for one, _ in known] + pending
        taken = {_values(one, space) for one in seen if set(space) <= set(one)}
        deadly = _deadly(space, [config, *(one for one, _ in runs)], crashes)
        chance = random.Random(f"{seed} {best['id']} {len(known)} {len(pending)}")
        for changes in islice(moves(space, known, agent, chance), 2 * TRIES):
            if _values(config | changes, space) in taken or deadly & changes.items():
                continue
            if _is_new_edit(index, track, source, config, changes, file):
                return _item(changes, space, best["id"], track, agent, len(known))
    return None


def _known(index: Index, track: str | None, belief: Belief | None) -> tuple[list[Known], list[Config]]:
    """(the configurations of a track that have results, and what to expect of each; those that crashed on their own).

    A configuration counts as what it is believed to be: that is what its runs showed, with their luck taken off.
    """
    runs = []
    for node in belief.nodes.values() if belief else ():
        if config := index.read(node.card)["config"]:
            runs.append((config, node.mean))
    crashed = index.rows(
        # What crashed on its way up names no track.
        "SELECT id FROM cards WHERE (track = ? OR track IS NULL) AND status = 'crash' AND coalesce(error_kind, '') "
        f"NOT IN ({', '.join('?' * len(NOT_THE_IDEAS_FAULT))}) ORDER BY timestamp DESC, id DESC LIMIT ?",
        track, *NOT_THE_IDEAS_FAULT, CRASHES,
    )  # fmt: skip
    configs = (index.read(row["id"])["config"] for row in crashed)
    return runs, [config for config in configs if config]


def _deadly(space: Mapping[str, Range], sound: Sequence[Config], crashes: Sequence[Config]) -> Set[tuple[str, Any]]:
    """The values of constants that have crashed and that no run with a result had."""
    crashed, well = (
        {(name, config[name]) for config in configs for name in space if is_number(config.get(name))}
        for configs in (crashes, sound)
    )
    return crashed - well


def _values(config: Config, space: Mapping[str, Range]) -> tuple[str, ...]:
    return tuple(repr(config.get(name, span.scale.value)) for name, span in space.items())


def _is_new_edit(
    index: Index, track: str | None, source: str, config: Config, changes: Mapping[str, Any], file: str
) -> bool:
    """Whether the edit can be made, and has not been run on the track."""
    try:
        key = edit_key(set_constants(source, changes, config, file).encode())
    except SettingError:  # such as a constant that is bound twice
        return False
    return key is not None and equal_run(index, key, track) is None


def _item(
    changes: dict[str, Any], space: Mapping[str, Range], best: str, track: str | None, agent: str, runs: int
) -> Item:
    told = (f"{one_line(name, 60)} {space[name].scale.value} -> {new}" for name, new in changes.items())
    # The first idea about a constant says what it is; to take something away is an idea of its own.
    known = {idea.target: idea.category for idea in reversed(ideas()) if idea.category != "ablation"}
    categories = {known.get(name, "hyperparams") for name in changes}
    how = f"Optuna's TPE after {counted(runs, 'run')}" if agent == "hpo" else "at random, what a search has to beat"
    return {
        "description": ", ".join(told), "mode": "explore", "priority": 5, "track": track, "changes": changes,
        "category": categories.pop() if len(categories) == 1 else "combination", "cards": [best], "why": how,
    }  # fmt: skip
