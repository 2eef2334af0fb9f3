"""The command that proves a card, proven on the CPU: it runs with torch, numpy and safetensors
alone, ends inside its minutes, isolates its stages, loses nothing and says what failed.
"""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from timescope_lite.bench_gpu import __main__ as command
from timescope_lite.bench_gpu import session as sessions
from timescope_lite.bench_gpu import stages
from timescope_lite.bench_gpu.checks import CHECKS
from timescope_lite.bench_gpu.models import features_of, segments_of, small_model
from timescope_lite.bench_gpu.oracles import ORACLES, error_of
from timescope_lite.bench_gpu.record import NOT_YET, TINY, Bench, CheckFailed, Report
from timescope_lite.bench_gpu.residency import alive_bytes, residency
from timescope_lite.bench_gpu.steps import steps
from timescope_lite.bench_gpu.timing import precisions_of
from timescope_lite.common import UserError, process_rss, progress_bar
from timescope_lite.memory import DVRStore, Memory
from timescope_lite.results import read_result
from timescope_lite.train import FramePhase, picture_pool
from timescope_lite.world.domain import load_domains

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")
# Imported by Python before anything else, in every process that the command starts.
ONLY_THREE = """
import sys
from importlib.machinery import PathFinder
REFUSED = {refused}
class Others(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        refused = name.partition(".")[0] in REFUSED
        return None if refused else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Others
"""
ABSENT = (
    "IPython av decord distributed ipywidgets jupyter_client matplotlib nbclient nbformat "
    "packaging pandas papermill psutil pytest seaborn tqdm transformers typer"
).split()


