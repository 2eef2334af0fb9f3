"""Answers as models write them, made at random: an interval in one of the formats, with one of the
separators, among words that name boxes, frames, steps, chapters and numbers of people.
"""

from __future__ import annotations

import json
import random
from typing import NamedTuple


class Made(NamedTuple):
    text: str
    expected: list[tuple[float, float]]
    options: dict[str, float]
    kind: str


DASHES = ["-", " - ", "–", " – ", "—", " — ", "\u2010", "\u2011", " \u2015 ", "\uff0d", "\u301c"]
DASHES += [" ~ ", "~", " -> ", " --> ", " → ", "−", "..", " ... "]
WORDS = [" to ", " until ", " till ", " through ", " up to "]
FPS = (10.0, 25.0, 30.0)
QUERIES = [
    "The person opens the box",
    "person puts the boxes on the shelf",
    "a man holds a picture frame",
    "person fixes the frames of the window",
    "the woman takes 2 steps to the door",
    "in step 3 of the recipe they cut the bread",
    "Chapter 2: the cook shakes the pan",
    "3 people enter the room",
    "between 3 and 5 people dance",
    "There are 3-5 people at the table",
    "person turns to page 5 of the book",
    "the scene 4 starts with a car",
    "Steps 1-3: cut the bread.",
    "the second man walks to the end of the room",
    "person starts the engine and stops",
    "a 5-year-old boy throws the ball",
    "player number 10 scores 2 points",
    "the man points at the index of the list",
    "person turns the light on",
    "someone runs at 10 km/h",
    "2 of 5 dogs bark",
    "question 7, option 2",
    "the third time the dog jumps",
    "he pays $5 for a coffee",
]
LEADS = ["", "The event happens ", "Answer: ", "It is shown ", "The moment is ", "**Answer:** "]
TAILS = ["", ".", " in the video.", " (high confidence).", "\n", "!", " of the clip"]


def clock(time_s: float, digits: int, hours: bool, comma: str = ".") -> str:
    whole, part = divmod(round(time_s * 10**digits), 10**digits)
    minutes, seconds = divmod(whole, 60)
    tail = f"{comma}{part:0{digits}d}" if digits else ""
    if hours:
        return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}{tail}"
    return f"{minutes:02d}:{seconds:02d}{tail}"


def _numbers(rng: random.Random) -> tuple[float, float]:
    """Rising seconds, in tenths or hundredths."""
    digits = rng.choice([1, 1, 2])
    start = round(rng.uniform(0, rng.choice([60, 300, 3000])), digits)
    return start, round(start + rng.uniform(0.5, 90), digits)


def _joined(rng: random.Random, a: str, b: str) -> str:
    if rng.random() < 0.15:
        return f"between {a} and {b}"
    lead = rng.choice(["", "from "]) if rng.random() < 0.5 else ""
    return lead + a + rng.choice(DASHES if rng.random() < 0.6 else WORDS) + b


def seconds(rng: random.Random) -> Made:
    a, b = _numbers(rng)
    unit = rng.choice(["", "s", " s", " seconds", " sec", "s"])
    first = unit if rng.random() < 0.6 else ""
    return Made(_joined(rng, f"{a}{first}", f"{b}{unit}"), [(a, b)], {}, "seconds")


def whole_seconds(rng: random.Random) -> Made:
    a = rng.randrange(3000)
    b = a + rng.randrange(1, 90)
    unit = rng.choice(["s", " s", " seconds"])
    first = unit if rng.random() < 0.6 else ""
    return Made(_joined(rng, f"{a}{first}", f"{b}{unit}"), [(a, b)], {}, "whole seconds")


def clocks(rng: random.Random) -> Made:
    a, b = _numbers(rng)
    digits, hours = rng.choice([1, 2, 3]), rng.random() < 0.4
    comma = rng.choice([".", ","])
    texts = [clock(t, digits, hours, comma) for t in (a, b)]
    pair = (round(a * 10**digits) / 10**digits, round(b * 10**digits) / 10**digits)
    return Made(_joined(rng, *texts), [pair], {}, "clock")


def milliseconds(rng: random.Random) -> Made:
    a, b = _numbers(rng)
    ms = [round(t * 1000) for t in (a, b)]
    unit = rng.choice(["ms", " ms", " milliseconds"])
    return Made(_joined(rng, f"{ms[0]}{unit}", f"{ms[1]}{unit}"), [(a, b)], {}, "milliseconds")


