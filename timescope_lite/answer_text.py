"""Times and ranges out of a model's answer text: where to look, a tokenizer, quantities with their
units, then a small grammar of ranges. Every step passes over the text once.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

SECONDS_IN = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
MOST_NESTED = 50  # levels of JSON
NEAR = 14  # tokens that may stand between "starts" and its time


class Span(NamedTuple):
    """Two numbers that an answer states as a range. `kind`: "time" (seconds), "frame", "percent" or
    "other" (steps, people, years); `rank`: 0 clock, 1 sure, 2 bare integers, 3 bare integers that
    seem to count something; `unit`: of the numbers as written, "" if none was.
    """

    start: float
    end: float
    kind: str
    rank: int = 1
    unit: str = ""


def read_answer(
    text: str, duration_s: float | None = None, fps: float | None = None
) -> tuple[list[tuple[float, float]], bool]:
    """Ranges in seconds, as written (reversed or negative ones too), in order; and whether the text
    says that there is nothing to be found.

    Frames count only with `fps`, percentages only with `duration_s`, and both only where the text
    states no seconds.
    """
    missing = False
    for scope in _scopes(normalised(text)):
        found = _in_seconds(_spans_of(scope), duration_s, fps)
        pairs = [pair for pair in found if not (pair[0] == pair[1] < 0)]
        missing = missing or len(pairs) < len(found) or says_absent(scope)
        if pairs:
            return list(dict.fromkeys(pairs)), False
    return [], missing


def _in_seconds(
    spans: Sequence[Span], duration_s: float | None, fps: float | None
) -> list[tuple[float, float]]:
    """Spans of the first kind that is there and can be told in seconds."""
    scale = {
        "time": 1.0,
        "frame": 1 / fps if fps else None,
        "percent": duration_s / 100 if duration_s else None,
    }
    for kind, factor in scale.items():
        pairs = [(span.start, span.end) for span in spans if span.kind == kind]
        if pairs and factor is not None:
            return [(start * factor, end * factor) for start, end in pairs]
    return []


# ---- where to look ----

_TAG = re.compile(
    r"[<◁](?P<closing>/?)(?:(?P<think>think(?:ing)?|thought|reasoning|analysis)|(?P<answer>answer))"
    r"\s*[>▷]",
    re.I,
)
_BOXED = re.compile(r"<\|begin_of_box\|>(.{0,4000}?)<\|end_of_box\|>", re.S)
_LAST_WORD = re.compile(
    r"final answer\s*(?:is|:|=)|^[ \t>#*]{0,8}answer\s?[*]{0,2}\s?:", re.I | re.M
)
_TIME_TAG = re.compile(r"</?(?:time|times|timestamps?|glue|interval|segment|window|span)\s*>", re.I)


def _scopes(text: str) -> Iterator[str]:
    """The parts of an answer that may be read, best first: what it calls its last word, then the
    last closed <answer> block (one outside the reasoning before one inside), or without a block all
    but the reasoning, which ends at </think> even if the prompt opened it.
    """
    spoken, before_thinking = _spoken(text)
    blocks = _closed_blocks(spoken) or _closed_blocks(text)
    scope = blocks[-1] if blocks else before_thinking.rpartition("\0")[2]
    if blocks and not re.search(r"\d", scope) and not says_absent(scope):
        # A choice in the block and the time beside it: <answer>B</answer><time>5 to 9</time>
        tags = list(_TIME_TAG.finditer(spoken))
        yield spoken[tags[0].start() : tags[-1].end()] if len(tags) > 1 else scope
        return
    for boxed in (_BOXED.findall(scope)[-1:], _latex_boxes(scope)[-1:]):
        yield from boxed
    if marks := list(_LAST_WORD.finditer(scope)):
        yield scope[marks[-1].end() :]
    yield scope


def _spoken(text: str) -> tuple[str, str]:
    """A text without its closed reasoning; and the same up to reasoning that is never closed, with
    each <answer> that stands open as a NUL.
    """
    parts: list[str] = []
    at, opened = 0, -1
    for tag in _TAG.finditer(text):
        if not tag["think"]:
            continue
        if not tag["closing"] and opened < 0:
            parts.append(text[at : tag.start()])
            opened = tag.start()
        elif tag["closing"]:
            if opened < 0:
                parts = []
            at, opened = tag.end(), -1
    closed = " ".join(parts)
    if opened >= 0:
        return closed + text[opened:], _answer_opens(closed)
    whole = " ".join([*parts, text[at:]])
    return whole, _answer_opens(whole)


def _answer_opens(text: str) -> str:
    return _TAG.sub(lambda tag: "\0" if tag["answer"] and not tag["closing"] else " ", text)


def _closed_blocks(text: str) -> list[str]:
    blocks, opened = [], -1
    for tag in _TAG.finditer(text):
        if tag["answer"] and not tag["closing"]:
            opened = tag.end()
        elif tag["answer"] and opened >= 0:
            blocks.append(text[opened : tag.start()])
            opened = -1
    return blocks


def _latex_boxes(text: str) -> list[str]:
    r"""What stands in \boxed{...}, braces inside included."""
    found = []
    for box in list(re.finditer(r"\\boxed\s*\{", text))[-5:]:
        depth = 1
        for brace in re.compile(r"[{}]").finditer(text, box.end(), box.end() + 2000):
            depth += 1 if brace[0] == "{" else -1
            if depth == 0:
                found.append(text[box.end() : brace.start()])
                break
    return found


# ---- one spelling for many ----

_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u202a\u202c\u202d"))
_ARROWS = "→⇒⟶⟹↔➔➜➡⇨⟼↦"
_MARKUP = (
    (r"(?<=\d)\u00ad(?=\d)", "-"),  # a soft hyphen between digits
    (r"\u00ad", ""),
    (r"\s*[\u2014\u2015\u2e3a\u2e3b]\s*", " -- "),  # a long dash: also a break in a sentence
    (rf"[\u2212\u223c\u301c\u3030{_ARROWS}]", "-"),
    (r"\\(?:left|right|displaystyle|bigl?|bigr)(?![a-zA-Z])", ""),
    (r"\\(?:to|rightarrow|longrightarrow|Rightarrow)(?![a-zA-Z])", " to "),
    (r"\\(?:approx|sim)(?![a-zA-Z])", " about "),
    (r"\\(?:text|mathrm|mathbf|textbf|fbox|operatorname)\s?\{([^{}]*)\}", r" \1 "),
    (r"\\(?:quad|qquad|[,;:! ])", " "),
    (r"\\([%#&_{}\[\]()])", r" \1"),
    (r"\$(?=\S)([^$\n]{1,200}?)(?<=[\w\]})%])\$(?!\d)", r" \1 "),  # $12.5$, but not $5 to $9
    (r"(?:<=?|≤)\s?(?:t|x|time)\s?(?:<=?|≤)", " to "),
    (r"[*`\"\u201c\u201d\u2018\u2019](?=\d)|(?<=[\ds])[*`\u201c\u201d\u2018\u2019]", " "),
)
_MARKUP_RULES = [(re.compile(pattern), new) for pattern, new in _MARKUP]


def normalised(text: str) -> str:
    """A text with compatible characters in one spelling: full-width digits, kinds of dashes and
    spaces, invisible marks.
    """
    text = text.translate(_INVISIBLE).replace("\0", " ")
    for mark in "\u2014\u2015\u2e3a\u2e3b":
        text = text.replace(mark, "\u2014")
    text = unicodedata.normalize("NFKC", text)
    text = "".join(
        "-" if char not in "-\u2014" and unicodedata.category(char) == "Pd" else char
        for char in text
    )
    # One space for many, so that no pattern below walks over long runs of them again and again.
    text = re.sub(r"[^\S\n]+", lambda run: "\t" if "\t" in run[0] else " ", text)
    return re.sub(r"\n[\s]+", "\n", text)


def _without_markup(text: str) -> str:
    for pattern, new in _MARKUP_RULES:
        text = pattern.sub(new, text)
    text = re.sub(r"<\|[^<>|]{0,40}\|>", " ", text)
    text = re.sub(r"</[a-zA-Z][^<>]{0,60}>", " ", text)
    text = re.sub(r"<([a-zA-Z][\w-]{0,40})([^<>]{0,200})>", r" \1 \2 ", text)
    text = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", text)  # startTime, start_time
    # A comma beside a decimal point or a colon is no decimal comma.
    return re.sub(r"(\.\d+),(?=\d)|,(?!\d{3}\.\d)(?=\d+[.:]\d)", r"\1, ", text)


# ---- tokens ----


class Token(NamedTuple):
    """`kind`: clock, frames (a clock with a frame number), number, other (a number that is no
    time), word, dash, mark. `glued`: no space before it.
    """

    kind: str
    text: str
    glued: bool
    line: int


_LEX = re.compile(
    r"(?P<iso>(?<!\w)PT(?=\d)(?:\d+H)?(?:\d+M)?(?:\d+(?:\.\d+)?S)?(?!\w))"
    # dates, dotted versions and addresses, fractions, telephone numbers
    r"|(?P<other>\d{4}-\d\d-\d\d(?:T[\d:.]++Z?)?|\(\d+\)\s?\d+-\d+|\d++(?:\.\d++){2,}"
    r"|\d++(?:/\d++)+|\d++(?:[.,]\d++)?(?:-\d++(?:[.,]\d++)?){2,})"
    r"|(?P<frames>\d{1,2}:[0-5]\d:[0-5]\d[:;]\d\d(?![\d:]))"
    r"|(?P<clock>\d{1,3}:[0-5]\d(?::[0-5]\d)?(?:[.,]\d+)?(?![\d:/]|[.,]\d))"
    r"|(?P<prime>\d{1,3}['\u2032]\s?[0-5]?\d(?:\.\d+)?(?:''|[\"\u2033]|\u2032\u2032))"
    r"|(?P<ratio>\d++(?::\d++)+(?:[.,]\d+)?)"
    r"|(?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|\d++(?:[.,]\d+)?|\.\d+)"
    r"|(?P<name>(?<!\d)[^\W\d_\u3040-\u30ff\u4e00-\u9fff]++\d[\w.]*)"  # v1.2, x264
    r"|(?P<halfday>[apAP]\.\s?[mM]\.?)"
    r"|(?P<cjk>毫秒|秒钟?|分钟?|小时|帧|到|至|从|第|在|之间|和|[\u3040-\u30ff\u4e00-\u9fff])"
    r"|(?P<word>[^\W\d_\u3040-\u30ff\u4e00-\u9fff]+(?:'[^\W\d_]+)?)"
    r"|(?P<dash>-{1,3}>?|=>|~|\.{2,})"
    r"|(?P<mark>\S)"
)
_SAME = {"iso": "iso", "prime": "prime", "halfday": "word", "cjk": "word", "ratio": "other"}
_CJK = {
    "毫秒": "ms",
    "秒": "s",
    "秒钟": "s",
    "分": "min",
    "分钟": "min",
    "小时": "h",
    "帧": "frames",
    "到": "to",
    "至": "to",
    "从": "from",
    "和": "and",
    "第": "the",
    "在": "at",
}


def _tokens(text: str) -> list[Token]:
    found, end, line = [], 0, 0
    for match in _LEX.finditer(text):
        kind = match.lastgroup or "mark"
        gap = text[end : match.start()]
        line += gap.count("\n")
        written = _CJK.get(match[0], match[0]).lower() if kind != "iso" else match[0]
        if kind == "name":
            kind = "other"
        if match[0] not in "\"'`*":
            kind = _SAME.get(kind, kind)
            found.append(Token(kind, written, end == match.start() and end > 0, line))
        end = match.end()
    return found


# ---- quantities ----

_UNIT_WORDS = {
    "h": "h hr hrs hour hours stunde stunden heure heures hora horas",
    "m": "m min mins minute minutes minuten minuto minutos",
    "s": "s sec secs second seconds sek sekunde sekunden seconde secondes segundo segundos",
    "ms": "ms msec msecs millis millisecond milliseconds",
}
UNITS = {word: unit for unit, words in _UNIT_WORDS.items() for word in words.split()}
_FRAMES = {"frame", "frames", "fr"}
_ORDINALS = {"st", "nd", "rd", "th"}
_PERCENT = {"%", "percent", "pct", "percents"}
_MONTHS = (
    "jan january feb february mar march apr april may june jun july jul aug august sep sept "
    "september oct october nov november dec december"
)
# Behind a number: what it counts, if not seconds.
_OTHER_UNITS = set(
    "° = year years yr yrs yo day days week weeks month months fps hz khz px pixel pixels people "
    "persons person times step steps page pages point points degree degrees meter meters metre "
    "metres km cm mm kg g kilometers dollars dollar euros euro am pm a.m. p.m. a.m p.m o'clock "
    "cents men women kids children boys girls dogs cats cars balls boxes chapters scenes shots "
    "levels items pieces rounds players goals feet inches miles kb mb gb x".split()
) | set(_MONTHS.replace(" may ", " ").split())
# Before a whole number: what is numbered.
_NOUNS = set(
    "step steps page pages version versions v chapter chapters segment segments scene scenes shot "
    "shots clip clips part parts room rooms number numbers no item items line lines year years age "
    "ages aged option options question questions level levels phone call tel dial people persons "
    "players boxes figure figures fig section sections".split()
) | set(_MONTHS.split())
_SHORT = set("no fig tel p v vol ch jan feb mar apr jun jul aug sep sept oct nov dec".split())
_SOFT_NOUNS = set("segment segments scene scenes shot shots clip clips part parts".split())


@dataclass(frozen=True)
class Quantity:
    """A number with what it counts: `value` in seconds where `unit` says so, else as written."""

    value: float
    unit: str  # h, m, s, ms, clock, mixed, or "" for a bare number
    kind: str = "time"
    whole: bool = False  # written without a decimal part
    soft: bool = False  # numbered by a noun that may as well stand beside a time
    halves: tuple[Quantity, Quantity] | None = None  # the two that an "and" joined
    line: int = 0

    @property
    def is_bare(self) -> bool:
        """Whether it may take its partner's unit."""
        return self.unit == "" and self.kind == "time"


