"""The library: the functions that users call by name."""

import json

import pytest

import commons
from lab.errors import CardError, SettingError
from lab.store import read_json


@pytest.fixture(params=[str, lambda path: path], ids=["text", "path"])
def knowledge(tmp_path, request):
    """A commons with four cards, as text or as a path."""
    folder = tmp_path / "knowledge"
    for place, (status, result, tags) in enumerate(
        [("keep", 1.0, ["a"]), ("crash", None, ["a", "b"]), ("keep", 0.9, ["b"]), ("revert", 1.1, [])], 1
    ):
        commons.add_card(folder, {
            "id": f"{place}" * 16, "timestamp": f"2026-01-31T12:00:0{place}.000Z", "status": status, "track": "t",
            "results": {"val_bpb": result, "delta": -0.1 if place == 3 else None}, "tags": tags, "commit": "abcdef01",
            "hypothesis": f"h{place}", "platform": {"device_name": ["NVIDIA H100 80GB", "Apple M4"][place % 2]},
        })  # fmt: skip
    return request.param(folder)


def ids(cards):
    """The first characters of the ids."""
    return "".join(card["id"][0] for card in cards)


def test_documented_names_are_exported():
    assert {"create_card", "load_cards", "read_brief", "get_card", "update_index", "validate_card"} <= set(
        commons.__all__
    )
    assert all(getattr(commons, name) is not None for name in commons.__all__)
    with pytest.raises(AttributeError, match=r"^module 'commons' has no attribute 'nonsense'$"):
        _ = commons.nonsense


def test_cards(knowledge):
    assert ids(commons.load_cards(knowledge)) == "4321"
    assert ids(commons.get_recent_cards(knowledge, 2)) == "43"
    assert commons.get_recent_cards(knowledge) == commons.load_cards(knowledge)
    assert ids(commons.get_cards_by_tag(knowledge, "a")) == "21" and commons.get_cards_by_tag(knowledge, "c") == []
    assert ids(commons.get_platform_findings(knowledge, "h100")) == "42"
    assert ids(commons.get_platform_findings(knowledge, "%")) == ""
    assert commons.get_card(knowledge, "last")["id"][0] == "4" and commons.get_card(knowledge, "22")["id"] == "2" * 16
    with pytest.raises(CardError, match=r"^no card '5'; "):
        commons.get_card(knowledge, "5")


def test_champion_and_coverage(knowledge):
    assert commons.get_champion(knowledge, "t")["id"][0] == "3"
    assert commons.get_champion(knowledge, "u") is None is commons.get_champion(knowledge, None)
    assert commons.get_coverage_map(knowledge) == {
        "a": {"count": 2, "kept": 1, "best_delta": None, "best_bpb": 1.0},
        "b": {"count": 2, "kept": 1, "best_delta": -0.1, "best_bpb": 0.9},
    }


def test_retraction(knowledge):
    card = commons.retract_card(knowledge, "33", "a leak")
    assert (card["status"], card["status_before"]) == ("retracted", "keep")
    assert card == commons.get_card(knowledge, "33") and card["retraction_reason"] == "a leak"
    assert commons.get_champion(knowledge, "t")["id"][0] == "1"
    assert commons.get_coverage_map(knowledge)["b"]["kept"] == 0
    with pytest.raises(CardError, match=r"^a retraction needs a reason$"):
        commons.retract_card(knowledge, "33", " ")


def test_brief(knowledge):
    assert commons.read_brief(knowledge).startswith("4 cards: 2 keep, 1 crash, 1 revert\n")
    assert len(commons.read_brief(knowledge, 50)) < 200


def test_the_exported_index(knowledge, tmp_path):
    assert commons.load_index(tmp_path / "none") == {"version": 1, "last_updated": None, "cards": []}
    assert ids(commons.load_index(knowledge)["cards"]) == "4321"  # no file is needed
    content = commons.update_index(knowledge)
    assert content == commons.load_index(knowledge) == read_json(tmp_path / "knowledge" / "index.json")
    assert ids(content["cards"]) == "4321" and content["cards"][1]["result"] == 0.9


def test_update_index_reads_again_what_was_edited_in_place(knowledge, tmp_path):
    commons.get_recent_cards(knowledge)
    path = tmp_path / "knowledge" / "cards" / f"{'1' * 16}.json"
    path.write_text(json.dumps(read_json(path) | {"lesson": "edited"}))
    assert commons.update_index(knowledge)["cards"][-1]["lesson"] == "edited"


def test_pictures(knowledge, tmp_path):
    for kind in ("coverage", "lineage"):
        commons.draw(knowledge, kind, tmp_path / f"{kind}.svg")
        assert (tmp_path / f"{kind}.svg").read_bytes().startswith(b"<?xml")
    path = str(tmp_path / "progress.png")
    assert commons.generate_progress_plot(knowledge, path) == path
    assert (tmp_path / "progress.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SettingError, match=r"^no card has a loss curve"):
        commons.draw(knowledge, "loss", tmp_path / "loss.svg")


def test_a_commons_that_is_not_there(tmp_path):
    missing = tmp_path / "none"
    assert (
        commons.load_cards(missing) == commons.get_recent_cards(missing) == commons.get_cards_by_tag(missing, "a") == []
    )
    assert commons.get_coverage_map(missing) == {} and commons.get_champion(missing, "t") is None
    assert not missing.exists()
