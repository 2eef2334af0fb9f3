"""`python -m timescope_lite.bench_gpu --minutes 9 --out DIR`: see the package's head.

Exit status 0: every stage did what it should; 1: one did not, and the last line says which; 2: the
call itself was wrong.
"""

from __future__ import annotations

import time

BEGAN = time.monotonic()  # before torch is imported: the minutes are those of whoever waits

import argparse  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from pathlib import Path  # noqa: E402

from timescope_lite.common import UserError, pick_device  # noqa: E402
from timescope_lite.results import read_result  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = parse(arguments)
    try:
        return _picture(options.out) if options.picture else _measure(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of a call; exits with status 2 where one is unknown."""
    parser = argparse.ArgumentParser(
        prog="python -m timescope_lite.bench_gpu",
        description="What a card does, in one result file. Call it again with the same folder: "
        "what was measured is kept, and the minutes go to the training of the base model.",
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="everything ends inside them")
    parser.add_argument("--out", type=Path, required=True, help="folder of the result")
    parser.add_argument("--device", help="cuda or cpu; the best there is without it")
    parser.add_argument(
        "--sizes", choices=("full", "tiny"), help="full on a card, else tiny, without it"
    )
    parser.add_argument("--again", action="store_true", help="measure what was measured before")
    parser.add_argument(
        "--picture", action="store_true", help="only draw DIR/gpu.png from DIR/result.json"
    )
    return parser.parse_args(arguments)


def _measure(options: argparse.Namespace) -> int:
    from timescope_lite.bench_gpu.session import Session
    from timescope_lite.bench_gpu.stages import Settings

    if options.minutes < 1:
        raise UserError(f"minutes is {options.minutes:g}: expected 1 or more")
    if options.device:
        os.environ["TIMESCOPE_DEVICE"] = options.device
    device = _device()
    sizes = options.sizes or ("full" if device.startswith("cuda") else "tiny")
    out = options.out.absolute()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {out} ({error.strerror}); choose another --out") from None
    session = Session(Settings(device, sizes, out), options.minutes, BEGAN)
    session.run(options.again)
    failures = session.failures()
    path = session.write("failed" if failures else "finished")
    _picture(out)
    missing = session.missing()
    if missing:
        print("not measured yet: " + "; ".join(f"{what} ({why})" for what, why in missing.items()))
    print(f"result: {path}")
    if failures:
        print("failed: " + "; ".join(f"{name}: {error}" for name, error in failures.items()))
        return 1
    print(f"nothing failed ({len(session.outcomes)} stages on {session.card})")
    return 0


def _device() -> str:
    """cuda, mps or cpu. UserError for a device that is not there."""
    import torch

    try:
        device = pick_device()
        torch.zeros(1, device="cpu" if device.type == "cuda" else device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"no such device here ({str(error).splitlines()[0]})") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("torch sees no CUDA device; leave --device out, or install a CUDA build")
    return str(device)


def _picture(out: Path) -> int:
    from timescope_lite.bench_gpu.picture import picture

    if not picture(read_result(out / "result.json"), out / "gpu.png"):
        print("no picture: matplotlib is not installed (--picture draws it later)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
