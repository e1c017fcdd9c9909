"""How alike ideas are, and what an idea's closest earlier runs mean for it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.likeness import goes_on
from lab.novelty import MANY_KEEPS, MODES, SAME_IDEA_THRESHOLD, TABLE, Idea, assess, outcome, similarity

SAME = [
    ("halve the batch", "batch 524288 -> 262144"),
    ("halve batch 524K to 262K (more steps in 5 min)", "262K instead of 524K tokens per batch"),
    ("EMBEDDING_LR 0.6 -> 0.8", "raise the wte learning rate from 0.6 to 0.8"),
    ("use SwiGLU in the MLP", "swap the MLP activation for SwiGLU"),
    ("add QK-norm", "normalize queries and keys before attention"),
    ("depth 8 to 10", "add two layers"),
    ("matrix LR 0.04 to 0.05", "increase Muon learning rate from 0.04 to 5e-2"),
    ("no weight decay", "WEIGHT_DECAY = 0"),
    ("weight tying", "share input and output embeddings"),
    ("softcap 15 to 20", "raise the logit cap"),
    ("MQA", "multi-query attention (n_kv_head=1)"),
    ("cosine decay instead of linear", "switch the LR schedule to cosine"),
    ("replace AdamW with Lion for embeddings", "Lion instead of Adam on the embedding"),
    # Numbers and relations in words.
    ("one and a half times the matrix LR", "MATRIX_LR 0.04 -> 0.06"),
    ("embedding learning rate multiplied by three", "EMBEDDING_LR 0.2 -> 0.6"),
    ("divide the weight decay by four", "WEIGHT_DECAY 0.2 -> 0.05"),
    ("lower muon momentum from 0.95 by 0.05", "MUON_MOMENTUM 0.95 -> 0.90"),
    ("the matrix LR falls to 0.03; it is 0.04 now", "MATRIX_LR 0.04 -> 0.03"),
    ("half the current batch", "TOTAL_BATCH_SIZE 524288 -> 262144"),
    ("a tenth of the usual scalar LR", "SCALAR_LR 0.5 -> 0.05"),
    ("drop weight decay by an order of magnitude", "WEIGHT_DECAY 0.2 -> 0.02"),
    ("an extra 20% on the embedding lr", "EMBEDDING_LR 0.6 -> 0.72"),
    ("rotary base ten thousand to fifty thousand", "ROPE_BASE 10000 -> 50000"),
    ("decay to five percent of the peak learning rate, not to zero", "FINAL_LR_FRAC 0 -> 0.05"),
    ("cool down over the last three quarters of training", "WARMDOWN_RATIO 0.5 -> 0.75"),
    ("begin at sequence length 1024 and switch to 2048 later", "seqlen 1024 -> 2048 curriculum"),
    ("MLP hidden layer six times the model width instead of four", "mlp ratio 4 -> 6"),
    ("value embedding gate with 16 inputs rather than 32", "GATE_CHANNELS 32 -> 16"),
    ("gelu supplants relu squared", "relu^2 -> gelu"),
    ("run without any warmup", "WARMUP_RATIO = 0"),
]
OTHER = [
    ("raise the embedding LR", "lower the embedding LR"),
    ("warmup 5%", "warmdown 5%"),
    ("embedding LR 0.6 to 0.8", "unembedding LR 0.6 to 0.8"),
    ("Adam beta1 0.8 to 0.9", "Adam beta2 0.8 to 0.9"),
    ("depth 8 to 10", "depth 8 to 12"),
    ("lr 0.04 to 0.05", "lr 0.04 to 0.06"),
    ("lr 0.04", "lr 0.4"),
    ("add QK norm", "remove QK norm"),
    ("replace GELU with ReLU", "replace ReLU with GELU"),
    ("use SwiGLU", "use GeGLU"),
    ("muon momentum warmup 300 steps", "lr warmup 300 steps"),
    ("value embeddings in the first 3 layers", "value embeddings in the last 3 layers"),
    ("sort documents by length", "sort documents by perplexity"),
    ("raise lr", "raise lr and lower weight decay"),
    ("add dropout to attention", "add dropout to the MLP"),
    ("EMA decay 0.99", "EMA decay 0.999"),
    # The same words, the other way round.
    ("raise the lr by 30%", "raise the lr to 30%"),
    ("warmdown 0.5 up by 0.1", "warmdown 0.5 down by 0.1"),
    ("matrix lr 0.04 raised by a third", "matrix lr 0.04 lowered by a third"),
    ("scalar LR multiplied by 4", "scalar LR divided by 4"),
    ("triple the embedding lr", "embedding lr doubled"),
    ("keep logits in fp32, not bf16", "keep logits in bf16, not fp32"),
    ("dropout in the MLP but not in attention", "dropout in attention but not in the MLP"),
    ("beta2 0.95 becomes 0.99", "beta2 0.99 becomes 0.95"),
    ("decay linearly to zero rather than to 10%", "decay linearly to 10% rather than to zero"),
    ("a window of a quarter of the context", "window 1/8 context"),
    ("long windows early, short windows late", "short windows early, long windows late"),
    ("attention before MLP", "MLP before attention"),
    ("ramp wd up during the run", "ramp wd down during the run"),
    ("constant lr after the first half", "constant lr in the first half"),
    ("train longer sequences, same tokens per step", "train shorter sequences, same tokens per step"),
    ("keep softcap at 15 but in training only", "keep softcap at 15 but at evaluation only"),
    ("drop weight decay to 0.1", "drop weight decay by 0.1"),
]


@pytest.mark.parametrize(("a", "b"), SAME)
def test_the_same_idea_in_other_words(a, b):
    assert similarity(a, b) >= SAME_IDEA_THRESHOLD


@pytest.mark.parametrize(("a", "b"), OTHER)
def test_another_idea_in_much_the_same_words(a, b):
    assert similarity(a, b) < SAME_IDEA_THRESHOLD


def test_words_rank_what_is_equal_in_structure():
    exact, close = "raise embedding LR a bit, as before", "raise embedding LR"
    assert 1.0 == similarity(exact, exact) > similarity(exact, close) > SAME_IDEA_THRESHOLD


def test_an_embedder_takes_the_place_of_words_but_not_of_structure():
    high, low = (similarity("raise the lr", "higher learning rate", lambda a, b, to=to: to) for to in (1.0, 0.0))
    assert high > low >= SAME_IDEA_THRESHOLD
    assert similarity("raise the lr", "lower the lr", lambda a, b: 1.0) < SAME_IDEA_THRESHOLD


IDEAS = st.text() | st.sampled_from([text for pair in SAME + OTHER for text in pair])


@settings(max_examples=300, deadline=None)
@given(IDEAS, IDEAS)
def test_a_similarity_is_symmetric_and_a_share(a, b):
    assert 0 <= similarity(a, b) == similarity(b, a) <= 1
    assert similarity(a, a) == (1.0 if any(map(str.isalnum, a)) else 0.0)


@pytest.mark.parametrize("text", ["lr " * 33_000, "((((" * 25_000, "9" * 100_000, "raise lr and " * 7_000])
def test_long_texts_are_compared(text):
    assert 0 <= similarity(text, text + "x") <= 1


NUMBER = iter(range(10**6))


def run(hypothesis="raise the lr", status="revert", delta=0.01, **values):
    """An earlier run as the index tells of it."""
    row = {"id": f"{next(NUMBER):012x}", "track": "t", "direction": "min", "lesson": None, "edit_key": None}
    row |= {"quarantined": None, "error_kind": None, "hypothesis": hypothesis, "status": status, "delta": delta}
    return row | values


IDEA = Idea("raise the learning rate", track="t")


@pytest.mark.parametrize(
    ("earlier", "verdict"),
    [
        ([], ("novel", "")),
        ([run("lower the lr")], ("novel", "")),
        ([run()], ("repeat_failure", "here")),
        ([run(status="crash", delta=None)], ("repeat_failure", "here")),
        ([run(status="crash", delta=None, error_kind="killed")], ("repeat_failure", "unclear")),
        ([run(delta=0.001)], ("repeat_failure", "unclear")),
        ([run(status="inconclusive")], ("repeat_failure", "unclear")),
        ([run(quarantined="slow")], ("repeat_failure", "unclear")),
        ([run(track="elsewhere")], ("repeat_failure", "distant")),
        ([run(keeps_since=MANY_KEEPS)], ("repeat_failure", "distant")),
        ([run(keeps_since=MANY_KEEPS - 1)], ("repeat_failure", "here")),
        ([run(delta=0.001), run()], ("repeat_failure", "here")),
        ([run(), run(status="keep", delta=-0.01)], ("known_success", "")),
        ([run(status="retracted")], ("novel", "")),
        ([run(delta=None)], ("repeat_failure", "here")),
        ([run(direction="max", delta=-0.01)], ("repeat_failure", "here")),
        ([run(direction="max", delta=0.01)], ("repeat_failure", "unclear")),
    ],
)
def test_what_earlier_runs_say_of_an_idea(earlier, verdict):
    found = assess(IDEA, earlier, "explore", 0.0005)
    assert (found["classification"], found["evidence"]) == verdict
    assert found["decision"] == TABLE[verdict][0]


def test_another_value_of_what_was_kept_goes_on_from_it():
    earlier = [run("embedding LR 0.6 to 0.8", "keep", -0.002)]
    found = assess(Idea("embedding LR 0.8 to 0.9", track="t"), earlier, "explore", 0.0005)
    assert (found["classification"], found["decision"]) == ("incremental_followup", "allow")
    assert found["reason"] == f"it goes on from run {earlier[0]['id'][:8]}, which was kept (delta -0.002000)"
    assert goes_on("lr 2 to 3", "lr 1 to 2") and not goes_on("lr 2 to 1", "lr 1 to 2")


def test_an_equal_edit_on_this_track_is_a_duplicate_whatever_it_is_called():
    idea = Idea("", edit_key="k", track="t")
    earlier = [run("something else", edit_key="k")]
    assert [assess(idea, earlier, mode, None)["decision"] for mode in MODES] == ["block", "block", "allow"]
    assert assess(idea, earlier, "explore", None)["classification"] == "duplicate_run"
    elsewhere = [run("something else", edit_key="k", track="u")]
    assert assess(idea, elsewhere, "explore", None)["classification"] == "repeat_failure"


def test_an_edits_constants_are_compared_like_words():
    idea = Idea("", "EMBEDDING_LR 0.6 -> 0.8", track="t")
    assert assess(idea, [run("raise wte lr from 0.6 to 0.8")], "explore", 0.0005)["decision"] == "block"
    assert assess(idea, [run("x", changes="EMBEDDING_LR 0.6 -> 0.8")], "explore", 0.0005)["decision"] == "block"


def test_noise_never_blocks_who_wants_to_exploit_or_replicate():
    decisions = dict(zip(MODES, TABLE["repeat_failure", "unclear"], strict=True))
    assert decisions == {"explore": "caution", "exploit": "allow", "replicate": "allow"}


def test_every_verdict_has_a_decision_in_every_mode():
    assert all(len(row) == len(MODES) and set(row) <= {"allow", "caution", "block"} for row in TABLE.values())


def test_the_run_that_decides_is_shown_first_and_this_tracks_before_others():
    rows = [run(track="u", status="keep"), run("raise lr to 0.05"), run(), run("add dropout")]
    found = assess(IDEA, rows, "explore", 0.0005, limit=3)
    assert found["closest"][0]["outcome"] == "helped"
    assert [row["track"] for row in found["closest"]] == ["u", "t", "t"]
    assert (found["same"], found["compared"]) == (3, 4)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (run(), "run {} tried the same idea and was refuted (delta +0.010000)"),
        (run(status="crash", delta=None), "run {} tried the same idea and crashed"),
        (run(delta=0.0001), "run {} tried the same idea, and noise was too large to tell (delta +0.000100): "
                            "a repeat would"),
        (run(track="u"), "run {} on another track tried the same idea without success (delta +0.010000), but against "
                         "another champion"),
        (run(status="keep", delta=-0.01), "run {} tried the same idea and was kept (delta -0.010000)"),
    ],
)  # fmt: skip
def test_the_reason_is_a_sentence(row, reason):
    assert assess(IDEA, [row], "explore", 0.0005)["reason"] == reason.format(row["id"][:8])


def test_without_noise_known_the_sign_decides():
    assert outcome(run(delta=1e-9), None) == "refuted"
    assert outcome(run(delta=0.0), None) == "unclear"
