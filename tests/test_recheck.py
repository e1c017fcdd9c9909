"""The second look: what the gap between two texts means, and what comes of it on the card."""

import json
import random
from statistics import mean

import pytest

from lab.cards import add_card, load_cards
from lab.errors import SettingError
from lab.recheck import ALIKE_ROWS, SURE_SDS, judge_gap, look_again

SAMPLING = 0.02


def test_the_first_run_is_held_against_the_sampling_error():
    assert judge_gap(1.5, 1.5 + SURE_SDS * ALIKE_ROWS * SAMPLING - 1e-6, SAMPLING, [], "min") is None
    assert judge_gap(1.5, 1.4, SAMPLING, [], "min") is None, "the hidden text may be the easier one"
    assert judge_gap(1.5, 1.8, SAMPLING, [], "min") == (
        "suspect_overfit: 1.8000 on hidden text and 1.5000 on the validation text is 0.3000 worse than runs of this "
        "track are, of which 0.2400 can be noise"
    )


def test_a_harder_text_is_no_overfit():
    """All see the same texts: the gap of the others is what to expect."""
    earlier = [(1.50, 1.57), (1.48, 1.55), (1.47, 1.541)]
    assert judge_gap(1.46, 1.529, SAMPLING, earlier, "min") is None
    assert judge_gap(1.40, 1.53, SAMPLING, earlier, "min").startswith("suspect_overfit: 1.5300 on hidden text and 1.4")


def test_a_gap_grows_with_what_it_is_a_gap_of():
    assert judge_gap(1.0, 1.05, 0.004, [(2.0, 2.1), (1.9, 1.995)], "min") is None
    assert judge_gap(1.0, 1.10, 0.004, [(2.0, 2.1), (1.9, 1.995)], "min")


def test_more_is_better():
    assert judge_gap(90.0, 70.0, 1.0, [], "max") and judge_gap(90.0, 100.0, 1.0, [], "max") is None
    assert judge_gap(90.0, 80.0, 1.0, [(88.0, 78.5), (89.0, 79.0)], "max") is None


def test_the_numbers_of_real_runs():
    """Kept runs of a night on `builtin`, 20 s each: the hidden text is the easier one for all."""
    assert judge_gap(2.0340, 1.9081, 0.0198, [(2.1889, 2.0609)], "min") is None
    assert judge_gap(2.0054, 1.8809, 0.0198, [(2.1889, 2.0609), (2.0340, 1.9081), (2.0169, 1.8916)], "min") is None
    assert judge_gap(2.0340, 1.9900, 0.0198, [(2.1889, 2.0609)], "min").startswith("suspect_overfit")


@pytest.mark.parametrize("before", [1, 2, 5, 20])
def test_honest_runs_are_hardly_ever_suspected_and_overfit_ones_nearly_always(before):
    """Two texts that differ by a sampling error, and runs that differ on them by a quarter of that."""
    chance = random.Random(before)
    suspected, caught = [], []
    for _ in range(2000):
        harder = chance.gauss(0, SAMPLING)
        pairs = [(1.5, 1.5 + harder + chance.gauss(0, SAMPLING / 4)) for _ in range(before + 1)]
        (value, hidden), earlier = pairs[0], pairs[1:]
        suspected.append(judge_gap(value, hidden, SAMPLING, earlier, "min") is not None)
        caught.append(judge_gap(value - 3 * SAMPLING, hidden, SAMPLING, earlier, "min") is not None)
    assert mean(suspected) < 0.01 and mean(caught) > 0.95


@pytest.fixture
def project(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.autoresearch]\nsecond_look = 'look --hard'\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "evaluation.json").write_text("{}")
    return tmp_path


def kept(project, value=1.5, **more):
    values = {"track": "t", "status": "keep", "results": {"val_bpb": value} | more}
    return add_card(project / "knowledge", values)


