"""The types of the options: what they take, and what they say where that cannot be."""

from argparse import ArgumentTypeError

import pytest

from lab.options import amount, count, positive, seconds, setting, share


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (positive, "1", 1), (positive, "999999999", 999999999), (count, "0", 0), (count, "007", 7),
        (amount, "1.5", 1.5), (amount, "1e-9", 1e-9), (amount, "1e300", 1e300), (seconds, "0", 0.0),
        (seconds, "90", 90.0), (share, "0", 0.0), (share, "1", 1.0), (share, "0.5", 0.5),
        (setting, "DEPTH=4", ("DEPTH", 4)), (setting, "LR_2=-1e-3", ("LR_2", -0.001)), (setting, "X=", ("X", "")),
        (setting, "WINDOW=SL", ("WINDOW", "SL")), (setting, "X=a=b", ("X", "a=b")), (setting, "X=null", ("X", None)),
        (setting, "BETAS=[0.8, 0.95]", ("BETAS", [0.8, 0.95])), (setting, 'X="4"', ("X", "4")),
        (setting, "X=" + "[" * 100_000, ("X", "[" * 100_000)),
    ],
)  # fmt: skip
def test_what_they_take(kind, text, value):
    assert kind(text) == value


WHOLE, ZERO = "is not a whole number from 1 to 999999999", "is not a whole number from 0 to 999999999"
REFUSED = [
    *((positive, text, WHOLE) for text in ("0", "-1", "1.0", "", " 1", "1e3", "²", "1000000000", "nan", "x")),
    *((count, text, ZERO) for text in ("-1", "1.5", "", "1000000000")),
    *((amount, text, "is not a number above 0") for text in ("0", "-1", "nan", "inf", "1e999", "", "x", "1,5")),
    *((seconds, text, "is not a number of seconds, 0 or more") for text in ("-0.1", "nan", "inf", "soon")),
    *((share, text, "is not a number from 0 to 1") for text in ("-0.1", "1.1", "nan", "inf", "half")),
    *((setting, text, "is not NAME=VALUE with the name of a constant") for text in ("", "X", "x=1", "=1", "A B=1")),
    *((setting, text, "has a value that JSON cannot hold") for text in ("X=NaN", "X=[1e999]", "X=\udcff")),
    (setting, 'X="\\udcff"', "has a value that JSON cannot hold"),
]


@pytest.mark.parametrize(("kind", "text", "words"), REFUSED)
def test_what_they_refuse(kind, text, words):
    with pytest.raises(ArgumentTypeError) as raised:
        kind(text)
    assert str(raised.value) == f"{text!r} {words}"