Item = Token | Quantity


def _number(text: str) -> float:
    """The value of a number token; NaN for 1,200 (thousands or decimals?) and the infinite."""
    if re.fullmatch(r"\d{1,3}(?:,\d{3})+", text) and text.count(",") == 1:
        return math.nan
    plain = text.replace(",", "") if "." in text or text.count(",") > 1 else text.replace(",", ".")
    value = float(plain)
    return value if math.isfinite(value) else math.nan


def _clock_seconds(text: str) -> float:
    fields = [float(number) for number in re.findall(r"[\d.]+", text.replace(",", "."))]
    return sum(number * 60.0**power for power, number in enumerate(reversed(fields)))


class _Quantifier:
    """Tokens to items: numbers become quantities with the units and nouns around them."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens, self.at, self.items = tokens, 0, list[Item]()

    def run(self) -> list[Item]:
        """All items of the text."""
        while self.at < len(self.tokens):
            self.items.append(self._next())
        return self.items

    def _peek(self, ahead: int = 0) -> Token:
        at = self.at + ahead
        return self.tokens[at] if at < len(self.tokens) else Token("end", "", False, -1)

    def _next(self) -> Item:
        token, following = self._peek(), self._peek(1)
        if token.kind == "dash" and token.text == "-" and self._is_sign(following):
            self.at += 1
            positive = self._quantity()
            return replace(positive, value=-positive.value)
        if token.kind in ("number", "clock", "frames", "prime", "iso", "other"):
            return self._quantity()
        if token.kind == "word" and token.text in UNITS and following.kind == "number":
            return self._unit_first(UNITS[token.text])
        self.at += 1
        return token

    def _is_sign(self, following: Token) -> bool:
        if following.kind != "number" or not following.glued:
            return False
        last = self.items[-1] if self.items else None
        if isinstance(last, Token) and last.kind == "word" and self._peek().glued:
            return False  # COVID-19
        return not isinstance(last, Quantity) and not (
            isinstance(last, Token) and last.text in ")]>"
        )

    def _unit_first(self, unit: str) -> Quantity | Token:
        """second 412, minutes 5 to 9."""
        token = self._peek()
        self.at += 1
        if len(token.text) < 3:  # "s 5" is the end of something else
            return token
        found = self._quantity()
        if found.is_bare:
            return replace(found, value=found.value * SECONDS_IN[unit], unit=unit)
        return found

    def _quantity(self) -> Quantity:
        token = self._peek()
        before = self.items[-1] if self.items else None
        no_time = self._spoilt_before(token, before)
        self.at += 1
        if token.kind in ("other", "frames"):  # 00:00:05:12: how long a frame is it does not say
            found = Quantity(0.0, "", "other")
        elif token.kind == "iso":
            found = self._iso(token.text)
        elif token.kind in ("clock", "prime"):
            found = self._clock(token)
        else:
            found = self._counted(token)
        found = replace(found, line=token.line)
        return replace(found, kind="other") if no_time else self._numbered(found, before)

    def _spoilt_before(self, token: Token, before: Item | None) -> bool:
        """$5, #5, COVID-19, and digits that hang on a word."""
        if not isinstance(before, Token) or not token.glued:
            return False
        if before.kind == "word" and before.text not in ("to", "the", "at", "from"):
            return True
        if before.text in "$€£¥#" or before.text == ":" and self._glued_number_before():
            return True
        hangs = before.text == "-" and before.glued and len(self.items) > 1
        word = self.items[-2] if hangs else None
        return isinstance(word, Token) and word.kind == "word" and word.text not in _TO

    def _glued_number_before(self) -> bool:
        return (
            len(self.items) > 1
            and isinstance(self.items[-2], Quantity)
            and isinstance(self.items[-1], Token)
            and self.items[-1].glued
        )

    def _clock(self, token: Token) -> Quantity:
        value, unit = _clock_seconds(token.text), UNITS.get(self._peek().text, "")
        if self._peek().text in ("am", "pm", "a.m.", "p.m.", "a.m", "p.m", "o'clock"):
            return Quantity(value, "clock", "other")
        if unit:
            self.at += 1
            value *= 60 if unit == "h" and token.text.count(":") == 1 else 1  # 1:05 h
        return Quantity(value, "clock", whole="." not in token.text)

    def _iso(self, text: str) -> Quantity:
        pieces = re.findall(r"([\d.]+)([HMS])", text)
        return Quantity(sum(float(n) * SECONDS_IN[u.lower()] for n, u in pieces), "mixed")

    def _counted(self, token: Token) -> Quantity:
        """A number and the unit behind it."""
        value = _number(token.text)
        whole = token.text.isdigit()
        if math.isnan(value):
            return Quantity(0.0, "", "other")
        kind, unit = self._unit(token)
        if kind == "ordinal":
            return Quantity(value, "", "other", whole, soft=True)
        if kind != "time" or not unit:
            return Quantity(value, "", kind, whole)
        return self._compound(Quantity(value * SECONDS_IN[unit], unit, whole=whole))

    def _unit(self, number: Token) -> tuple[str, str]:
        """What follows a number: (kind, unit); the unit's tokens are consumed."""
        following, hyphened = self._peek(), 0
        if following.text == "-" and following.glued and self._peek(1).glued:
            hyphened, following = 1, self._peek(1)  # 5-second, 5-year-old
        if following.kind != "word" and following.text not in "%°=":
            return "time", ""
        kind = _kind_of_unit(following.text)
        if following.text == "per" and self._peek(hyphened + 1).text == "cent":
            kind, hyphened = "percent", hyphened + 1
        if kind == "time":
            self.at += 1 + hyphened
            return "time", UNITS[following.text]
        hangs = following.glued and following.kind == "word"
        if hangs and following.text in _ORDINALS:
            return self._ordinal()
        if kind == "" and hangs and following.text not in _TO:
            kind = "other"  # 5th, 12px, 3D, 3-person
        if kind:
            self.at += 1 + hyphened
        return kind or "time", ""

    def _ordinal(self) -> tuple[str, str]:
        """12th second; of 12th to 18th second the first only once the second is read."""
        unit = UNITS.get(self._peek(1).text, "")
        self.at += 2 if unit else 1
        return ("time", unit) if unit else ("ordinal", "")

    def _compound(self, first: Quantity) -> Quantity:
        """2 min 5 s, 2 minutes and 5 seconds, 1h02m03s, 1 min 30."""
        order = list(SECONDS_IN)
        while first.kind == "time":
            start, joined = self.at, self._peek().text in (",", "and")
            if joined:
                self.at += 2 if (self._peek().text, self._peek(1).text) == (",", "and") else 1
            number = self._peek()
            small = _number(number.text) if number.kind == "number" else math.nan
            follower = self._peek(1)
            unit = UNITS.get(follower.text, "") if follower.kind == "word" else ""
            last = first.unit if first.unit in SECONDS_IN else self._smallest
            if not joined and self._is_tail(number, follower, last):
                unit, width = order[order.index(last) + 1], 1
            else:
                width = 2
            fits = unit and order.index(unit) > order.index(last)
            if not fits or not small < (1000 if unit == "ms" else 60):
                self.at = start
                return first
            self.at += width
            second = Quantity(small * SECONDS_IN[unit], unit)
            halves = (first, second) if joined else None
            self._smallest = unit
            first = Quantity(first.value + second.value, "mixed", halves=halves)
        return first

    _smallest = "s"

    def _is_tail(self, number: Token, follower: Token, last: str) -> bool:
        """Whether a bare number goes on with the next smaller unit: 1 min 30, 1h05."""
        return (
            number.kind == "number"
            and last in ("h", "m")
            and number.text.isdigit()
            and len(number.text) <= 2
            and _kind_of_unit(follower.text) == ""
        )

    def _numbered(self, found: Quantity, before: Item | None) -> Quantity:
        """step 3, frames 120, page no. 5; the time frame 5 to 9 is none."""
        back = len(self.items) - 1
        while isinstance(before, Token) and before.text in "#.:=" and before.kind == "mark":
            back -= 1
            if before.text == "." and not self._abbreviates(back):
                return found
            if before.text in ":=" and not self._labels_frames(back):
                return found
            before = self.items[back] if back >= 0 else None
        if not isinstance(before, Token) or not (found.is_bare and found.whole):
            return found
        if before.line != found.line:
            return found
        earlier = self.items[back - 1] if back > 0 else None
        if isinstance(earlier, Token) and earlier.text == "time":
            return found
        if before.text in _FRAMES or self._is_frame_number(before, earlier):
            del self.items[back:]
            return replace(found, kind="frame")
        if before.text in _NOUNS:
            del self.items[back:]
            return replace(found, kind="other", soft=before.text in _SOFT_NOUNS)
        return found

    def _abbreviates(self, at: int) -> bool:
        """Whether a full stop behind this word ends no sentence: no. 5, Oct. 5"""
        return at >= 0 and _text(self.items[at]) in _SHORT

    @staticmethod
    def _is_frame_number(before: Token, earlier: Item | None) -> bool:
        numbering = before.text in ("number", "no", "index", "idx", "numbers", "indices", "id")
        return numbering and isinstance(earlier, Token) and earlier.text in _FRAMES

    def _labels_frames(self, at: int) -> bool:
        """Whether the word at `at`, which a colon follows, announces frame numbers: 'Frames:',
        'end_frame:', but not a picture frame that a question names.
        """
        return is_frame_label([i.text if isinstance(i, Token) else "1" for i in self.items], at)


