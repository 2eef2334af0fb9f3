"""The data card says what is in the files."""

import pytest

from timescope_lite import card, plots
from timescope_lite.common import UserError
from timescope_lite.corpus import SPLITS, Split, plan


@pytest.fixture
def mini(monkeypatch):
    for name, absent in (("dev", False), ("absent", True)):
        monkeypatch.setitem(
            SPLITS, name, Split(videos=3, seconds=(64, 200), questions=6, seed=9, absent=absent)
        )


def test_a_card_counts_what_its_split_holds(mini, tmp_path):
    path = card.write_card("dev", root=tmp_path)
    items = [item for _, asked in plan("dev") for item in asked]
    text = path.read_text()
    assert (
        path.name == "card.md"
        and (
            f"3 videos, 0.1 h (64 to 200 s each), {len(items)} questions, 0 of them without "
            "evidence"
        )
        in text
    )
    for table in text.split("\n\n"):
        rows = [line.split("|")[2] for line in table.splitlines()[2:] if line.startswith("|")]
        if table.startswith("|") and "questions" in table:
            assert sum(int(n) for n in rows) == len(items), table
    assert "| lt3min |" in text and "| 3to10min |" in text
    assert "| the whole video | 0.0" in text and "Targets per tenth of the video: " in text
    said = (path.parent / "contact_sheet.alt.txt").read_text()
    assert (path.parent / "contact_sheet.png").stat().st_size > 10_000 and items[0].text in said


def test_a_card_without_targets_claims_nothing_about_them(mini, tmp_path):
    text = card.write_card("absent", root=tmp_path).read_text()
    assert "answer without looking" not in text and "A target lasts" not in text


def test_a_contact_sheet_of_nothing_is_refused():
    with pytest.raises(UserError, match="needs at least one frame"):
        plots.contact_sheet([], [])