def spelled(rng: random.Random) -> Made:
    a, b = _numbers(rng)
    form = rng.choice(["{m} min {s} s", "{m}m{s}s", "{m} minutes and {s} seconds"])

    def told(t: float) -> str:
        return form.format(m=int(t // 60), s=f"{t % 60:.2f}".rstrip("0").rstrip("."))

    return Made(_joined(rng, told(a), told(b)), [(a, b)], {}, "spelled")


def frames(rng: random.Random) -> Made:
    fps = rng.choice(FPS)
    a = rng.randrange(3000)
    b = a + rng.randrange(1, 900)
    form = rng.choice(
        [
            "frames {}-{}",
            "frame {} to frame {}",
            "frames {} to {}",
            "{}-{} frames",
            "frames [{}, {}]",
        ]
        + ['{{"start_frame": {}, "end_frame": {}}}']
    )
    return Made(form.format(a, b), [(a / fps, b / fps)], {"fps": fps}, "frames")


def percent(rng: random.Random) -> Made:
    a = rng.randrange(90)
    b = a + rng.randrange(1, 11)
    form = rng.choice(["{}% to {}%", "{}-{}%", "from {} percent to {} percent", "{}% - {}%"])
    pair = (a * 200.0 / 100, b * 200.0 / 100)
    return Made(form.format(a, b), [pair], {"duration_s": 200.0}, "percent")


KEYS = [("start", "end"), ("start_time", "end_time"), ("start_s", "end_s"), ("begin", "end")]
KEYS += [("t_start", "t_end"), ("startTime", "endTime"), ("from", "to"), ("start_sec", "end_sec")]


def json_text(rng: random.Random) -> Made:
    windows = [_numbers(rng) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
    shape = rng.choice(["dict", "list", "scored", "dicts", "strings"])
    keys = rng.choice(KEYS)
    if shape == "list":
        value: object = [list(w) for w in windows] if len(windows) > 1 else list(windows[0])
    elif shape == "scored":
        value = {"pred_relevant_windows": [[*w, 0.5] for w in windows]}
    elif shape == "strings":
        value = [f"{a} - {b}" for a, b in windows]
    else:
        value = [dict(zip(keys, w, strict=True)) for w in windows]
        value = value[0] if len(value) == 1 else {"segments": value}
    text = json.dumps(value)
    if rng.random() < 0.3:
        text = f"```json\n{text}\n```"
    elif rng.random() < 0.2:
        text = text.replace('"', "'")
    return Made(text, list(dict.fromkeys(windows)), {}, "json")


def keyed(rng: random.Random) -> Made:
    a, b = _numbers(rng)
    form = rng.choice(
        [
            "starts at {} s and ends at {} s",
            "Start: {}, End: {}",
            "Start time: {}s\nEnd time: {}s",
            "begins at {} and finishes at {}",
            "<start>{}</start><end>{}</end>",
            "| start | end |\n|---|---|\n| {} | {} |",
            "[{}, {}]",
            "({}, {})",
            "[{}s, {}s]",
            "\\boxed{{[{}, {}]}}",
            "$\\boxed{{{} \\text{{ to }} {}}}$",
            "<time>{} to {}</time>",
            "<|begin_of_box|>{} - {}<|end_of_box|>",
        ]
    )
    return Made(form.format(a, b), [(a, b)], {}, "keyed")


FORMATS = [seconds, whole_seconds, clocks, milliseconds, spelled, frames, percent, json_text, keyed]


def surrounded(rng: random.Random, made: Made) -> str:
    query, text = rng.choice(QUERIES), made.text
    if made.kind not in ("json",) and "|" not in text:
        text = rng.choice(LEADS) + text + rng.choice(TAILS)
    shape = rng.randrange(6)
    if shape == 0:
        return f"<think>{query}: maybe 3 to 4.</think><answer>{text}</answer>"
    if shape == 1:
        return f"{query}: {text}"
    if shape == 2:
        return f"<answer>{text}</answer>"
    if shape == 3:
        return f"{query}.\n{text}"
    if shape == 4:
        return f'The query "{query}" is answered: {text}'
    return text


def make(rng: random.Random) -> Made:
    made = rng.choice(FORMATS)(rng)
    return made._replace(text=surrounded(rng, made))


def mutated(rng: random.Random) -> str:
    """A text with pieces cut, doubled and swapped: for what must not crash or hang."""
    text = make(rng).text * rng.choice([1, 1, 1, 2, 50])
    for _ in range(rng.randrange(1, 12)):
        a, b = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        b = min(b, a + 40)
        junk = rng.choice(
            ["", text[a:b] * 2, "[" * 30, "9" * 50, "<think>", "</answer>", '{"', "\\"]
        )
        text = text[:a] + rng.choice([junk, chr(rng.randrange(32, 0x3100)), "-1", ":"]) + text[b:]
    return text[:20_000]
