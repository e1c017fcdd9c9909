"""An item of the queue: what it may hold. Whoever shows or runs it must not have to ask again."""

import pytest

from lab.errors import SettingError
from lab.items import check_item, new_item

LEASE = {"token": 1, "owner": "me", "since": "x", "deadline": "2026-03-08T12:00:00.000Z"}
A_LEASE = "an object with a token, an owner and a deadline such as 2026-03-08T12:00:00.000Z, or null"
LONE = "half of a character: \ud800"


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"id": "a\x1b[31mb"}, "up to 64 letters, digits, . _ and -"),
        ({"id": "a b"}, "up to 64 letters, digits, . _ and -"),
        ({"replicates": LONE}, "the id of a card, or null"),
        ({"replicates": "a\0b"}, "the id of a card, or null"),
        ({"track": LONE}, "printable text or null"),
        ({"why": {"a": 1}}, "text or null"),
        ({"reason": [1]}, "text or null"),
        ({"card": 7}, "text or null"),
        ({"finished": 5}, "text or null"),
        ({"lease": LEASE | {"deadline": "soon"}}, A_LEASE),
        ({"lease": LEASE | {"deadline": "2026-03-08T12:00:00"}}, A_LEASE),
        ({"lease": LEASE | {"deadline": "2026-02-31T12:00:00.000Z"}}, A_LEASE),
        ({"lease": LEASE | {"pid": "12"}}, A_LEASE),
        ({"lease": LEASE | {"pid": 1.5}}, A_LEASE),
    ],
)
def test_what_could_not_be_shown_or_run_is_refused(values, wanted):
    ((name, value),) = values.items()
    with pytest.raises(SettingError) as refused:
        check_item(new_item({"description": "x"}) | values, "it")
    assert str(refused.value) == f"it has {name} {value!r}; it must be {wanted}"


@pytest.mark.parametrize("lease", [LEASE, LEASE | {"pid": None}, LEASE | {"pid": 12, "machine": "m"}])
def test_a_lease_may_name_its_process(lease):
    check_item(new_item({"description": LONE}) | {"status": "claimed", "lease": lease}, "it")