_BEFORE_FRAMES = set("in key by at sampled selected relevant video start end first last".split())


def is_frame_label(words: Sequence[str], at: int) -> bool:
    """Whether word `at` of lower-case words, before a colon or a bracket, announces frames."""
    if not 0 <= at < len(words):
        return False
    if words[at] in ("number", "numbers", "index", "idx", "indices", "range", "id", "ids"):
        return at > 0 and words[at - 1] in _FRAMES
    if words[at] not in _FRAMES:
        return False
    before = words[at - 1] if at else ""
    return not before.isalpha() or before in _BEFORE_FRAMES


def _kind_of_unit(word: str) -> str:
    """What a word behind a number makes of it: time, frame, percent, other, or "" for nothing."""
    if word in UNITS:
        return "time"
    if word in _FRAMES:
        return "frame"
    if word in _PERCENT:
        return "percent"
    return "other" if word in _OTHER_UNITS else ""


def _items(text: str) -> list[Item]:
    return _without_restatements(_Quantifier(_tokens(_without_markup(text))).run())


_OPEN, _CLOSE = "([{<", ")]}>"


def _without_restatements(items: list[Item]) -> list[Item]:
    """A bracket behind a quantity that holds one other, or none, says the same again: of `12.5 s
    (frame 125)` and `frame 125 (12.5 s)` the time stays.
    """
    kept: list[Item] = []
    at = 0
    while at < len(items):
        item = items[at]
        kept.append(item)
        at += 1
        if not isinstance(item, Quantity):
            continue
        inside, end = _bracket_at(items, at)
        told = [x for x in inside if isinstance(x, Quantity)]
        if len(told) > 1 or any(isinstance(x, Token) and x.kind == "dash" for x in inside):
            continue
        if told and item.kind != "time" and told[0].kind == "time":
            kept[-1] = told[0]
        at = end
    return kept


