"""The claims ledger: what the paper's summary says, what we measured, and a verdict that follows by
rule from the intervals in result files.

The claims are data (`figures/claims.toml`): one table per claim in our own words, with the metrics
that bear on it and a rule for each. No verdict is written by hand, and no number either: a claim
whose metrics change is judged anew by `timescope-lite report --record`.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timescope_lite.common import UserError, atomic_path, from_mapping
from timescope_lite.results import Estimate, Result, format_value, read_result

KINDS = (
    "claim",
    "mechanism",
    "trade-off",
    "failure signature",
    "experiment",
    "limitation",
    "open question",
    "next check",
    "quick check",
)
UNTESTED = ("not tested yet", "cannot be tested here")
VERDICTS = ("holds", "partly", "not here", *UNTESTED)
ENOUGH = 20  # questions: over fewer, an interval is shown but judges nothing
RULE = re.compile(r"(low|high) ([<>]) (?:(-?\d+(?:\.\d+)?)|against\.(low|high))")
INTRODUCTION = """# The claims, one by one

What the summary of TimeScope (arXiv 2509.26360) says, and what we measured. Written by `timescope-lite report --record` from [claims.toml](claims.toml) and the
result files that it names; not edited by hand. The metric behind every line is named in claims.toml.

How a verdict comes about: every counted line has a rule about the 95 % interval of its value (`low` and `high` are its ends).
All rules hold: **holds**. Some do: **partly**. None does: **not here**. Lines without a rule are shown and not counted.
A value without an interval, or over fewer than {enough} questions, judges nothing. A rule such as "low > 0.2, high of one stage" asks that two
intervals lie apart, which is stricter than a paired difference.

How to read it: we test the mechanism, not the paper's numbers. Our videos are simulated, our model is tiny, every system was trained once
(one seed). *Not here* says that we do not see it; it does not say that the paper is wrong. For a failure signature *holds* is bad news: it
shows here. Intervals come from resampling whole videos; over four videos (an hour, two hours) they are rough.

