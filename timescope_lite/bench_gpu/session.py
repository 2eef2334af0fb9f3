"""One call of the command: every stage in turn, the result file after each, inside its minutes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timescope_lite.bench_gpu import stages
from timescope_lite.bench_gpu.record import NOT_YET, SIZES, Report
from timescope_lite.bench_gpu.stages import STAGES, Outcome, Settings
from timescope_lite.bench_gpu.training import progress
from timescope_lite.common import UserError, git_commit
from timescope_lite.results import Estimate, Result, read_result, write_result

NAME = "gpu"
LEAST_S = 30.0  # a stage that imports torch from a slow disk should not be stopped by its share
RESERVE_S = 8.0  # for the last file and the picture


@dataclass
class Session:
    """What this call has found so far. `began`: on the clock of `time.monotonic`."""

    settings: Settings
    minutes: float
    began: float
    reports: dict[str, Report] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)

    def run(self, again: bool = False) -> None:
        """All stages. Those that an earlier call into the same folder finished on this machine are
        kept, unless `again`: their time goes to the training.
        """
        earlier = None if again else earlier_result(self.settings)
        for name in STAGES:
            if name not in {"machine", "training"} and self._keep(name, earlier):
                say(name, "kept from an earlier call")
                continue
            self._one(name)
            if name == "machine" and earlier and not self._same_machine(earlier):
                say(name, "another machine or another version than in the earlier call: all anew")
                earlier = None

    def _one(self, name: str) -> None:
        report = self.reports[name] = Report()
        seconds = min(self._share(name), self.left_s)
        if seconds < 1:
            report.missing[name] = "no time was left"
            self.outcomes[name] = Outcome(NOT_YET, 0.0)
        else:
            self.outcomes[name] = stages.run(name, self.settings, seconds, report)
        if name == "training":
            progress(self.settings.out, SIZES[self.settings.sizes], report)
        outcome = self.outcomes[name]
        say(name, f"{outcome.status} after {outcome.seconds:.1f} s {outcome.error}".rstrip())
        self.write("failed")  # what a call that is killed leaves behind is not finished

    @property
    def left_s(self) -> float:
        """Seconds until everything must have ended, less what the last file takes."""
        total = 60 * self.minutes
        return total - min(RESERVE_S, 0.1 * total) - (time.monotonic() - self.began)

    def _share(self, name: str) -> float:
        """The most seconds that a stage may take."""
        share = STAGES[name][1]
        return max(LEAST_S, share * 60 * self.minutes)

    # --- what was measured before -----------------------------------------------------------------

    def _keep(self, name: str, earlier: Result | None) -> bool:
        """Take over a stage that an earlier call finished."""
        row = {} if earlier is None else earlier.config["stages"].get(name, {})
        if earlier is None or row.get("status") != "finished":
            return False
        report = Report(facts=row["facts"], missing=row["missing"])
        for key in row["numbers"]:
            _, bucket, metric = key.split("/")
            estimate = earlier.metrics[key]
            report.numbers[bucket, metric] = (estimate.value, estimate.n)
        self.reports[name] = report
        self.outcomes[name] = Outcome("finished", row["seconds"])
        self.kept.add(name)
        return True

    def _same_machine(self, earlier: Result) -> bool:
        """Whether the earlier numbers are of this card, this torch and this code."""
        facts = self.reports["machine"].facts
        before = earlier.config["stages"].get("machine", {}).get("facts")
        return facts == before and earlier.commit == git_commit()

    # --- the result -------------------------------------------------------------------------------

    def write(self, status: str) -> Path:
        """The result file, atomically."""
        metrics = {}
        rows: dict[str, Any] = {}
        for name in STAGES:
            report = self.reports.get(name, Report())
            outcome = self.outcomes.get(name, Outcome(NOT_YET, 0.0))
            numbers = []
            for (bucket, metric), (value, n) in report.numbers.items():
                key = f"{self.settings.device}/{bucket}/{metric}"
                metrics[key] = Estimate(value, n=n)
                numbers.append(key)
            rows[name] = {
                "status": outcome.status,
                "seconds": round(outcome.seconds, 2),
                "error": outcome.error,
                "kept": name in self.kept,
                "facts": report.facts,
                "missing": report.missing,
                "numbers": numbers,
            }
        config = {
            "minutes": self.minutes,
            "sizes": self.settings.sizes,
            "card": self.card,
            "stages": rows,
            NOT_YET: self.missing(),
        }
        out, wall_s = self.settings.out, time.monotonic() - self.began
        return write_result(
            out, name=NAME, metrics=metrics, config=config, seed=0, status=status, wall_s=wall_s
        )

    @property
    def card(self) -> str:
        """The name of the card, or "none"."""
        found = self.reports.get("machine", Report()).facts
        return str(found.get("card", NOT_YET))

    def missing(self) -> dict[str, str]:
        """Everything that was not measured, and why."""
        found = {name: "its stage has not run" for name in STAGES if name not in self.outcomes}
        for report in self.reports.values():
            found |= report.missing
        return found

    def failures(self) -> dict[str, str]:
        """Stages that fell short, and why. Training may be stopped: the next call goes on."""
        found = {}
        for name, outcome in self.outcomes.items():
            if outcome.status == "failed":
                found[name] = outcome.error
            if outcome.status == "stopped" and name != "training":
                found[name] = f"stopped after {outcome.seconds:.0f} s, its share of the minutes"
        return found


def earlier_result(settings: Settings) -> Result | None:
    """What an earlier call with the same sizes and device left in this folder."""
    path = settings.out / "result.json"
    if not path.is_file():
        return None
    try:
        result = read_result(path)
    except UserError:
        return None
    if result.name != NAME:
        raise UserError(
            f"{path} is the result of a run called {result.name!r}; take another folder with --out"
        )
    same = result.config.get("sizes") == settings.sizes and result.device == settings.device
    return result if same else None


def say(stage: str, words: str) -> None:
    """One line for whoever watches."""
    print(f"{stage:12}{words}", flush=True)