def _bracket_at(items: Sequence[Item], at: int) -> tuple[Sequence[Item], int]:
    """What the round bracket that opens at `at` holds, and where it ends."""
    if at >= len(items) or _text(items[at]) != "(":
        return (), at
    for end in range(at + 1, min(at + NEAR, len(items))):
        if _text(items[end]) == ")":
            return items[at + 1 : end], end + 1
    return (), at


# ---- ranges ----

_TO = {"to", "until", "till", "til", "through", "thru", "upto", "bis", "hasta", "à"}
_GO_ON = set("and then , lasts lasting continues continuing runs running goes on up".split())
_AFTER = set("mark marks into in the video clip of point timestamp movie film second".split())
_ABOUT = set(
    "the at about around approximately roughly approx . ca circa time timestamp t = : just nearly "
    "almost exactly precisely near by before after second".split()
)
_START = re.compile(r"start\w*|began|begin\w*|begun|onset|commenc\w*")
_END = re.compile(r"ends?|ended|ending|stop\w*|finish\w*|conclud\w*")
_CUES = set("from answer interval time timestamp timestamps window span moment".split())
_COUNTED = re.compile(r"[a-z]{2,}s")
_NOT_COUNTED = set("is was has as this its shows does happens occurs plus".split())
_FILM = {"video", "clip", "film", "movie", "recording"}
Found = tuple[Span, int]


