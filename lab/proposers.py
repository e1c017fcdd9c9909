"""Who thinks of the next experiment where the queue has none: the plan, Optuna, or chance.

    items = new_items(project, knowledge, track, "hpo", 2)        # for `lab.queue.add_to_queue`; nothing is written

For workers with a command that edits (`--agent CMD`) it is the plan, ideas in words included. `hpo` needs no model: it
is the plan as far as constants and repeats say it, and in turns with that Optuna's TPE once it has something to learn
from; without Optuna (the extra `hpo`) the plan alone.
`random` is the baseline that a search has to beat (bench/bench_efficiency.py has them all).
Not covered: the plan (`lab/planning.py`), Optuna and chance (`lab/hpo.py`), and who makes the edit (`lab/proposal.py`).
"""

from importlib.util import find_spec
from pathlib import Path

from lab.errors import StoreError
from lab.facts import champion
from lab.hpo import AGENTS, propose
from lab.index import Index
from lab.items import Item
from lab.judgement import judgement
from lab.planning import baseline, plan_experiments
from lab.sentinel import script_of
from lab.settings import load_settings

HPO, RANDOM = AGENTS
LEARNT_RUNS = 20  # configurations of a track: before them the plan finds more (bench/bench_efficiency.py)


def needs_words(agent: str) -> bool:
    """Whether an agent's command makes edits from ideas in words; `hpo` and `random` turn constants."""
    return agent not in AGENTS


def new_items(project: Path, knowledge: Path, track: str | None, agent: str, number: int) -> list[Item]:
    """At most `number` items for a track, the best first; the baseline where the track is not known yet.

    SettingError where a pinned mode or a table of ranges is in the way; StoreError and CardError where records cannot
    be read.
    """
    if track is None:
        return [baseline(None)]
    if needs_words(agent):
        return plan_experiments(knowledge, number, track)
    planned = plan_experiments(knowledge, number, track, words=False) if agent == HPO else []
    with Index(knowledge) as index:
        belief, best = judgement(index, track), champion(index, track)
        runs = len(belief.nodes) if belief else 0
        if agent == HPO and (runs < LEARNT_RUNS or runs % 2 or not find_spec("optuna")):
            return planned
        script = load_settings(project).editable[0]
        try:
            source = script_of(index.read(best["id"]), project) if best else b""
        except StoreError:  # it ran elsewhere
            source = (project / script).read_bytes()
    found = propose(knowledge, track, source.decode("utf-8", "replace"), agent, runs, script)
    return [found, *planned][:number] if found else planned
