"""The stages, and how one is run: in a process of its own, until it ends or its time is up.

A process for each, since after an error on the card nothing more can be done there, and since a
kernel that hangs can be ended only from outside.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from timescope_lite.bench_gpu.checks import checks
from timescope_lite.bench_gpu.long_videos import long_videos
from timescope_lite.bench_gpu.machine import machine
from timescope_lite.bench_gpu.oracles import oracles
from timescope_lite.bench_gpu.rates import rates
from timescope_lite.bench_gpu.record import SIZES, Bench, Report
from timescope_lite.bench_gpu.residency import residency
from timescope_lite.bench_gpu.steps import steps
from timescope_lite.bench_gpu.training import training

LOG = "log.txt"
# Each stage with its share of the minutes at most; training takes what is left.
STAGES: dict[str, tuple[Callable[[Bench], None], float]] = {
    "machine": (machine, 0.05),
    "checks": (checks, 0.12),
    "oracles": (oracles, 0.14),
    "rates": (rates, 0.1),
    "residency": (residency, 0.08),
    "steps": (steps, 0.14),
    "long_videos": (long_videos, 0.15),
    "training": (training, 1.0),
}


@dataclass(frozen=True)
class Settings:
    """What a process is told; plain data, since it travels to another process."""

    device: str
    sizes: str
    out: Path


@dataclass(frozen=True)
class Outcome:
    """How a stage ended: `finished`, `failed` (see `error`) or `stopped` (its time was up)."""

    status: str
    seconds: float
    error: str = ""


def run(name: str, settings: Settings, seconds: float, report: Report) -> Outcome:
    """Run a stage for at most so many seconds; what it reports goes into `report` as it comes, so
    that of a stage that is ended early nothing is lost.
    """
    started = time.monotonic()
    context = _context()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_in_process, args=(name, settings, seconds, sender), daemon=True
    )
    process.start()
    sender.close()
    try:
        status, error = _listen(receiver, report, started + seconds)
        if status != "stopped":
            process.join(1.0)
    finally:
        _end(process)
    if status == "failed" and not error:
        error = f"its process ended with {process.exitcode}; see {LOG}"
    return Outcome(status, time.monotonic() - started, error)


def _context() -> Any:
    """Processes that start clean: a CUDA device cannot be used in a fork of a process that has used
    it. Where there is a fork server, it imports torch once for all stages.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _listen(receiver: Connection, report: Report, until: float) -> tuple[str, str]:
    """Collect lines until the stage says how it ended, dies or its time is up."""
    while True:
        left = until - time.monotonic()
        if left <= 0 or not receiver.poll(left):
            return "stopped", ""
        try:
            kind, name, value = receiver.recv()
        except EOFError:
            return "failed", ""
        if kind == "end":
            return name, value
        report.take(kind, name, value)


def _end(process: Any) -> None:
    """End a process that is still there: asked first, then not asked."""
    process.terminate()
    process.join(1.0)
    if process.is_alive():
        process.kill()
        process.join(1.0)


def _in_process(name: str, settings: Settings, seconds: float, sender: Connection) -> None:
    """The stage's own process: run it, send what it finds, and last how it ended."""
    if hasattr(signal, "alarm"):
        signal.alarm(math.ceil(seconds) + 5)  # whatever becomes of the process that waits for us
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # leave tidily if there is time
    os.environ["TIMESCOPE_DEVICE"] = settings.device  # what the library's `pick_device` says

    def send(kind: str, key: Any, value: Any) -> None:
        sender.send((kind, key, value))

    with (settings.out / LOG).open("a") as log, contextlib.redirect_stdout(log):
        try:
            work_alone(name, settings, send)
        except BaseException as error:
            traceback.print_exc(file=log)
            send("end", "failed", f"{type(error).__name__}: {_first_line(error)}")
        else:
            send("end", "finished", "")


def work_alone(name: str, settings: Settings, send: Callable[[str, Any, Any], None]) -> None:
    """Run a stage here and now."""
    bench = Bench(torch.device(settings.device), SIZES[settings.sizes], settings.out, send)
    STAGES[name][0](bench)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:300]