def _text(item: Item) -> str:
    return item.text if isinstance(item, Token) else ""


def _is_word(item: Item, pattern: re.Pattern[str]) -> bool:
    return isinstance(item, Token) and item.kind == "word" and bool(pattern.fullmatch(item.text))


def span_of(a: Quantity, b: Quantity, *, sure: bool = False) -> Span | None:
    """The range of two quantities: a bare one takes its partner's unit or kind; None if they do
    not make one (1:18 to 23: minutes or seconds?).
    """
    kinds = {a.kind, b.kind} - {"time"}
    if a.soft and b.kind == "time" and b.unit:
        kinds = set()
        a = replace(a, kind="time")
    if kinds:
        alike = len(kinds) == 1 and all(q.kind in kinds or q.is_bare for q in (a, b))
        kind = kinds.pop() if alike else "other"
        return Span(a.value, b.value, kind)
    shared = a.unit or b.unit
    if not (a.unit and b.unit) and shared not in ("", *SECONDS_IN):
        return None
    factor = SECONDS_IN.get(shared, 1.0)
    start, end = (q.value if q.unit else q.value * factor for q in (a, b))
    rank = 0 if "clock" in (a.unit, b.unit) else 1
    if not shared and not sure and a.whole and b.whole:
        rank = 2
    return Span(start, end, "time", rank, shared)


def _ranges(items: list[Item]) -> list[Span]:
    """All ranges of a text, left to right."""
    grammar: tuple[Callable[[list[Item], int], Found | None], ...] = (
        _between,
        _keyword_range,
        _bracketed,
        _joined,
    )
    found: list[tuple[Span, int, int]] = []
    at = 0
    while at < len(items):
        match = next(filter(None, (rule(items, at) for rule in grammar)), None)
        if match is None:
            at += 1
            continue
        found.append((match[0], at, match[1]))
        at = match[1]
    return _told_once(_listed(found, items), items)


def _between(items: list[Item], at: int) -> Found | None:
    """between 5 and 9"""
    if _text(items[at]) != "between":
        return None
    first = _skip(items, at + 1, _ABOUT)
    a = _quantity_at(items, first)
    if a is None:
        return None
    link = _skip(items, first + 1, _AFTER)
    if link < len(items) and _text(items[link]) in ("and", "to", "-", "&"):
        last = _skip(items, link + 1, _ABOUT)
        b = _quantity_at(items, last)
        if b is not None and (span := span_of(a, b, sure=True)):
            return _weighed(span, items, last), last + 1
    if a.halves and (span := span_of(*a.halves, sure=True)):  # between 1 minute and 90 seconds
        return span, first + 1
    return None


def _keyword_range(items: list[Item], at: int) -> Found | None:
    """starts at 5, ends at 9; ends at 9, starts at 5; start: 5, end: 9; start, end: 5, 9."""
    if _is_word(items[at], _START):
        ours, theirs = _START, _END
    elif _is_word(items[at], _END):
        ours, theirs = _END, _START
    else:
        return None
    first = _next_quantity(items, at + 1, theirs)
    if first is None:
        return _headed(items, at) if ours is _START else None
    a = _with_label_unit(items, at, first)
    key = _next_word(items, first + 1, theirs, stop_at_full_stop=ours is _END)
    if key is None:
        return _lasting(items, first, a) if ours is _START else None
    last = _next_quantity(items, key + 1, ours)
    if last is None:
        return None
    b = _with_label_unit(items, key, last)
    span = span_of(*((a, b) if ours is _START else (b, a)), sure=True)
    return (span, last + 1) if span else None


def _with_label_unit(items: list[Item], at: int, quantity_at: int) -> Quantity:
    """The quantity with a unit that stands in its label: start_ms: 5000, start (seconds): 12.5."""
    found = items[quantity_at]
    assert isinstance(found, Quantity)
    for item in items[at + 1 : quantity_at]:
        unit = UNITS.get(_text(item), "") if len(_text(item)) > 1 or _text(item) == "s" else ""
        if unit and found.is_bare:
            return replace(found, value=found.value * SECONDS_IN[unit], unit=unit)
        if _text(item) in _FRAMES and found.is_bare and found.whole:
            return replace(found, kind="frame")
    return found


def _next_quantity(items: list[Item], at: int, stop: re.Pattern[str]) -> int | None:
    for i in range(at, min(at + NEAR, len(items))):
        if isinstance(items[i], Quantity):
            return i if items[i].kind != "other" else None  # type: ignore[union-attr]
        if _is_word(items[i], stop) or _text(items[i]) == ".":
            return None
    return None


def _next_word(
    items: list[Item], at: int, wanted: re.Pattern[str], *, stop_at_full_stop: bool
) -> int | None:
    for i in range(at, min(at + NEAR, len(items))):
        if isinstance(items[i], Quantity) or (stop_at_full_stop and _text(items[i]) == "."):
            return None
        if _is_word(items[i], wanted):
            near = {_text(item) for item in items[max(i - 2, at) : i]}
            return None if near & _FILM else i
    return None


def _headed(items: list[Item], at: int) -> Found | None:
    """start, end: 5, 9"""
    key = next((i for i in range(at + 1, min(at + 6, len(items))) if _is_word(items[i], _END)), 0)
    first = _next_quantity(items, key + 1, _START) if key else None
    if first is None:
        return None
    last = first + 1
    while last < len(items) and _text(items[last]) in (",", ";", "|", "/", "and", "-", "--", "to"):
        last += 1
    a, b = _quantity_at(items, first), _quantity_at(items, last)
    span = span_of(a, b, sure=True) if a and b else None
    return (span, last + 1) if span else None


def _lasting(items: list[Item], first: int, a: Quantity) -> Found | None:
    """starts at 12.5 s and lasts 5.7 s"""
    for i in range(first + 1, min(first + 6, len(items))):
        if isinstance(items[i], Quantity):
            return None
        if _text(items[i]) in ("lasts", "lasting", "lasted"):
            last = _skip(items, i + 1, _ABOUT | {"for"})
            b = _quantity_at(items, last)
            span = span_of(a, b, sure=True) if b else None
            if span is None or span.kind != "time":
                return None
            return span._replace(end=span.start + span.end), last + 1
    return None


