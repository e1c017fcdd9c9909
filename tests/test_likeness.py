"""What speaks for and against two ideas being one, and how well that tells labelled pairs apart."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.bench_novelty import PAIRS, quality, read_pairs
from lab.likeness import SAME_IDEA_THRESHOLD, WEIGHTS, evidence, goes_on, similarity
from lab.rewrites import RULES, rewritten


def test_labelled_pairs_are_told_apart():
    auc, precision, recall = quality(read_pairs(PAIRS))
    assert auc >= 0.93 and precision >= 0.9 and recall >= 0.8


def test_everything_that_is_evidence_has_a_weight():
    assert list(evidence("raise the lr", "lower the wd")) == list(WEIGHTS)
    against = ("clash", "contrast", "frame", "turned", "swapped", "left on both", "thing left", "change left")
    assert all(value < 0 for name, value in WEIGHTS.items() if any(word in name for word in against))


@pytest.mark.parametrize(
    ("name", "a", "b"),
    [
        ("values agree", "lr 0.04 to 0.05", "raise the learning rate from 4e-2 to 5e-2"),
        ("values clash", "lr 0.04 to 0.05", "lr 0.04 to 0.06"),
        ("values clash", "init at 0", "init scale 0.5x"),
        ("values clash", "lr up by 10%", "lr down by 10%"),
        ("verbs clash", "raise the lr", "lower the lr"),
        ("verbs clash", "add QK norm", "remove QK norm"),
        ("swapped", "GELU -> ReLU", "ReLU -> GELU"),
        ("swapped", "norm queries, not keys", "norm keys, not queries"),
        ("swapped", "bias in the MLP, dropout in attention", "dropout in the MLP, bias in attention"),
        ("swapped", "gate after the norm", "norm after the gate"),
        ("values clash", "wd by 20%", "wd to 20%"),
        ("thing contrast", "embedding lr", "unembedding lr"),
        ("contrast in frame", "long window in the first layer", "long window in the last layer"),
        ("one piece apart", "sort documents by length", "sort documents by perplexity"),
        ("change left", "raise lr", "raise lr and lower weight decay"),
        ("value against name", "weight decay 0.2 to 0.1", "weight decay follows a cosine"),
        ("nothing shared", "tie the embeddings", "add dropout"),
    ],
)
def test_what_is_found_between_two_ideas(name, a, b):
    assert evidence(a, b)[name] > 0


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("embedding LR 0.6 to 0.8 for the whole run as before", "embedding LR 0.6 to 0.9 for the whole run as before"),
        ("raise the weight decay of Muon for the whole run", "lower the weight decay of Muon for the whole run"),
        ("beta1 of the Adam groups 0.8 to 0.9 from the start", "beta2 of the Adam groups 0.8 to 0.9 from the start"),
    ],
)
def test_a_clash_wins_over_common_words(a, b):
    assert similarity(a, b) < SAME_IDEA_THRESHOLD / 2


def test_another_value_the_same_way_goes_on():
    assert goes_on("embedding lr 0.8 to 0.9", "raise wte LR 0.6 to 0.8")
    assert not goes_on("embedding lr 0.8 to 0.7", "raise wte LR 0.6 to 0.8")
    assert not goes_on("matrix lr 0.8 to 0.9", "raise wte LR 0.6 to 0.8")
    assert not goes_on("embedding lr 0.8", "embedding lr 0.8")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("layer 0 is MLP-only", "first layer is without attention"),
        ("512 channels, no longer 640", "512 channels, instead 640"),
        ("ten times larger", "10x larger"),
        ("label smoothing of two percent", "label smoothing of 2%"),
        ("ADAM_BETAS (0.8, 0.95) -> (0.9, 0.95)", "ADAM_beta1 0.8 -> 0.9"),
        ("3 * 2**17", "3 * 131072"),
        ("top-1 MoE", "topk 1 MoE"),
        ("from easy to hard", "easy first"),
        ("int6 weights", "6 bit weights"),
        ("start x0 at 0.1", "init x0 at 0.1"),
        ("drop 1 in 10", "drop 10%"),
        ("from depth 8 and dim 640 to depth 10 and dim 512", "depth 8 -> 10; dim 640 -> 512"),
        ("two thirds of the run", "2/3 of the run"),
        ("multiply the lr by three", "the lr x3"),
        ("nothing to do here", "nothing to do here"),
    ],
)
def test_turns_of_phrase_are_put_plainly(text, plain):
    assert " ".join(rewritten(text).split()) == plain


def test_every_rule_is_tried_where_its_words_stand():
    assert all(needles and needles == needles.casefold() for needles, _, _ in RULES)


WORDS = st.lists(
    st.sampled_from([word for needles, _, _ in RULES for word in needles.split()] + ["1", "2**", "(", "%"])
)


@settings(max_examples=200, deadline=None)
@given(WORDS, WORDS)
def test_any_words_of_the_rules_are_compared(first, second):
    assert 0 <= similarity(" ".join(first), " ".join(second)) <= 1


@pytest.mark.parametrize(
    "text",
    [
        "swa " * 25_000,
        "start at " * 12_000,
        "beta 0.1, " * 10_000,
        "allow doc " * 10_000,
        "divide by " * 9_000,
        "start 1 and then " * 6_000,
        "from depth 8 and 1 " * 5_000,
        "first half on 1 the rest " * 4_000,
        "to 10% of the peak, " * 5_000,
        "learn half " * 9_000,
        "scale a up " * 9_000,
    ],
)
def test_repeated_words_of_the_rules_are_compared(text):
    assert 0 <= similarity(text, text + "window") <= 1
