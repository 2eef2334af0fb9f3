"""The claims ledger: every row of the summary is there, verdicts follow from intervals by rule, and
what is committed is what the code writes.
"""

import re
from pathlib import Path

import pytest

from timescope_lite.classroom import report
from timescope_lite.classroom.ledger import (
    ENOUGH,
    KINDS,
    UNTESTED,
    VERDICTS,
    Claim,
    Results,
    judge,
    ledger_text,
    read_claims,
    write_ledger,
)
from timescope_lite.common import UserError
from timescope_lite.results import Estimate, write_result

ROOT = Path(__file__).resolve().parent.parent
CLAIMS = ROOT / "figures" / "claims.toml"
LEDGER = ROOT / "figures" / "claims_ledger.md"
SOURCE = ROOT.parent / "shared" / "reference" / "claims.md"

GOOD = "two_stage@64 - dense/all/difference_of_r1@0.5"
METRICS = {
    GOOD: Estimate(0.3, 0.2, 0.4, 120),
    "two_stage@64 - dense/lt3min/difference_of_r1@0.5": Estimate(0.05, -0.1, 0.15, 60),
    "two_stage@64 - dense/gt10min/difference_of_r1@0.5": Estimate(0.3, 0.1, 0.5, ENOUGH - 1),
    "two_stage/5min/attended_kv_bytes": Estimate(2.0**20),
}
CLAIM = {
    "id": "C1",
    "kind": "claim",
    "said": "It is better.",
    "confidence": "said with high confidence",
    "where": ["09"],
    "why": "It is.",
}


def toml(claim: dict, *evidence: dict) -> str:
    """A [[claim]] table as text."""

    def text(value: object) -> str:
        return (
            repr(value).replace("'", '"')
            if isinstance(value, list)
            else f'"{value}"'
            if isinstance(value, str)
            else str(value)
        )

    lines = ["[[claim]]", *(f"{key} = {text(value)}" for key, value in claim.items())]
    items = [
        "{" + ", ".join(f"{key} = {text(value)}" for key, value in item.items()) + "}"
        for item in evidence
    ]
    return "\n".join([*lines, f"evidence = [{', '.join(items)}]" if items else ""]) + "\n"