def _bracketed(items: list[Item], at: int) -> Found | None:
    """[5, 9], (5; 9), [5 9]"""
    if _text(items[at]) not in ("(", "[", "{", "<"):
        return None
    a = _quantity_at(items, at + 1)
    link = at + 2
    if link < len(items) and _text(items[link]) in (",", ";", "|"):
        link += 1
    b = _quantity_at(items, link)
    if a is None or b is None or link + 1 >= len(items) or _text(items[link + 1]) not in _CLOSE:
        return None
    span = span_of(a, b, sure=True)
    return (_weighed(span, items, link + 1), link + 2) if span else None


def _joined(items: list[Item], at: int) -> Found | None:
    """5 to 9, 5-9, 5 s until 9 s"""
    a = _quantity_at(items, at)
    last = _connected(items, at + 1) if a else None
    if a is None or last is None:
        return None
    while (further := _connected(items, last + 1)) and _is_heading(items, at):
        at, last = last, further  # Step 3 - 12.5 s to 18.2 s
    a, b = _quantity_at(items, at), _quantity_at(items, last)
    assert a is not None and b is not None
    span = span_of(a, b, sure=_is_announced(items, at))
    return (_weighed(span, items, last), last + 1) if span else None


def _is_heading(items: list[Item], at: int) -> bool:
    """Whether a number before a dash only numbers the range behind it."""
    a = items[at]
    assert isinstance(a, Quantity)
    dashed = _text(items[at + 1]) in ("-", "--")
    return dashed and not a.unit and (a.whole or a.kind != "time")


def _connected(items: list[Item], at: int) -> int | None:
    """Where the second quantity of a range stands, if a connector begins at `at`."""
    at = _skip(items, at, _AFTER | set(_CLOSE), limit=5)
    if at < len(items) and _text(items[at]) == "." and _begins_connector(items, at + 1):
        at += 1  # 12.5 sec. to 18.2 sec.
    link = _link(items, at)
    if link is None:
        return None
    last = _skip(items, link, _ABOUT | set(_OPEN) | {"-", "~"}, limit=5)
    return last if _quantity_at(items, last) else None


def _begins_connector(items: list[Item], at: int) -> bool:
    return at < len(items) and (_text(items[at]) in _TO or _is_dash(items, at))


def _link(items: list[Item], at: int) -> int | None:
    """Behind the words or the dash that make a range."""
    if _is_dash(items, at):
        glued = at + 2 < len(items) and _text(items[at + 1]) in _TO and _is_dash(items, at + 2)
        return at + 3 if glued else at + 1  # 5-to-9
    at = _skip(items, at, _GO_ON, limit=4)
    if at < len(items) and (_text(items[at]) in _TO or _is_word(items[at], _END)):
        return _skip(items, at + 1, _TO | {"at", "by"}, limit=1)
    return None


def _is_dash(items: list[Item], at: int) -> bool:
    item = items[at] if at < len(items) else None
    return isinstance(item, Token) and item.kind == "dash"


def _skip(items: list[Item], at: int, words: set[str], limit: int = 6) -> int:
    for _ in range(limit):
        if at >= len(items) or not _text(items[at]) or _text(items[at]) not in words:
            break
        at += 1
    return at


def _quantity_at(items: list[Item], at: int) -> Quantity | None:
    item = items[at] if 0 <= at < len(items) else None
    return item if isinstance(item, Quantity) else None


def _is_announced(items: list[Item], at: int) -> bool:
    near = [_text(item) for item in items[max(at - 3, 0) : at]]
    return bool(_CUES & set(near))


def _weighed(span: Span, items: list[Item], last: int) -> Span:
    """Bare integers before a word in the plural seem to count it."""
    follower = items[last + 1] if last + 1 < len(items) else None
    if span.unit or span.rank == 0 or span.kind != "time" or not isinstance(follower, Token):
        return span
    whole = all(isinstance(i, Token) or i.whole for i in items[max(last - 4, 0) : last + 1])
    counts = follower.kind == "word" and _COUNTED.fullmatch(follower.text)
    if counts and whole and follower.text not in _NOT_COUNTED:
        return span._replace(rank=3)
    return span


def _listed(found: list[tuple[Span, int, int]], items: list[Item]) -> list[tuple[Span, int, int]]:
    """Ranges of one list share the unit and the rank of the last: 1-2, 4-5 min."""
    for n in range(len(found) - 2, -1, -1):
        (span, first, end), (following, start, _) = found[n], found[n + 1]
        between = {_text(item) for item in items[end:start]}
        if not between <= {",", ";", "and", "&", "or"} or span.unit or span.kind != "time":
            continue
        if following.kind == "time" and following.unit in SECONDS_IN:
            factor = SECONDS_IN[following.unit]
            span = Span(span.start * factor, span.end * factor, "time", 1, following.unit)
        elif following.kind == "time":
            span = span._replace(rank=min(span.rank, max(following.rank, 1)))
        found[n] = (span, first, end)
    sure = {_heading_of(items, first) for span, first, _ in found if span.rank == 1} - {()}
    for n, (span, first, end) in enumerate(found):
        if span.rank == 2 and _heading_of(items, first) in sure:
            found[n] = (span._replace(rank=1), first, end)
    return found


def _heading_of(items: list[Item], at: int) -> tuple[str, ...]:
    """The words before a range on its line, numbers left out: those of "Event 1: 5 to 9" and
    "Event 2: 12.5 to 15" are alike.
    """
    line = items[at].line
    words: list[str] = []
    for item in reversed(items[max(at - 8, 0) : at]):
        if item.line != line:
            break
        words.append(_text(item))
    return tuple(words)


def _told_once(found: list[tuple[Span, int, int]], items: list[Item]) -> list[Span]:
    """Without a range in brackets that repeats the one before in other words."""
    kept: list[Span] = []
    for n, (span, start, _) in enumerate(found):
        before = found[n - 1] if n else None
        told = before is not None and kept and before[2] + 1 == start
        in_brackets = start > 0 and _text(items[start - 1]) == "("
        if told and in_brackets and kept[-1].kind == span.kind == "time":
            distance = max(abs(kept[-1].start - span.start), abs(kept[-1].end - span.end))
            if distance < 1:
                continue
        kept.append(span)
    return kept


def _from_prose(text: str) -> list[Span]:
    """Ranges of prose: of the surest kind that is there; else two times that are all of a line, or
    of the text.
    """
    if tabled := _from_table(text):
        return tabled
    items = _items(text)
    spans = _ranges(items)
    if not any(span.kind == "time" for span in spans):
        return spans + _two_times(items)
    times = [span for span in spans if span.kind == "time"]
    best = min(span.rank for span in times)
    return [span for span in times if span.rank == best]