# --- device paths (on the CPU the command below runs the same functions) --------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("check", CHECKS)
def test_a_device_path_holds(check):
    CHECKS[check](torch.device("cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("oracle", ORACLES)
def test_an_oracle_holds_in_every_precision(oracle):
    if oracle == "the_plain_decoder_is_qwen3":
        pytest.importorskip("transformers", reason="the parity oracle needs transformers")
    for precision in precisions_of(torch.device("cuda")):
        error, tolerance = error_of(oracle, torch.device("cuda"), precision)
        assert error <= tolerance, precision


@pytest.mark.gpu
def test_a_pinned_reload_does_not_make_the_program_wait():
    """`put` and `prefetch` return while the card is still busy with what was asked before."""
    device = torch.device("cuda")
    memory = small_model(device).stream(segments_of(features_of(64)), 8, tier="pinned")
    big = torch.ones(8192, 8192, device=device)
    big = (big @ big).clamp(max=1.0)
    memory.dvr.prefetch(0, 3)  # room for a window on the side stream, which takes waiting once
    memory.dvr.reload(0, 3)
    torch.cuda.synchronize()
    for _ in range(20):
        big = (big @ big).clamp(max=1.0)
    memory.dvr.prefetch(0, 3)
    assert not torch.cuda.current_stream().query()
    memory.dvr.reload(0, 3)
    torch.cuda.synchronize()


def test_a_wrong_memory_is_found_out(monkeypatch):
    """The checks can fail: a store that forgets a segment, one that rounds."""
    joined = DVRStore._joined
    monkeypatch.setattr(DVRStore, "_joined", lambda self, a, b: joined(self, a, b).half().float())
    with pytest.raises(AssertionError, match="is not what was stored"):
        CHECKS["a_prefetched_window_is_the_window"](CPU)
    assert error_of("a_mask_in_training_is_a_reload_in_use", CPU, "fp32")[0] > 1e-5


# --- memory ---------------------------------------------------------------------------------------


def test_without_a_card_pinned_memory_is_ordinary_and_says_so():
    with pytest.warns(UserWarning, match="on cpu the DVR waits in ordinary memory"):
        store = DVRStore("pinned", CPU)
    assert store.tier == "host"
    with pytest.raises(UserError, match="expected one of device, host, pinned"):
        DVRStore("locked", CPU)


@pytest.mark.filterwarnings("ignore:pinned memory")
def test_a_pinned_memory_is_saved_and_loaded(tmp_path):
    model = small_model(CPU)
    memory = model.stream(segments_of(features_of(64)), 8, tier="pinned")
    memory.save(tmp_path)
    back = Memory.load(tmp_path, model)
    assert back.config.tier == "pinned"
    assert torch.equal(back.mixed(1, 2)[0].k, memory.mixed(1, 2)[0].k)


def test_a_window_that_is_prefetched_must_be_inside_the_video():
    memory = small_model(CPU).stream(segments_of(features_of(64)), 8)
    memory.dvr.prefetch(0, 3)
    with pytest.raises(UserError, match="is not inside the video's 0..3"):
        memory.dvr.prefetch(2, 4)


def test_a_memory_holds_what_is_counted():
    """No spare room after reading, no byte of the window twice."""
    memory = small_model(CPU).stream(segments_of(features_of(16 * 37)), 16)
    assert alive_bytes(memory.hvr) == memory.holistic.num_bytes
    window = 3, 9
    held = alive_bytes([*memory.hvr, *memory.mixed(*window, keep_hvr=False)])
    assert held == memory.counters(window, keep_hvr=False)["device_kv_bytes"]


def test_residency_fails_where_the_counts_differ(monkeypatch, tmp_path):
    report = Report()
    residency(Bench(CPU, TINY, tmp_path, report.take))
    assert report.numbers["window_back", "difference_share"] == (0.0, 1)
    assert "keys and values on a card by max_memory_allocated" in report.missing
    counters = Memory.counters
    twice = lambda *a, **k: {name: 2 * x for name, x in counters(*a, **k).items()}  # noqa: E731
    monkeypatch.setattr(Memory, "counters", twice)
    with pytest.raises(CheckFailed, match="window_back by 50.0%"):
        residency(Bench(CPU, TINY, tmp_path, report.take))


def test_operations_of_a_step_are_counted(tmp_path):
    """Six per weight and token, for the weights that all tokens pass, is the least."""
    report = Report()
    steps(Bench(CPU, replace(TINY, depths=(1,), repeats=1), tmp_path, report.take))
    frames, questions = 64, 16
    weights = report.numbers["depth=1", "parameters"][0] / 2  # without words and time codes
    assert report.numbers["depth=1", "step_flop"][0] > 6 * weights * (frames + 4 * questions) / 4
    assert report.numbers["depth=1", "step_seconds"][0] > 0


# --- without the other packages -------------------------------------------------------------------


def test_without_tqdm_and_psutil_there_is_a_silent_bar_and_a_peak(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    monkeypatch.setitem(sys.modules, "psutil", None)
    bar = progress_bar(total=3, desc="nothing")
    bar.update()
    bar.close()
    assert list(progress_bar([1, 2], desc="nothing")) == [1, 2]
    assert process_rss() > 50e6


def test_pictures_that_were_kept_are_those_that_are_drawn(tmp_path, monkeypatch):
    """Also by a run that was killed halfway, and also where every story has its own camera."""
    monkeypatch.setattr("timescope_lite.train.STORIES_PER_FILE", 2)
    for town in ("core", "all"):
        domains = list(load_domains(town).values())[:40:8]
        phase = FramePhase(stories=5, frames_per_story=16)
        keep = tmp_path / town
        whole = picture_pool(domains, phase, 0)
        first = picture_pool(domains, phase, 0, keep)
        assert len(list(keep.iterdir())) == 3
        sorted(keep.iterdir())[1].unlink()
        again = picture_pool(domains, phase, 0, keep)
        for a, b, c in zip(whole, first, again, strict=True):
            assert (a == b).all() and (a == c).all()


def run_command(python, out, minutes, path, *options):
    """Run the command as a user would; returns its exit status, output and seconds."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TIMESCOPE")}
    environment |= {"PYTHONPATH": os.pathsep.join(map(str, path)), "TIMESCOPE_DEVICE": "cpu"}
    started = time.monotonic()
    arguments = [*"-m timescope_lite.bench_gpu --out".split(), out, "--minutes", minutes, *options]
    done = subprocess.run(
        [str(python), *map(str, arguments)], capture_output=True, text=True, env=environment
    )
    return done.returncode, done.stdout + done.stderr, time.monotonic() - started


def expect_everything_but_a_card(out, status, said, seconds):
    """A run on the CPU: nothing failed, what needs a card is named, the time was kept."""
    assert status == 0, said
    assert said.rstrip().splitlines()[-1] == "nothing failed (8 stages on none)"
    assert "overlap of a pinned reload with computing (needs a CUDA device)" in said
    assert "the_plain_decoder_is_qwen3 in bf16 (needs transformers)" in said
    assert seconds < 180
    result = read_result(out / "result.json")
    assert (result.status, result.device, result.config["card"]) == ("finished", "cpu", "none")
    assert {row["status"] for row in result.config["stages"].values()} == {"finished"}
    assert result.metrics["cpu/training/done_share"].value == 1
    for key in (
        "cpu/streaming_is_parallel,fp16/largest_error",
        "cpu/copy,cpu_to_itself/bytes_per_second",
        "cpu/window_back/difference_share",
        "cpu/depth=2/matrix_rate_share",
        "cpu/shipped,frames=128/ground_seconds",
        "cpu/training/steps_done",
    ):
        assert key in result.metrics
    assert not any("pinned" in key for key in result.metrics if key.startswith("cpu/reload"))
    assert result.config[NOT_YET]


def test_it_runs_with_torch_numpy_and_safetensors_alone(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(ONLY_THREE.format(refused=ABSENT))
    out = tmp_path / "out"
    found = run_command(sys.executable, out, 3, [tmp_path, ROOT])
    expect_everything_but_a_card(out, *found)
    assert "no picture: matplotlib is not installed" in found[1]
    assert command.main(["--out", str(out), "--picture"]) == 0
    assert (out / "gpu.png").stat().st_size > 10_000


@pytest.mark.slow
def test_it_runs_in_an_environment_that_has_nothing_else(tmp_path):
    environment, unpacked = tmp_path / "env", tmp_path / "tree"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q"]
    versions = [f"torch=={torch.__version__.partition('+')[0]}", "numpy", "safetensors"]
    done = subprocess.run([*install, *versions], capture_output=True, text=True)
    if done.returncode and ("No matching distribution" in done.stderr or "Connect" in done.stderr):
        pytest.skip(f"the package index does not answer: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    listed = json.loads(
        subprocess.run(
            [python, "-m", "pip", "list", "--format", "json"], capture_output=True, check=True
        ).stdout
    )
    names = {row["name"].lower() for row in listed}
    assert not names & {"tqdm", "psutil", "av", "decord2", "typer", "matplotlib", "pytest"}
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "timescope_lite", unpacked / "timescope_lite", ignore=ignore)
    out = tmp_path / "out"
    expect_everything_but_a_card(out, *run_command(python, out, 3, [unpacked]))


# --- stages ---------------------------------------------------------------------------------------


def good(bench):
    bench.number("good", "seconds", 1.0)
    bench.not_measured("the moon", "too far")


def bad(bench):
    bench.number("bad", "seconds", 2.0)
    raise RuntimeError("an illegal memory access\nand more lines")


def dies(bench):
    bench.number("dies", "seconds", 3.0)
    os._exit(9)


def hangs(bench):
    bench.number("hangs", "seconds", 4.0)
    time.sleep(600)


@pytest.fixture
def staged(monkeypatch, tmp_path):
    """Other stages than the command's own, in forks, which see them; and how to run a session."""
    context = multiprocessing.get_context("fork")
    monkeypatch.setattr(stages, "_context", lambda: context)
    monkeypatch.setattr(sessions, "LEAST_S", 1.5)
    monkeypatch.setattr(sessions, "progress", lambda out, sizes, report: None)

    def run(minutes=0.2, again=False, **chosen):
        machine = stages.STAGES["machine"]
        table = {"machine": machine} | {name: (stage, 0.01) for name, stage in chosen.items()}
        monkeypatch.setattr(sessions, "STAGES", table)
        monkeypatch.setattr(stages, "STAGES", table)
        settings = stages.Settings("cpu", "tiny", tmp_path)
        session = sessions.Session(settings, minutes, time.monotonic())
        session.run(again)
        return session

    return run


def test_a_stage_that_fails_dies_or_hangs_ends_alone(staged, tmp_path, capsys):
    session = staged(bad=bad, dies=dies, hangs=hangs, good=good)
    statuses = {name: outcome.status for name, outcome in session.outcomes.items()}
    assert statuses == {
        "machine": "finished",
        "bad": "failed",
        "dies": "failed",
        "hangs": "stopped",
        "good": "finished",
    }
    assert session.failures() == {
        "bad": "RuntimeError: an illegal memory access",
        "dies": "its process ended with 9; see log.txt",
        "hangs": "stopped after 2 s, its share of the minutes",
    }
    result = read_result(tmp_path / "result.json")
    values = {key: metric.value for key, metric in result.metrics.items()}
    # What a stage measured before it ended is there.
    for number, name in enumerate(("good", "bad", "dies", "hangs"), start=1):
        assert values[f"cpu/{name}/seconds"] == number
    assert result.config[NOT_YET]["the moon"] == "too far"
    assert "and more lines" in (tmp_path / "log.txt").read_text()
    assert "bad         failed after" in capsys.readouterr().out


def test_the_hard_stop_is_the_calls_not_only_the_stages(staged):
    started = time.monotonic()
    session = staged(minutes=0.1, a=hangs, b=hangs, c=hangs, d=hangs, e=hangs)
    assert time.monotonic() - started < 0.1 * 60
    assert session.outcomes["e"].status == NOT_YET
    assert session.missing()["e"] == "no time was left"


def test_a_call_that_is_killed_leaves_the_stages_before(staged, monkeypatch, tmp_path):
    run = stages.run

    def killed(name, *rest):
        if name == "second":
            raise KeyboardInterrupt
        return run(name, *rest)

    monkeypatch.setattr(stages, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        staged(good=good, second=good)
    result = read_result(tmp_path / "result.json")
    assert result.status == "failed" and result.metrics["cpu/good/seconds"].value == 1
    assert result.config[NOT_YET]["second"] == "its stage has not run"
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_what_was_measured_is_kept_and_training_goes_on(staged, monkeypatch, tmp_path):
    staged(good=good, bad=bad, training=good)
    began = []
    run = stages.run
    monkeypatch.setattr(
        stages, "run", lambda name, *rest: (began.append(name), run(name, *rest))[1]
    )
    session = staged(good=good, bad=good, training=good)
    assert began == ["machine", "bad", "training"] and session.kept == {"good"}
    assert read_result(session.write("finished")).metrics["cpu/good/seconds"].value == 1
    began.clear()
    staged(again=True, good=good, bad=good, training=good)
    assert began == ["machine", "good", "bad", "training"]
    began.clear()
    monkeypatch.setattr(sessions, "git_commit", lambda: "another")
    staged(good=good, bad=good, training=good)
    assert began == ["machine", "good", "bad", "training"]


def test_the_result_of_another_run_is_not_overwritten(staged, tmp_path):
    session = staged(good=good)
    raw = json.loads(session.write("finished").read_text())
    (tmp_path / "result.json").write_text(json.dumps(raw | {"name": "scale"}))
    with pytest.raises(UserError, match="the result of a run called 'scale'; take another folder"):
        staged(good=good)


def test_a_wrong_call_is_one_line_and_exit_status_2(tmp_path, capsys):
    assert command.main(["--out", str(tmp_path), "--minutes", "0"]) == 2
    assert capsys.readouterr().err == "minutes is 0: expected 1 or more\n"
    (tmp_path / "file").write_text("")
    assert command.main(["--out", str(tmp_path / "file" / "below")]) == 2
    assert "choose another --out" in capsys.readouterr().err
    assert command.main(["--out", str(tmp_path / "nothing"), "--picture"]) == 2