def line(metric: str = GOOD, rule: str = "low > 0", **more: str) -> dict:
    return (
        {"result": "data/result.json", "metric": metric, "label": "two stages - dense"}
        | ({"rule": rule} if rule else {})
        | more
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with one result file."""
    write_result(
        tmp_path / "data",
        name="made up",
        metrics=METRICS,
        config={"split": "dev", "budgets": [64]},
        seed=3,
    )
    (tmp_path / "figures").mkdir()
    return tmp_path


def written(project: Path, *tables: str) -> str:
    (project / "figures" / "claims.toml").write_text("\n".join(tables), encoding="utf-8")
    return write_ledger(
        project / "figures" / "claims.toml", project / "figures" / "ledger.md", project
    ).read_text(encoding="utf-8")


def verdict(project: Path, *evidence: dict) -> str:
    written(project, toml(CLAIM, *evidence))
    (claim,) = read_claims(project / "figures" / "claims.toml")
    return judge(claim, Results(project))[0]


# --- what is committed ----------------------------------------------------------------------------


def test_every_row_of_the_summary_is_there() -> None:
    if not SOURCE.is_file():
        pytest.skip(
            "the list of the summary's claims lies beside the checkout only where the course is "
            "made"
        )
    assert [claim.id for claim in read_claims(CLAIMS)] == re.findall(
        r"^\| ([A-Z]\d+) \|", SOURCE.read_text(encoding="utf-8"), re.MULTILINE
    )


def test_the_committed_ledger_is_what_the_code_writes() -> None:
    assert LEDGER.read_text(encoding="utf-8") == ledger_text(CLAIMS, ROOT), (
        "claims or result files changed: run `timescope-lite report --record`, then read the new "
        "verdicts and every `why` in claims.toml"
    )


def test_the_committed_verdicts_rest_on_intervals() -> None:
    results = Results(ROOT)
    for claim in read_claims(CLAIMS):
        found, lines = judge(claim, results)
        counted = [line for line in lines if line.holds is not None]
        assert found in VERDICTS and (found in UNTESTED) == (not counted), claim.id
        assert all(line.metric.low is not None and line.metric.n >= ENOUGH for line in counted), (
            claim.id
        )
        assert claim.where, f"{claim.id} names no notebook"


def test_the_ledger_names_what_is_inconsistent_in_the_summary() -> None:
    notes = {claim.id: claim.note for claim in read_claims(CLAIMS) if claim.note}
    assert (
        "under 3 minutes only" in notes["C1"]
        and "mislabelled" in notes["C2"]
        and "swapped" in notes["C3"]
    )
    text = LEDGER.read_text(encoding="utf-8")
    assert all(note in text for note in notes.values())


def test_links_of_the_ledger_lead_to_files_and_sections() -> None:
    text = LEDGER.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert re.search(rf"^## {target[1:].upper()}$", text, re.MULTILINE), target
        else:
            assert (LEDGER.parent / target).is_file(), target


# --- verdicts by rule -----------------------------------------------------------------------------

SHORT = "two_stage@64 - dense/lt3min/difference_of_r1@0.5"


def test_all_some_or_none_of_the_rules_hold(project: Path) -> None:
    assert verdict(project, line()) == "holds"
    assert verdict(project, line(), line(SHORT)) == "partly"
    assert verdict(project, line(SHORT), line(rule="high < 0.1")) == "not here"
    assert verdict(project, line(), line(SHORT, rule="")) == "holds", (
        "a line without a rule is not counted"
    )


def test_a_rule_may_ask_that_two_intervals_lie_apart(project: Path) -> None:
    more = {"against": SHORT, "against_label": "the same under 3 min"}
    assert verdict(project, line(rule="low > against.high", **more)) == "holds"
    assert verdict(project, line(rule="high < against.low", **more)) == "not here"
    text = written(project, toml(CLAIM, line(rule="low > against.high", **more)))
    assert (
        "| two stages - dense | +0.300 [+0.200, +0.400] | 120 | low > +0.150, high of the same "
        "under 3 min | yes |" in text
    )


def test_another_file_may_be_compared_with(project: Path) -> None:
    write_result(project / "other", name="other", metrics={GOOD: Estimate(0.5, 0.45, 0.6, 50)})
    apart = line(rule="high < against.low", against=GOOD, against_result="other/result.json")
    assert verdict(project, apart) == "holds"


def test_untested_rows_say_so_and_may_show_numbers(project: Path) -> None:
    untested = {key: value for key, value in CLAIM.items() if key != "why"} | {
        "untested": "not tested yet: it takes notebook 12."
    }
    text = written(project, toml(untested, line("two_stage/5min/attended_kv_bytes", rule="")))
    assert "**not tested yet**" in text and "Not tested yet: it takes notebook 12." in text
    assert (
        "1.0 MiB (no interval)" in text
        and "shown only" in text
        and "1 rows: 1 not tested yet." in text
    )
    assert "](../data/result.json) | dev, 64 frames' worth | 3 |" in text


# --- no verdict without ground --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (
            line("two_stage/5min/attended_kv_bytes"),
            r"claims.toml, claim 'C1': 'two_stage/5min/attended_kv_bytes' has no interval",
        ),
        (
            line(rule="low > against.high", against="two_stage/5min/attended_kv_bytes"),
            "has no interval",
        ),
        (
            line("two_stage@64 - dense/gt10min/difference_of_r1@0.5"),
            "is over 19 questions, a verdict needs 20",
        ),
        (
            line("two_stage@64/all/speed"),
            "claims.toml, claim 'C1': data/result.json has no metric 'two_stage@64/all/speed'",
        ),
        (
            line() | {"result": "data/nowhere.json"},
            "claims.toml, claim 'C1': result file data/nowhere.json does not exist",
        ),
        (line() | {"colour": "red"}, "claims.toml, claim 'C1', evidence 1: unknown key 'colour'"),
        (line(rule="low >= 0"), "evidence 1: rule 'low >= 0' is not like 'low > 0'"),
        (line(rule="mean > 0"), "evidence 1: rule 'mean > 0' is not like"),
        (
            line(rule="low > against.high"),
            "evidence 1: key 'against' and a rule that names it come together",
        ),
        (line(against=GOOD), "evidence 1: key 'against' and a rule"),
        ({"result": "data/result.json", "label": "x"}, "evidence 1: key 'metric' is missing"),
        (
            {"result": "data/result.json", "metric": GOOD, "label": 3},
            "evidence 1: key 'label' must be text, not 3",
        ),
    ],
)
def test_bad_evidence_is_one_clear_error_and_nothing_is_written(
    project: Path, item: dict, says: str
) -> None:
    with pytest.raises(
        UserError, match=re.escape(says) if says.startswith("claims") else says
    ) as error:
        written(project, toml(CLAIM, item))
    assert "\n" not in str(error.value) and not (project / "figures" / "ledger.md").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"mood": "good"}, "claims.toml, claim 'C1': unknown key 'mood'"),
        ({"kind": "rumour"}, "kind 'rumour' is not one of claim, mechanism"),
        ({"why": "It gains 0.3."}, "'why' contains a digit"),
        ({"why": ""}, "expected evidence with a rule and a 'why', or 'untested'"),
        (
            {"untested": "not tested yet: later"},
            "expected evidence with a rule and a 'why', or 'untested'",
        ),
        ({"where": "09"}, "key 'where' must be a list of texts"),
        ({"said": 3}, "key 'said' must be text, not 3"),
    ],
)
def test_a_bad_claim_is_one_clear_error(project: Path, change: dict, says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        written(project, toml(CLAIM | change, line()))


def test_a_claim_without_rules_says_why_it_is_untested(project: Path) -> None:
    with pytest.raises(UserError, match="or 'untested'"):
        written(project, toml(CLAIM, line(rule="")))
    with pytest.raises(
        UserError,
        match="'untested' must begin with 'not tested yet: ' or 'cannot be tested here: '",
    ):
        written(project, toml(CLAIM | {"untested": "perhaps later"}))


def test_a_file_of_another_kind_a_claim_twice_and_a_failed_run_are_refused(project: Path) -> None:
    for text, says in (
        ("[[claim", "not valid TOML"),
        ("a = 1", "expected"),
        ("claim = [1]", "expected"),
        (toml(CLAIM, line()) * 2, "twice"),
    ):
        with pytest.raises(UserError, match=says):
            written(project, text)
    with pytest.raises(UserError, match="does not exist"):
        read_claims(project / "nowhere.toml")
    write_result(project / "data", name="made up", metrics=METRICS, status="failed")
    with pytest.raises(UserError, match="the run of data/result.json failed"):
        written(project, toml(CLAIM, line()))


def test_kinds_and_a_claim_are_plain_data() -> None:
    assert len(KINDS) == 9 and Claim("C1", "claim", "x", "y", ("09",)).evidence == ()


# --- the report writes it -------------------------------------------------------------------------


def test_the_report_writes_the_ledger_where_claims_are_kept(project: Path) -> None:
    readme = project / "README.md"
    readme.write_text("<!-- claim:begin -->\n<!-- claim:end -->\n", encoding="utf-8")
    report.write_claim(readme, project / "data" / "result.json")
    assert not (project / "figures" / "claims_ledger.md").exists()
    (project / "figures" / "claims.toml").write_text(toml(CLAIM, line()), encoding="utf-8")
    report.write_claim(readme, project / "data" / "result.json")
    ledger = project / "figures" / "claims_ledger.md"
    assert (
        "| [C1](#c1) | It is better. | holds | two stages - dense: +0.300 [+0.200, +0.400] |"
        in ledger.read_text(encoding="utf-8")
    )
    before = ledger.read_bytes()
    report.write_claim(readme, project / "data" / "result.json")
    assert ledger.read_bytes() == before
