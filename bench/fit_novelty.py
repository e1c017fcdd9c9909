"""Where the weights of `lab/likeness.py` come from: a logistic regression on labelled pairs of ideas.

    uv run bench/fit_novelty.py                     how well it does on quarters it was not fitted to, and the table
    uv run bench/fit_novelty.py --pairs FILE        other pairs (columns same, kind, a, b)

Half of the labelled pairs are one idea; of a night's runs hardly any are. So neighbours, ideas of different pairs that
share a name, are further pairs that differ, and a text with a remark more is the same idea. They count NEIGHBOUR each.
The file's quarters were written by different people: what is fitted to three of them is judged on the fourth.
Not covered: writing the table into lab/likeness.py; copy it.
"""

import argparse
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from bench.bench_novelty import PAIRS, Pair, quality, read_pairs
from lab.likeness import SAME_IDEA_THRESHOLD, WEIGHTS, WORD_SHARE, Sketch, evidence, sketch, word_similarity
from lab.words import weight

RIDGE = 1.0
COUNTS = {"neighbour": 0.1, "valued": 0.5, "stranger": 0.7, "remark": 0.3, "joined": 0.6}
NEIGHBOURS, VALUED, STRANGERS, REMARKED, JOINED = 150, 100, 150, 30, 15  # of a quarter of the pairs
REMARKS = ("{} (again)", "try: {}", "{}, as before", "{} once more", "{} (was worse)")


def more_pairs(pairs: list[Pair], chance: random.Random) -> list[Pair]:
    """Pairs of texts of different pairs, which differ, as does one text with both; texts with a remark do not."""
    texts = [(number, text) for number, pair in enumerate(pairs) for text in pair[2:]]
    found = [(True, "remark", text, chance.choice(REMARKS).format(text)) for _, text in chance.sample(texts, REMARKED)]
    for _ in range(JOINED):
        (_, a), (_, b) = chance.sample(texts, 2)
        found.append((False, "joined", a, f"{a} and {b}"))
    wanted = {"neighbour": NEIGHBOURS, "valued": VALUED, "stranger": STRANGERS}
    while any(wanted.values()):
        (first, a), (second, b) = chance.sample(texts, 2)
        kinds = _kinds(sketch(a), sketch(b)) if first != second else []
        kind = next((kind for kind in kinds if wanted[kind]), None)
        if kind:
            wanted[kind] -= 1
            found.append((False, kind, a, b))
    return found


def _kinds(one: Sketch, two: Sketch) -> list[str]:
    """What a pair of texts of different pairs may stand for; nothing where they could be one idea after all."""
    if not _names(one.names & two.names):
        return ["stranger"]
    less, more = sorted((one, two), key=lambda side: len(side.names))
    if one.names == two.names or (less.names <= more.names and one.new == two.new):
        return []
    valued, other = (one, two) if one.valued else (two, one)
    against = valued.valued and not other.valued and _names(other.names - valued.names - valued.excused)
    return ["valued", "neighbour"] if against else ["neighbour"]


def _names(names: frozenset[str]) -> bool:
    return any(weight(name) == 1 for name in names)


def matrix(pairs: list[Pair]) -> tuple[Any, Any]:
    """The evidence of pairs, a row each, and their labels."""
    rows = [list(evidence(*sorted((a, b))).values()) for _, _, a, b in pairs]
    return np.array(rows), np.array([float(pair[0]) for pair in pairs])


def fit(pairs: list[Pair], further: list[Pair]) -> Any:
    """The weights: Newton's method for the ridge-penalised likelihood; the bias goes free."""
    rows, labels = matrix(pairs + further)
    counts = np.array([1.0] * len(pairs) + [COUNTS[kind] for _, kind, _, _ in further])
    ridge = RIDGE * np.eye(rows.shape[1])
    ridge[0, 0] = 1e-3
    weights = np.zeros(rows.shape[1])
    for _ in range(40):
        chances = 1 / (1 + np.exp(-rows @ weights))
        curvature = rows.T @ (rows * (counts * chances * (1 - chances))[:, None]) + ridge
        weights += np.linalg.solve(curvature, rows.T @ (counts * (labels - chances)) - ridge @ weights)
    return weights


def scores(pairs: list[Pair], weights: Any) -> list[float]:
    """What `lab.likeness.similarity` would say with other weights."""
    rows, _ = matrix(pairs)
    alike = np.array([1 - WORD_SHARE + WORD_SHARE * word_similarity(a, b) for _, _, a, b in pairs])
    return list(alike / (1 + np.exp(-rows @ weights)))


def main() -> int:
    """Print what held-out quarters say, and the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=Path, default=PAIRS, help="labelled pairs (default: those of the tests)")
    pairs = read_pairs(parser.parse_args().pairs)
    quarter = -(-len(pairs) // 4)
    quarters = [pairs[start : start + quarter] for start in range(0, len(pairs), quarter)]
    further = [more_pairs(part, random.Random(5)) for part in quarters]
    for held, part in enumerate(quarters):
        rest = [pair for number, other in enumerate(quarters) if number != held for pair in other]
        beside = [pair for number, other in enumerate(further) if number != held for pair in other]
        auc, precision, recall = quality(part, scores(part, fit(rest, beside)))
        print(f"quarter {held + 1} held out: AUC {auc:.3f}, precision {precision:.3f}, recall {recall:.3f} "
              f"at {SAME_IDEA_THRESHOLD}")  # fmt: skip
    weights = fit(pairs, [pair for part in further for pair in part])
    names = list(evidence("a", "b"))
    for name, value in zip(names, weights, strict=True):
        print(f'    "{name}": {value:.2f},' + (f"  # {WEIGHTS[name]:.2f}" if name in WEIGHTS else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