_LABELS = set(
    "answer time times timestamp timestamps interval intervals window windows span seconds second "
    "s the is at are event occurs happens moment segment and final , ; : . / | & ( ) [ ] { } < > = "
    "start end from".split()
)


def _two_times(items: list[Item]) -> list[Span]:
    """Two times and nothing else, in each line or in all of the text: 12.5 and 20"""
    lines: dict[int, list[Quantity]] = {}
    for item in items:
        if isinstance(item, Quantity):
            lines.setdefault(item.line, []).append(item)
        elif item.text not in _LABELS:
            return []
    groups = list(lines.values())
    if not all(len(group) == 2 for group in groups):
        groups = [[q for group in groups for q in group]]
    spans = [span_of(*group, sure=True) for group in groups if len(group) == 2]
    return [span for span in spans if span is not None]


_DELIMITERS = ("|", "\t", ",", ";")


def _from_table(text: str) -> list[Span]:
    """Rows under a header that names a start and an end: | start | end |."""
    columns: tuple[str, int, int] | None = None
    spans: list[Span] = []
    for line in text.split("\n"):
        header = next(filter(None, (_header(line, delimiter) for delimiter in _DELIMITERS)), None)
        columns = header or columns
        if columns and not header:
            span = _row(line, columns)
            spans += [span] if span else []
    return spans


def _header(line: str, delimiter: str) -> tuple[str, int, int] | None:
    """The delimiter and the columns of start and end, if this line is the header of a table."""
    if delimiter not in line or len(line) > 300 or re.search(r"\d", line):
        return None
    roles = [key_role(cell.strip(" *`\"'"))[0] for cell in line.split(delimiter)]
    if roles.count("start") == roles.count("end") == 1:
        return delimiter, roles.index("start"), roles.index("end")
    return None


def _row(line: str, header: tuple[str, int, int]) -> Span | None:
    delimiter, *columns = header
    cells = line.split(delimiter)
    if len(cells) <= max(columns):
        return None
    times = [_single(cells[column]) for column in columns]
    return span_of(times[0], times[1], sure=True) if times[0] and times[1] else None


def _single(text: str) -> Quantity | None:
    """A text that is one quantity and nothing else."""
    items = [item for item in _items(text) if _text(item) not in ("'", '"', ".", "|", "t", "=")]
    return items[0] if len(items) == 1 and isinstance(items[0], Quantity) else None


# ---- JSON ----

_STARTS = set("start starts begin begins beginning from onset t0 s".split())
_ENDS = set("end ends stop finish finishes to until e".split())
_SKIPPED = re.compile(
    r"b?box(es)?|bbox\w*|idx|index|ratio|score\w*|conf\w*|prob\w*|resolution|size|duration|length"
    r"|reason\w*|think\w*|thought\w*|expla\w*|analysis|fps|query|question|id|qid|count|page|step"
)


