"""Words of columns and descriptions give away what they mean, and what they do not say stays unknown."""

import pytest

from lab.guess import (
    guess_category,
    guess_config_diff,
    guess_direction,
    guess_error_kind,
    guess_lesson,
    guess_metrics,
    guess_roles,
    guess_status,
    guess_tags,
    metric_name,
)


@pytest.mark.parametrize(
    ("description", "category", "tags"),
    [
        ("embedding LR 0.6 to 0.8", "optimizer", ["embedding", "lr"]),
        ("add WD 0.01 to lm_head", "regularization", ["wd", "lm_head"]),
        ("FINAL_LR_FRAC 0.0 to 0.05", "scheduling", ["final_lr_frac"]),
        ("SSSL pattern (more long layers hurt steps)", "attention", ["sssl"]),
        ("parallel attn+MLP (much worse)", "architecture", ["parallel", "attn", "mlp"]),
        ("smaller QK init 0.5x", "initialization", ["qk", "init"]),
        ("weight tying (shared embed/unembed, broken)", "embedding", ["weight-tying"]),
        ("random seed 42 to 137", "other", ["seed"]),
        ("halve batch 524K to 262K", "hyperparams", ["batch"]),
        ("something else entirely", None, []),
    ],
)
def test_category_and_tags(description, category, tags):
    assert (guess_category(description), guess_tags(description)) == (category, tags)


@pytest.mark.parametrize(
    ("description", "difference", "lesson"),
    [
        ("matrix LR 0.04 to 0.045", {"matrix LR": [0.04, 0.045]}, None),
        ("depth 8 -> 10 (too few steps)", {"depth": [8, 10]}, "too few steps"),
        ("increase DEPTH from 8 to 10 (with WD)", {"DEPTH": [8, 10]}, None),
        ("batch 524K to 262K (more steps in 5 min)", None, None),
        ("lr 0.1 to 0.2 and wd 0.1 to 0.2", None, None),
        ("- to -", None, None),
    ],
)
def test_config_diff_and_lesson(description, difference, lesson):
    assert (guess_config_diff(description), guess_lesson(description)) == (difference, lesson)


@pytest.mark.parametrize(
    ("text", "status"),
    [("Kept!", "keep"), ("discard", "revert"), ("FAILED (oom)", "crash"), ("finished", "inconclusive"), ("odd", None),
     ("", None)],
)  # fmt: skip
def test_status(text, status):
    assert guess_status(text) == status


@pytest.mark.parametrize(
    ("text", "kind"),
    [("CUDA out of memory", "oom"), ("timed out", "timeout"), ("loss is NaN", "diverged"), ("zoom", "exception")],
)
def test_error_kind(text, kind):
    assert guess_error_kind(text) == kind


@pytest.mark.parametrize(
    ("metric", "kept", "found"),
    [
        ("val_sharpe", [2, 1], ("max", "the word 'sharpe'")),
        ("test.rmse", [], ("min", "the word 'rmse'")),
        ("val_x", [1, 1, 2], ("max", "the kept rows, which only rise")),
        ("val_x", [2, 1], ("min", "the kept rows, which only fall")),
        ("loss_score", [1], None),
        ("val_x", [1, 2, 1], None),
    ],
)
def test_direction(metric, kept, found):
    assert guess_direction(metric, kept) == found


def test_roles_and_metrics_by_the_names_of_columns():
    columns = ["SHA", "Start Time", "params.val_x", "val_step", "val_x", "Accuracy", "value", "Notes", "message"]
    found = guess_roles(columns)
    assert {role: at for role, at in found.items() if at} == {"commit": [0], "description": [7, 8], "time": [1]}
    assert list(guess_metrics(columns)) == [{4}, {5}, {6}]


@pytest.mark.parametrize(
    ("column", "name"), [("metrics.val/loss", "val/loss"), (" val loss (nats)", "val_loss_nats"), ("3x", "_3x")]
)
def test_metric_name(column, name):
    assert metric_name(column) == name