What to distrust: the rules were written when the numbers of one training seed were known. Three rows depend on what they count: C9 leaves out
two hops (too few questions), X1 and C5 the bucket under three minutes, in which no effect is seen. The rules stand for the seeds to come.
"""  # noqa: E501


@dataclass(frozen=True)
class Evidence:
    """One metric of a result file that bears on a claim. `rule` compares its `low` or `high` with a
    number or with `against.low`, `against.high`: the ends of another metric, of the same file
    unless `against_result` names one. Without a rule it is shown and not counted.
    """

    result: str
    metric: str
    label: str
    rule: str = ""
    against: str = ""
    against_label: str = ""
    against_result: str = ""


@dataclass(frozen=True)
class Claim:
    """One row of the ledger. `why` is our reading and contains no digits; `untested` begins with
    one of the verdicts UNTESTED; `note` says where the summary's numbers disagree with each other;
    `still_open` says what is yet to be measured.
    """

    id: str
    kind: str
    said: str
    confidence: str
    where: tuple[str, ...]
    why: str = ""
    untested: str = ""
    still_open: str = ""
    note: str = ""
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True)
class Line:
    """A piece of evidence with what was measured; `holds` is None where nothing is counted."""

    evidence: Evidence
    metric: Estimate
    bound: float | None = None
    holds: bool | None = None


def read_claims(path: Path) -> list[Claim]:
    """The claims in a TOML file of [[claim]] tables; UserError names file, claim and key of the
    first thing wrong.
    """
    try:
        raw = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"claims file {path} does not exist") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"claims file {path} is not valid TOML ({error})") from None
    if set(raw) != {"claim"} or not _is_list_of(raw["claim"], dict):
        raise UserError(f"claims file {path}: expected [[claim]] tables and nothing else")
    claims = [
        _claim(table, f"{Path(path).name}, claim {table.get('id', number)!r}")
        for number, table in enumerate(raw["claim"], start=1)
    ]
    twice = [name for name, times in Counter(claim.id for claim in claims).items() if times > 1]
    if twice:
        raise UserError(f"{Path(path).name}: claim {twice[0]!r} is there twice")
    return claims


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _claim(table: dict[str, Any], where: str) -> Claim:
    evidence = []
    for key, kind in (("where", str), ("evidence", dict)):
        if not _is_list_of(table.get(key, []), kind):
            raise UserError(
                f"{where}: key {key!r} must be a list of {'texts' if kind is str else 'tables'}"
            )
    for number, item in enumerate(table.get("evidence", []), start=1):
        evidence.append(
            _only_text(
                from_mapping(Evidence, item, f"{where}, evidence {number}"),
                f"{where}, evidence {number}",
            )
        )
        if bool(item.get("against")) != ("against." in item.get("rule", "")):
            raise UserError(
                f"{where}, evidence {number}: key 'against' and a rule that names it come together"
            )
        if item.get("rule") and not RULE.fullmatch(item["rule"]):
            raise UserError(
                f"{where}, evidence {number}: rule {item['rule']!r} is not like 'low > 0' or 'high "
                "< against.low'"
            )
    claim = from_mapping(
        Claim, table | {"evidence": tuple(evidence), "where": tuple(table.get("where", ()))}, where
    )
    _only_text(claim, where)
    counted = any(item.rule for item in claim.evidence)
    if claim.kind not in KINDS:
        raise UserError(f"{where}: kind {claim.kind!r} is not one of {', '.join(KINDS)}")
    if counted == bool(claim.untested) or (counted and not claim.why):
        raise UserError(f"{where}: expected evidence with a rule and a 'why', or 'untested'")
    if claim.untested and not claim.untested.startswith(
        tuple(f"{verdict}: " for verdict in UNTESTED)
    ):
        raise UserError(
            f"{where}: 'untested' must begin with "
            f"{' or '.join(repr(verdict + ': ') for verdict in UNTESTED)}"
        )
    if re.search(r"\d", claim.why):
        raise UserError(f"{where}: 'why' contains a digit; numbers come from the result files")
    return claim


def _only_text(item: Any, where: str) -> Any:
    for part in dataclasses.fields(item):
        value = getattr(item, part.name)
        if part.name not in {"where", "evidence"} and not isinstance(value, str):
            raise UserError(f"{where}: key {part.name!r} must be text, not {value!r}")
    return item


@dataclass
class Results:
    """Result files under `root`, each read once."""

    root: Path
    seen: dict[str, Result] = field(default_factory=dict)

    def metric(self, name: str, metric: str, where: str) -> Estimate:
        """A metric of the result file `name`; UserError if the file, or the metric in it, is not
        there or the run failed.
        """
        if name not in self.seen:
            if not (self.root / name).is_file():
                raise UserError(f"{where}: result file {name} does not exist")
            self.seen[name] = read_result(self.root / name)
        if self.seen[name].status != "finished":
            raise UserError(f"{where}: the run of {name} failed; a failed run shows nothing")
        if metric not in self.seen[name].metrics:
            raise UserError(f"{where}: {name} has no metric {metric!r}")
        return self.seen[name].metrics[metric]


def judge(claim: Claim, results: Results, file: str = "claims.toml") -> tuple[str, list[Line]]:
    """The verdict on a claim and its lines. UserError if a rule meets a metric without an interval,
    or one over fewer than ENOUGH questions.
    """
    lines = [_line(item, results, f"{file}, claim {claim.id!r}") for item in claim.evidence]
    if claim.untested:
        return claim.untested.split(":")[0], lines
    counted = [line.holds for line in lines if line.holds is not None]
    return ("holds" if all(counted) else "partly" if any(counted) else "not here"), lines


def _line(item: Evidence, results: Results, where: str) -> Line:
    metric = results.metric(item.result, item.metric, where)
    if not item.rule:
        return Line(item, metric)
    match = RULE.fullmatch(item.rule)
    assert match is not None  # read_claims refused every other rule
    side, sign, number, other = match.groups()
    bound = (
        float(number)
        if number
        else _end(
            results.metric(item.against_result or item.result, item.against, where),
            other,
            item.against,
            where,
        )
    )
    end = _end(metric, side, item.metric, where)
    return Line(item, metric, bound, end > bound if sign == ">" else end < bound)


def _end(metric: Estimate, side: str, name: str, where: str) -> float:
    end = metric.low if side == "low" else metric.high
    if end is None:
        raise UserError(
            f"{where}: {name!r} has no interval, so it can give no verdict; take its rule away or "
            "measure it with one"
        )
    if metric.n < ENOUGH:
        raise UserError(
            f"{where}: {name!r} is over {metric.n} questions, a verdict needs {ENOUGH}; take its "
            "rule away"
        )
    return end


def ledger_text(claims: Path, root: Path, up: str = "../") -> str:
    """The ledger of the claims in `claims`, judged by the result files under `root`, as markdown;
    `up` leads from its folder to `root`. UserError if a claim or a metric is not as it should be.
    """
    results = Results(Path(root))
    judged = [(claim, *judge(claim, results, Path(claims).name)) for claim in read_claims(claims)]
    count = Counter(verdict for _, verdict, _ in judged)
    parts = [
        INTRODUCTION.format(enough=ENOUGH),
        f"{len(judged)} rows: "
        + ", ".join(f"{count[v]} {v}" for v in VERDICTS if count[v])
        + ".\n",
    ]
    parts.append(
        _table(
            ["row", "what was said", "verdict", "key number"], [_overview(*row) for row in judged]
        )
    )
    parts.append("## Where the summary disagrees with itself, or with the paper\n")
    parts += [
        f"- [{claim.id}](#{claim.id.lower()}): {claim.note}" for claim, _, _ in judged if claim.note
    ]
    parts.append("\n## The result files\n")
    parts.append(
        _table(
            ["file", "what", "seed", "commit"],
            [_source(name, result, up) for name, result in sorted(results.seen.items())],
        )
    )
    return "\n".join([*parts, *(_section(*row, up) for row in judged)])


def write_ledger(claims: Path, out: Path, root: Path) -> Path:
    """Write `ledger_text` into `out`, a file one folder below `root`, atomically; returns `out`.
    Nothing is written if anything is wrong.
    """
    text = ledger_text(claims, root)
    with atomic_path(Path(out)) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(out)


def _table(header: list[str], rows: list[list[str]]) -> str:
    return (
        "\n".join([f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)])
        + "\n"
    )


def _overview(claim: Claim, verdict: str, lines: list[Line]) -> list[str]:
    key = next((line for line in lines if line.holds is not None), None)
    beside = f" ({_ruling(key)[0]})" if key and key.evidence.against else ""
    return [
        f"[{claim.id}](#{claim.id.lower()})",
        claim.said,
        verdict,
        f"{key.evidence.label}: {_measured(key)}{beside}" if key else "-",
    ]


def _source(name: str, result: Result, up: str) -> list[str]:
    config = result.config
    what = config.get("split") or config.get("point") or result.name
    budget = (
        config.get("budgets") or [config["budget"]]
        if "budget" in config or "budgets" in config
        else []
    )
    spent = f", {', '.join(f'{b:g}' for b in budget)} frames' worth" if budget else ""
    return [
        f"[{_short(name)}]({up}{name})",
        f"{what}{spent}",
        "-" if result.seed is None else str(result.seed),
        result.commit,
    ]


def _short(name: str) -> str:
    return name.removeprefix("data/results/").removesuffix("/result.json")


def _section(claim: Claim, verdict: str, lines: list[Line], up: str) -> str:
    where = (
        f"notebook{'s' if len(claim.where) > 1 else ''} {', '.join(claim.where)}"
        if claim.where
        else "no notebook"
    )
    parts = [
        f"## {claim.id}\n",
        f"**{verdict}** ({claim.kind}; {claim.confidence}; {where})\n",
        f"Said: {claim.said}\n",
    ]
    if lines:
        rows = [
            [
                line.evidence.label,
                _measured(line),
                str(line.metric.n),
                *_ruling(line),
                _link(line, up),
            ]
            for line in lines
        ]
        parts.append(_table(["measured", "value and 95 % interval", "n", "rule", "", "file"], rows))
    parts += [claim.why + "\n"] if claim.why else []
    parts += [claim.untested[:1].upper() + claim.untested[1:] + "\n"] if claim.untested else []
    parts += [f"Still open: {claim.still_open}\n"] if claim.still_open else []
    return "\n".join(parts)


def _link(line: Line, up: str) -> str:
    return f"[{_short(line.evidence.result)}]({up}{line.evidence.result})"


def _ruling(line: Line) -> tuple[str, str]:
    if line.holds is None or line.bound is None:
        return "shown only", ""
    rule = line.evidence.rule
    if line.evidence.against:
        end = rule.rsplit(".", 1)[1]
        rule = (
            f"{rule.split(' against')[0]} {_number(line.evidence.against, line.bound)}, {end} of "
            f"{line.evidence.against_label or line.evidence.against}"
        )
    return rule, "yes" if line.holds else "no"


def _measured(line: Line) -> str:
    value, low, high = (
        _number(line.evidence.metric, number)
        for number in (line.metric.value, line.metric.low, line.metric.high)
    )
    return f"{value} [{low}, {high}]" if line.metric.low is not None else f"{value} (no interval)"


def _number(metric: str, value: float | None) -> str:
    """A number as people read it: differences with a sign, frames with one decimal, the rest as in
    the report.
    """

    unit = metric.rsplit("/", 1)[-1]
    if value is None or not unit.startswith("difference_of") and not unit.endswith("frames"):
        return format_value(unit, value)
    return f"{value:+.3f}" if unit.startswith("difference_of") else f"{value:.1f}"