def look(project, card, log, code=0):
    """(the card after the look, the warning, the command): the command leaves `log`."""
    asked = []

    def run(command, name):
        asked.append(command)
        (project / "run" / name).write_text(log)
        return code

    card, warning = look_again(project, project / "knowledge", card, project / "run", run)
    assert asked == [["look", "--hard", str(project / "run")]]
    assert next(one for one in load_cards(project / "knowledge") if one["id"] == card["id"]) == card
    return card, warning


def said(**values):
    return "warming up\n" + json.dumps({"val_bpb": 1.5, "hidden_bpb": 1.51, "hidden_stderr": 0.02} | values) + "\n\n"


def test_what_was_found_is_on_the_card(project):
    card, warning = look(project, kept(project), said())
    assert (card["results"]["hidden_bpb"], card["results"]["hidden_stderr"], card["quarantined"]) == (1.51, 0.02, None)
    assert warning is None


def test_a_gap_makes_a_run_suspect(project):
    card, warning = look(project, kept(project), said(hidden_bpb=1.9, val_stderr=0.015))
    assert card["quarantined"].startswith("suspect_overfit: 1.9000 on hidden text and 1.5000 on the validation text is")
    assert card["quarantined"].endswith("of which 0.3000 can be noise") and warning is None
    assert (card["status"], card["results"]["hidden_bpb"]) == ("keep", 1.9)


def test_the_gaps_of_the_track_are_compared_and_no_others(project):
    for value in (1.6, 1.58, 1.55):
        kept(project, value, hidden_bpb=value + 0.3)
    card, _ = look(project, kept(project), said(hidden_bpb=1.795))
    assert card["quarantined"] is None
    suspect = add_card(project / "knowledge", {"track": "u", "status": "keep", "results": {"val_bpb": 1.5}})
    assert look(project, suspect, said(hidden_bpb=1.795))[0]["quarantined"].startswith("suspect_overfit")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"suspect": "does not reproduce:\nx"}, "does not reproduce: x"),
        ({"val_bpb": 1.6}, "does not reproduce: val_bpb is 1.500000 on the card, and its evaluation was 1.600000"),
        ({"val_bpb": None, "hidden_bpb": None, "hidden_stderr": None}, None),
        ({"hidden_bpb": "low", "hidden_stderr": [], "suspect": 7}, None),
    ],
)
def test_what_the_command_says_of_the_run(project, values, reason):
    assert look(project, kept(project), said(**values))[0]["quarantined"] == reason


@pytest.mark.parametrize(
    ("log", "code", "why"),
    [
        ("Traceback\nerror: train.py has no build(data, device)\n", 2, "train.py has no build(data, device)"),
        (said(), 1, said().splitlines()[1]),
        ("", 137, "exit code 137, and no word"),
        ("[1, 2]\n", 0, "[1, 2]"),
        ('{"hidden_bpb": 1\n', 0, '{"hidden_bpb": 1'),
    ],
)
def test_a_look_that_fails_leaves_the_card_as_it_is(project, log, code, why):
    card = kept(project)
    after, warning = look(project, card, log, code)
    assert (after, warning) == (card, f"card {card['id'][:12]} could not be evaluated again: {why}")


def test_results_without_an_evaluation_were_written_by_hand(project):
    (project / "run" / "evaluation.json").unlink()
    card, warning = look_again(project, project / "knowledge", kept(project), project / "run", None)
    assert (card["status"], warning) == ("keep", None)
    assert card["quarantined"] == (
        "does not reproduce: the evaluator has measured nothing in this run, somebody wrote its results by hand"
    )


def test_a_command_that_cannot_be_started(project):
    def run(command, log):
        raise SettingError("cannot start 'look': No such file or directory; install it or name another")

    card = kept(project)
    warning = f"card {card['id'][:12]} could not be evaluated again: cannot start 'look': No such file or directory; "
    found = look_again(project, project / "knowledge", card, project / "run", run)
    assert found == (card, warning + "install it or name another")
