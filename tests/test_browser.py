"""The explorer in a real browser: headless Chromium against a real JupyterLab. Run all, move the
controls by keyboard, read back what is shown.

Skipped where playwright or a Chromium is missing. Screenshots of the states go to
$TIMESCOPE_SCREENSHOTS, else to pytest's temporary folder.
"""

import base64
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = (
    "--disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
TOKEN = "explorer"
WAIT_MS = 60_000  # a machine that does other things too

pytestmark = [
    pytest.mark.skipif(
        BROWSER is None,
        reason="no chromium on the PATH (Debian: apt-get install --no-install-recommends chromium)",
    ),
    pytest.mark.skipif(
        importlib.util.find_spec("playwright") is None,
        reason="playwright is not installed (pip install playwright)",
    ),
    pytest.mark.skipif(
        importlib.util.find_spec("jupyterlab") is None,
        reason="jupyterlab is not installed (the extra lab)",
    ),
]

CELLS = [
    """import numpy as np
import torch
from timescope_lite.classroom.explorer import Setting, episode_of, explore, static_twin
from timescope_lite.model import TimeScope
from timescope_lite.world.domain import load_domains
from timescope_lite.world.story import tell
from timescope_lite.world.tasks import CORE_TASK_TYPES, ask
torch.set_num_threads(1)""",
    """story = tell(load_domains()["harbour"], 256, 7)
rng = np.random.default_rng(7)
questions = [q for q in (ask(story, kind, rng) for kind in CORE_TASK_TYPES) if q is not None]
episode = episode_of(TimeScope.from_pretrained("tiny"), story, questions)
tasks = list(episode.questions)""",
    "settings = Setting(tasks[0], margin=1), Setting(tasks[1], r=8, budget=96.0)\nexplorer = "
    "explore(episode, *settings)\nexplorer",
    "static_twin(episode, *settings, second=explorer.second.value)",
]


def wait_until_up(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(240):
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A JupyterLab of its own: (address, the folder that it shows)."""
    home = tmp_path_factory.mktemp("lab")
    folder = home / "notebooks"
    folder.mkdir()
    quiet = (
        home
        / "config"
        / "lab"
        / "user-settings"
        / "@jupyterlab"
        / "apputils-extension"
        / "notification.jupyterlab-settings"
    )
    quiet.parent.mkdir(parents=True)
    quiet.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {
        f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")
    }
    environment = (
        os.environ
        | places
        | {
            "OMP_NUM_THREADS": "1",
            "TIMESCOPE_DEVICE": "cpu",
            "TIMESCOPE_OUT": str(home / "out"),
            "IPYTHONDIR": str(home / "ipython"),
        }
    )
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        f"--port={port}",
    ]
    options = [
        f"--IdentityProvider.token={TOKEN}",
        "--LabApp.news_url=None",
        f"--ServerApp.root_dir={folder}",
        "--ServerApp.port_retries=0",
    ]
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, *options], env=environment, cwd=folder, stdout=log, stderr=log
        )
        try:
            wait_until_up(f"http://127.0.0.1:{port}", server, home / "log")
            yield f"http://127.0.0.1:{port}", folder
        finally:
            server.terminate()
            server.wait(30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS.split())
        yield browser
        browser.close()


def opened(browser: Any, lab: tuple[str, Path], name: str) -> Any:
    """A page with the notebook `name`, run from top to bottom; `page.said` collects what the
    console complains about.
    """
    page = browser.new_page(viewport={"width": 1500, "height": 2300})
    page.set_default_timeout(WAIT_MS)
    page.said = []
    page.on(
        "console",
        lambda message: page.said.append(message.text) if message.type == "error" else None,
    )
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.goto(f"{lab[0]}/lab/tree/{name}?token={TOKEN}&reset")
    run_all(page)
    return page


@pytest.fixture(scope="module")
def page(browser: Any, lab: tuple[str, Path]) -> Any:
    """A small notebook with the explorer and its static twin."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in CELLS], metadata=kernel
    )
    nbformat.write(book, lab[1] / "explorer.ipynb")
    page = opened(browser, lab, "explorer.ipynb")
    page.locator(".jp-CodeCell:nth-of-type(4) .jp-RenderedImage img").nth(2).wait_for()
    return page


def run_all(page: Any) -> None:
    """Run > Run All Cells, until the first explorer is there."""
    page.get_by_text(
        "Python 3 (ipykernel) | Idle"
    ).wait_for()  # the indicator of the notebook is idle before there is a kernel
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.get_by_label("A: question").wait_for(state="attached", timeout=3 * WAIT_MS)


def panel(page: Any, name: str) -> Any:
    """The innermost box that holds the controls of setting A or B."""
    return page.locator(".widget-vbox", has=page.get_by_label(f"{name}: question")).last


def cells(page: Any, name: str) -> dict[str, str]:
    """What the table of a setting says."""
    lines = panel(page, name).locator("tr").all()
    return {line.locator("th").inner_text(): line.locator("td").inner_text() for line in lines}


def picture_of(page: Any, name: str) -> bytes:
    return png(panel(page, name).locator("img"))


def png(image: Any) -> bytes:
    return base64.b64decode(image.get_attribute("src").split("base64,")[1])


def press(page: Any, label: str, *keys: str) -> float:
    """Move a labelled control by keyboard and wait until its panel has answered; returns the
    seconds that took.
    """
    status = panel(page, label[0]).locator("[role=status], [role=alert]")
    before = status.inner_text()
    page.get_by_label(label, exact=True).focus()
    started = time.perf_counter()
    for key in keys:
        page.keyboard.press(key)
    page.wait_for_function(
        "([label, before]) => [...document.querySelectorAll('[role=status], [role=alert]')]"
        ".some(e => e.innerText.startsWith(label) && e.innerText != before && "
        "!e.innerText.endsWith('...'))",
        arg=[label[:2], before],
    )
    return time.perf_counter() - started


def shoot(page: Any, name: str, folder: Path) -> None:
    """A screenshot of the explorer as it is now."""
    target = Path(os.environ.get("TIMESCOPE_SCREENSHOTS", folder))
    target.mkdir(parents=True, exist_ok=True)
    page.locator(".jp-CodeCell:nth-of-type(3) .jupyter-widgets").first.screenshot(
        path=target / f"{name}.png"
    )


def test_run_all_shows_both_settings_and_the_same_as_their_static_twin(
    page: Any, tmp_path: Path
) -> None:
    assert [cells(page, name)["setting"] for name in "AB"] == [
        "r = 16, margin 1, budget no limit",
        "r = 8, margin 0, budget 96 frames' worth",
    ]
    stills = page.locator(".jp-CodeCell:nth-of-type(3) .jupyter-widgets img").first
    twins = [
        png(image)
        for image in page.locator(".jp-CodeCell:nth-of-type(4) .jp-RenderedImage img").all()
    ]
    assert twins == [picture_of(page, "A"), picture_of(page, "B"), png(stills)]
    alts = [image.get_attribute("alt") for image in page.locator(".jupyter-widgets img").all()]
    assert len(alts) == 3 and all(len(alt) > 40 for alt in alts)
    shoot(page, "as_it_was_set", tmp_path)


# JupyterLab keeps bare up and down arrows for moving between cells: a list is opened with the space
# bar, or moved through by Home, End and pages.
@pytest.mark.parametrize(
    ("label", "keys", "row"),
    [
        ("A: question", ["Space", "ArrowDown", "Enter"], "question"),
        ("A: margin", ["End"], "reloaded"),
        ("A: budget", ["Home"], "attended KV"),
        ("B: r", ["Space", "ArrowDown", "Enter"], "memory"),
    ],
)
def test_a_control_moved_by_keyboard_answers_anew(
    label: str, keys: list[str], row: str, page: Any, tmp_path: Path
) -> None:
    own, other = label[0], "BA"["AB".index(label[0])]
    before, picture, beside = cells(page, own), picture_of(page, own), picture_of(page, other)
    took = press(page, label, *keys)
    said = panel(page, own).locator("[role=status]").inner_text()
    print(f"{label} {' '.join(keys)}: {took:.2f} s in the browser; {said}")
    assert "answered and drawn in" in said and ("r changes the memory" in said) == (
        label[3:] == "r"
    )
    assert (
        cells(page, own)[row] != before[row]
        and picture_of(page, own) != picture
        and picture_of(page, other) == beside
    )
    shoot(page, f"after_{label[3:]}", tmp_path)


def test_a_setting_that_cannot_be_is_told(page: Any, tmp_path: Path) -> None:
    press(page, "B: r", "End")  # r = 1: everything dense
    press(page, "B: budget", "Home")
    assert "no room to reload" in panel(page, "B").locator("[role=alert]").inner_text()
    assert panel(page, "B").locator("img, table").count() == 0
    shoot(page, "no_room", tmp_path)
    press(page, "B: budget", "End")
    assert panel(page, "B").locator("img").count() == 1 and cells(page, "B")["setting"].endswith(
        "no limit"
    )


def test_seconds_are_scrubbed_by_slider_and_by_number(page: Any, tmp_path: Path) -> None:
    still = page.locator(".jupyter-widgets img").first
    field = page.get_by_label("second", exact=True)
    at = int(field.input_value())
    page.locator(".noUi-handle").first.focus()
    for n in range(1, 4):
        page.keyboard.press("ArrowRight")
        page.wait_for_function(
            "alt => document.querySelector('.jupyter-widgets img').alt.includes(alt)",
            arg=clock(at + n),
        )
    assert field.input_value() == str(at + 3)
    field.fill("200")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "alt => document.querySelector('.jupyter-widgets img').alt.includes(alt)",
        arg="03:20  segment 12, frame 9 of 16",
    )
    assert still.get_attribute("alt").count("; 03:20  ") == 2
    shoot(page, "second_200", tmp_path)