def key_role(key: str) -> tuple[str, str]:
    """What a JSON key or the head of a column says of its value: (start, end, skip or "", unit),
    the unit one of h, m, s, ms, frame, percent or "".
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|[^A-Za-z0-9%]+", " ", key).lower()
    words = spaced.split()[:8]
    role = unit = ""
    for n, word in enumerate(words):
        after_time = n > 0 and words[n - 1] == "time"
        if word in _FRAMES and not after_time:
            unit = "frame"
        elif word in _PERCENT | {"percentage"}:
            unit = "percent"
        elif word in UNITS and (len(words) > 1 or len(word) > 1):
            unit = unit or UNITS[word]
        if word in _STARTS and not (word == "s" and len(words) > 1):
            role = role or "start"
        elif word in _ENDS and not (word == "e" and len(words) > 1):
            role = role or "end"
        elif _SKIPPED.fullmatch(word) and not role:
            role = "skip"
    numbered = re.fullmatch(r"t(?:ime)?\s?([012])", spaced.strip())
    if numbered:
        role = {"0": "start", "1": "end", "2": "end"}[numbered[1]]
    return role, unit


def _spans_of(text: str) -> list[Span]:
    """Ranges of the JSON values in a text, or else of its prose; where there are no times among
    them, what else was found.
    """
    found, rest = _from_json_in(text)
    if any(span.kind == "time" for span in found):
        return found
    return [*_from_prose(rest), *found]


def _from_json_in(text: str) -> tuple[list[Span], str]:
    """Ranges of the JSON values that stand anywhere in a text, and the text without them."""
    source = text if '"' in text else text.replace("'", '"')  # python's quotes
    found: list[Span] = []
    rest: list[str] = []
    at = copied = 0
    # A value that breaks off is read once from each of its brackets; this bounds the work.
    effort = 20 * len(text) + 1000
    decoder = json.JSONDecoder()
    while (opening := _OPENING.search(source, at)) and effort > 0:
        start, at = opening.start(), opening.end()
        try:
            value, end = decoder.raw_decode(source, start)
        except RecursionError:
            break
        except json.JSONDecodeError as error:
            effort -= 1 + error.pos - start + error.pos // 100  # the error counts lines up to there
            continue
        except ValueError:  # a number of thousands of digits
            continue
        spans = _from_json(value, _unit_around(source, start, end))
        if not spans and _is_prose(value):
            continue
        found += spans
        rest += [text[copied:start], " "]
        at = copied = end
    rest.append(text[copied:])
    return found, "".join(rest)


_OPENING = re.compile(r"[\[{]")
_UNIT_BEHIND = re.compile(r"\s*(%|[a-z]+)", re.I)
_WORDS_BEFORE = re.compile(r"[^\W_]+|[.:=,;!?]")


def _is_prose(value: Any) -> bool:
    """Whether a list may belong to a range in words: [12.5] to [18.2]"""
    return isinstance(value, list) and len(value) == 1 and isinstance(value[0], int | float)


def _unit_around(source: str, start: int, end: int) -> str:
    """The unit before or behind a list: frames [120, 360], [50, 80]%, [5, 9] ms."""
    behind = _UNIT_BEHIND.match(source, end, end + 20)
    word = behind[1].lower() if behind else ""
    kind = _kind_of_unit(word)
    if kind:
        return UNITS[word] if kind == "time" else kind
    before = source[max(0, start - 40) : start].lower()
    if re.search(r"(?:bbox\w*|bounding box(?:es)?|coordinates?|ind(?:ex|ices))\W{0,3}$", before):
        return "other"
    if re.search(r"percent(?:age)?s?\W{0,3}$", before):
        return "percent"
    words = _WORDS_BEFORE.findall(before)
    colon = bool(words) and words[-1] in ":="
    words = words[:-1] if colon else words
    labelled = is_frame_label(words, len(words) - 1)
    bare = not colon and bool(words) and words[-1] in _FRAMES and words[-2:-1] != ["time"]
    return "frame" if labelled or bare else ""


def _from_json(value: Any, unit: str = "", depth: int = 0) -> list[Span]:
    if isinstance(value, str):
        return _from_prose(value)
    if isinstance(value, dict) and depth < MOST_NESTED:
        return _from_dict(value, unit, depth + 1)
    if not isinstance(value, list) or depth >= MOST_NESTED:
        return []
    if len(value) == 3 and _is_scored(value):
        value = value[:2]
    pair = _json_pair(value[0], value[1], unit) if len(value) == 2 else []
    if pair:
        return pair
    spans: list[Span] = []
    for child in value:
        spans += _from_json(child, unit, depth + 1)
    return spans


def _is_scored(value: list[Any]) -> bool:
    """[start, end, score]: the third is a share with a decimal part."""
    return (
        all(isinstance(x, int | float) and not isinstance(x, bool) for x in value)
        and isinstance(value[2], float)
        and 0 <= value[2] <= 1
    )


def _from_dict(value: dict[str, Any], unit: str, depth: int) -> list[Span]:
    roles: dict[str, list[tuple[str, Any]]] = {"start": [], "end": [], "skip": [], "": []}
    for key, child in value.items():
        role, own = key_role(key)
        roles[role].append((own or unit, child))
    if roles["start"] and roles["end"]:
        return _paired(roles["start"], roles["end"])
    plain = [(own, child) for own, child in roles[""] if not isinstance(child, str)]
    spans = [span for own, child in plain for span in _from_json(child, own, depth)]
    if spans:
        return spans
    return [span for _, child in roles[""] if isinstance(child, str) for span in _from_json(child)]


def _paired(starts: list[tuple[str, Any]], ends: list[tuple[str, Any]]) -> list[Span]:
    """The range of the values under start and end keys: seconds before frames; minutes and seconds
    under keys of their own are added; lists are paired.
    """
    (unit, start), (end_unit, end) = (_best_value(values) for values in (starts, ends))
    if isinstance(start, list) and isinstance(end, list) and len(start) == len(end):
        pairs = list(zip(start, end, strict=True))
    else:
        pairs = [(start, end)]
    return [span for a, b in pairs for span in _json_pair(a, b, unit or end_unit)]


def _best_value(values: list[tuple[str, Any]]) -> tuple[str, Any]:
    units = [unit for unit, _ in values]
    numbers = all(isinstance(value, int | float) for _, value in values)
    if len(values) > 1 and numbers and set(units) <= set(SECONDS_IN) and len(set(units)) > 1:
        if "m" in units or "h" in units:
            return "s", sum(SECONDS_IN[unit] * value for unit, value in values)
    times = [value for value in values if value[0] not in ("frame", "percent", "other")]
    return (times or values)[0]


def _json_pair(start: Any, end: Any, unit: str = "") -> list[Span]:
    """The range of two JSON values, if both are times."""
    a, b = _json_quantity(start, unit), _json_quantity(end, unit)
    span = span_of(a, b, sure=True) if a and b else None
    return [span] if span else []


def _json_quantity(value: Any, unit: str) -> Quantity | None:
    if isinstance(value, str):
        found = _single(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            return None
        if not math.isfinite(number):
            return None
        found = Quantity(number, "", whole=isinstance(value, int))
    else:
        return None
    if found is None or not found.is_bare or not unit:
        return found
    if unit in SECONDS_IN:
        return replace(found, value=found.value * SECONDS_IN[unit], unit=unit)
    # A picture's number is whole: 12.5 behind the word "frames" is a time.
    return replace(found, kind=unit) if found.whole or unit != "frame" else found


# ---- nothing to be found ----

_EVENT = (
    r"(?:event|moment|interval|segment|evidence|scene|activity|action|part|clip|match|instance)"
)
_ABSENT = re.compile(
    r"\b(?:not|never|n't)\s+(?:\w+\s+){0,2}?(?:shown|present|visible|found|there|depicted|occurs?"
    r"|occurring|happen(?:s|ed|ing)?|appear(?:s|ed)?|contain(?:s|ed)?|mentioned|seen|exist(?:s)?"
    r"|includ(?:e|ed|es)|show|match(?:es)?|take\s+place|in\s+(?:the|this)\s+(?:video|clip))\b"
    r"|n't\s+(?:\w+\s+){0,2}?(?:shown|present|visible|found|there|occur|happen|appear|contain|seen"
    r"|exist|include|show|take\s+place|in\s+(?:the|this)\s+(?:video|clip))\b"
    r"|\b(?:cannot|can\s*not|can't|could\s+not|couldn't|unable\s+to|did\s+not|didn't|do\s+not|don't"
    r"|failed\s+to)\s+(?:\w+\s+)?(?:find|locate|see|be\s+found|be\s+located|detect)\b"
    rf"|\bno\s+(?:\w+\s+){{0,2}}?{_EVENT}s?\b|\bno\s+(?:such|answer|timestamp)\b|\bno\s+match"
    r"|\b(?:is|are|was|were)\s+(?:absent|missing)\b|\bnever\s+(?:happens|occurs|appears|shown)\b"
    r"|\bunanswerable\b|\bnot\s+applicable\b",
    re.I,
)
_ABSENT_WHOLE = re.compile(
    r"[\W_]*(?:none|n\s*/\s*a|null|nil|nothing|absent|no|not\s+there|never|no\s+answer|empty"
    r"|not\s+in\s+(?:the\s+|this\s+)?video|没有|不存在)[\W_]*",
    re.I,
)


def says_absent(text: str) -> bool:
    """Whether a text says that what was asked for is not in the video: in words, as an empty list,
    as nulls or as -1.
    """
    bare = text.strip().strip("`").strip()
    if bare in ("[]", "{}", "()", "[[]]", "-1", "[-1]") or _ABSENT_WHOLE.fullmatch(bare):
        return True
    if bare[:1] in "[{" and len(bare) < 400 and _holds_nothing(bare):
        return True
    nulls = re.findall(r"(?:start|begin|end)\W{0,4}(?:null|none|n/a)\b", bare[:400], re.I)
    if len(nulls) == 2:
        return not re.search(r"\d", bare)
    return bool(_ABSENT.search(bare[-4000:]))


def _holds_nothing(text: str) -> bool:
    """Whether JSON holds empty lists and nulls only: {"intervals": []}"""
    try:
        value = json.loads(text.replace("None", "null").replace("'", '"'))
    except (ValueError, RecursionError):
        return False
    return _is_hollow(value)


def _is_hollow(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_hollow, value.values()))
    return value is None or (isinstance(value, list) and all(map(_is_hollow, value)))