def clock(second: int) -> str:
    return f"{second // 60:02}:{second % 60:02}  segment {second // 16}"


def test_the_reasoning_is_read_as_it_is_written(page: Any, tmp_path: Path) -> None:
    field = page.get_by_label("A: written", exact=True)
    total = int(field.get_attribute("max"))
    field.fill("1")
    page.keyboard.press("Enter")
    page.get_by_role("cell", name=f"1 of {total} steps.").wait_for()
    assert cells(page, "A")["answer"] == cells(page, "A")["coarse window"] == "not written yet"
    shoot(page, "one_word_written", tmp_path)
    field.fill(str(total))
    page.keyboard.press("Enter")
    page.get_by_role("cell", name=f"{total} of {total} steps.").first.wait_for()
    assert cells(page, "A")["answer"] != "not written yet"


def test_everything_is_reached_by_tab_in_the_order_in_which_it_stands(page: Any) -> None:
    page.get_by_label("second", exact=True).focus()
    reached = []
    for _ in range(14):
        reached.append(
            page.evaluate(
                "() => document.activeElement.labels?.[0]?.innerText ?? "
                "document.activeElement.getAttribute('role')"
            )
        )
        page.keyboard.press("Tab")
    named = [name for name in reached if name not in {"slider", None}]
    assert named == [
        "second",
        *(
            f"{n}: {what}"
            for n in "AB"
            for what in ("question", "r", "margin", "budget", "written")
        ),
    ]
    assert reached.count("slider") == 3


def test_the_console_complained_about_nothing(page: Any) -> None:
    assert page.said == []


@pytest.mark.slow
def test_lesson_07_runs_in_the_browser_with_its_explorer(
    browser: Any, lab: tuple[str, Path], tmp_path: Path
) -> None:
    shutil.copy(ROOT / "notebooks" / "07_progressive_grounding.ipynb", lab[1])
    page = opened(browser, lab, "07_progressive_grounding.ipynb")
    page.get_by_text(
        "Python 3 (ipykernel) | Idle"
    ).wait_for()  # the cells after the explorer have run too
    page.get_by_label("A: question").scroll_into_view_if_needed()
    before = cells(page, "B")["reloaded"]
    for label in ("B: question", "B: margin", "B: budget"):
        print(
            f"{label}: {press(page, label, 'End' if label != 'B: budget' else 'PageUp'):.2f} s in "
            "the browser"
        )
    assert cells(page, "B")["reloaded"] != before and cells(page, "A")["setting"].startswith(
        "r = 16, margin 0"
    )
    page.locator(".jupyter-widgets", has=page.get_by_label("A: question")).first.screenshot(
        path=tmp_path / "lesson_07.png"
    )
    assert (
        page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").count()
        == 0
    )
    assert page.said == []
    page.close()
