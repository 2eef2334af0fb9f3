"""From state rows to pixels: a frame of Tiny Town is a pure function of (domain, state row, time).

Bands of the 128 x 128 picture, top to bottom: the hanging sign; the scene, with four people in a 2
x 2 grid (one cell per track); the plate of this place. Pieces are drawn once, kept in bounded
caches (at most about 90 MB), and pasted; all arithmetic is in integers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from timescope_lite.common import UserError
from timescope_lite.world import art
from timescope_lite.world.art import COLOUR_RGB, CREAM, INK, PALETTE, Canvas, Rgb, mix, rgb
from timescope_lite.world.domain import (
    COLOURS,
    EFFECT,
    FIELD_SIZES,
    NUM_FIELDS,
    NUM_NOUNS,
    PLACE,
    SHOWN,
    SIGN,
    TRACK0,
    Domain,
)

SIZE = 128
SCENE_TOP, PLATE_TOP = 18, 110  # first rows of the scene and of the plate
SCENE_H = PLATE_TOP - SCENE_TOP
CELLS = ((18, 0), (18, 64), (64, 0), (64, 64))  # top left corner (row, column) of each track's cell
STEPS_PER_S = 4
WATER_TOP = 94  # flood: from this row down, water lies over the people
_HORIZON, _LEDGE, _FLOOR = (
    34,
    47,
    54,
)  # rows of the scene: the skyline stands, the upper people's terrace ends, the lower ground begins
_NIGHT, _WATER, _SMOKE = rgb("#171b40"), rgb("#2f7fd0"), rgb("#77757d")
_LOUD, _GLOW, _CARPET = rgb("#ff2a1a"), rgb("#ff9a3c"), rgb("#a01f35")
# How an effect colours the light: percent, colour, down to which row of the scene.
_WASHES = {
    "alarm": (45, _LOUD, SCENE_H),
    "smoke": (45, _SMOKE, SCENE_H),
    "fire": (45, _GLOW, _LEDGE),
}


def render_frames(domain: Domain, states: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Frames for state rows `states` (F, 7) at `times_s` (F,) seconds: (F, 128, 128, 3) uint8.

    The time only moves limbs, lamps and water, in steps of a quarter second. Raises UserError for a
    wrong shape or a value out of range.
    """
    states, times_s = np.asarray(states), np.asarray(times_s, dtype=np.float64)
    _check_states(states, times_s)
    steps = np.floor(times_s * STEPS_PER_S + 1e-6).astype(np.int64) % art.STEPS
    frames = np.empty((len(states), SIZE, SIZE, 3), dtype=np.uint8)
    for frame, row, step in zip(frames, states.tolist(), steps.tolist(), strict=True):
        _compose(frame, domain, row, step)
    return frames


def render_video(domain: Domain, states: np.ndarray, fps: float = 2.0) -> Iterator[np.ndarray]:
    """The frames of a whole story, states (T, 7) with one row per second: T * fps pictures (128,
    128, 3), frame i at i / fps seconds.

    Raises UserError if fps is not positive.
    """
    if not 0 < fps < float("inf"):
        raise UserError(f"fps is {fps}; expected a positive number of frames per second")
    states = np.asarray(states)
    times_s = np.arange(round(len(states) * fps)) / fps
    for start in range(0, len(times_s), 64):
        chunk = times_s[start : start + 64]
        yield from render_frames(
            domain, states[np.minimum(chunk.astype(np.int64), len(states) - 1)], chunk
        )


def to_model_size(frames: np.ndarray) -> np.ndarray:
    """The mean of each 2 x 2 block, rounded half up: (F, 128, 128, 3) -> (F, 64, 64, 3) uint8. What
    the model sees.
    """
    total = frames[:, 0::2, 0::2].astype(np.uint16)
    for y, x in ((0, 1), (1, 0), (1, 1)):
        total += frames[:, y::2, x::2]
    return ((total + 2) >> 2).astype(np.uint8)


def _check_states(states: np.ndarray, times_s: np.ndarray) -> None:
    if states.ndim != 2 or states.shape[1] != NUM_FIELDS or times_s.shape != states.shape[:1]:
        raise UserError(
            f"states {states.shape} and times {times_s.shape} do not fit: expected (F, "
            f"{NUM_FIELDS}) and (F,)"
        )
    if (
        not np.issubdtype(states.dtype, np.integer)
        or ((states < 0) | (states >= np.array(FIELD_SIZES))).any()
    ):
        raise UserError(
            f"states must be integers from 0 to below {FIELD_SIZES} (place, sign, effect, tracks); "
            "check the story they come from"
        )
    if not np.isfinite(times_s).all():
        raise UserError("the times of frames must be finite numbers of seconds; one of them is not")


def _compose(frame: np.ndarray, domain: Domain, row: list[int], step: int) -> None:
    colour, noun = _place_words(domain, row[PLACE])
    lasting = "" if row[EFFECT] == 0 else SHOWN[row[EFFECT] - 1]
    frame[:SCENE_TOP] = _sign(*_place_words(domain, row[SIGN]), domain.sky)
    frame[SCENE_TOP:PLATE_TOP] = _scene(
        _Backdrop.of(domain), colour, noun, lasting, step if lasting else 0
    )
    frame[PLATE_TOP:] = _plate(colour, noun)
    pixels = frame.reshape(-1, 3)
    for track, role in enumerate(domain.cast):
        verb_idx, object_idx = divmod(row[TRACK0 + track] - 1, 4)
        doing = (
            ("idle", "")
            if row[TRACK0 + track] == 0
            else (role.verbs[verb_idx], role.objects[object_idx])
        )
        where, colours = _figure(track, role.colour, *doing, (step + 2 * track) % art.STEPS)
        pixels[where] = _blend(colours, _NIGHT, 45) if lasting == "dark" else colours
    if lasting == "flood":
        under = frame[WATER_TOP:PLATE_TOP]
        under[:] = (under + _water(step)) >> 1


def _place_words(domain: Domain, place_idx: int) -> tuple[str, str]:
    colour_idx, noun_idx = divmod(place_idx, NUM_NOUNS)
    return COLOURS[colour_idx], domain.places[noun_idx]


@lru_cache(maxsize=512)
def _sign(colour: str, noun: str, sky: str) -> np.ndarray:
    """The hanging sign (18, 128, 3): a board in the colour of the place it names, pointing
    onwards.
    """
    canvas, paint = Canvas(SCENE_TOP, SIZE), COLOUR_RGB[colour]
    for y in range(1, 17):
        canvas.box(1, y, 121 + min(y, 17 - y) * 5 // 8, 1, paint)
    canvas.outline()
    _letters(canvas, f"{colour} {noun}", 2, CREAM if _luma(paint) < 150 else INK)
    return _on(canvas, rgb(sky))


@lru_cache(maxsize=512)
def _plate(colour: str, noun: str) -> np.ndarray:
    """The plate of this place (18, 128, 3): its name in its colour on slate, below a stripe of the
    colour.
    """
    canvas, paint = Canvas(SIZE - PLATE_TOP, SIZE), COLOUR_RGB[colour]
    canvas.box(0, 0, SIZE, 2, paint)
    _letters(canvas, f"{colour} {noun}", 2, paint if _luma(paint) > 150 else mix(paint, CREAM, 36))
    return _on(canvas, INK)


def _letters(canvas: Canvas, text: str, y: int, colour: Rgb) -> None:
    mask = art.write(text)
    picture = np.broadcast_to(np.array(colour, dtype=np.uint8), (*mask.shape, 3))
    canvas.stamp(picture, mask, (SIZE - 4 - mask.shape[1]) // 4 * 2 + 2, y)


def _luma(colour: Rgb) -> int:
    return (299 * colour[0] + 587 * colour[1] + 114 * colour[2]) // 1000


def _on(canvas: Canvas, background: Rgb) -> np.ndarray:
    return np.where(canvas.mask[..., None], canvas.rgb, np.array(background, dtype=np.uint8))


@lru_cache(maxsize=4096)
def _figure(
    track: int, colour: str, verb: str, thing: str, step: int
) -> tuple[np.ndarray, np.ndarray]:
    """A person as flat pixel numbers in the frame (n,) and their colours (n, 3)."""
    drawn = art.sprite(track, colour, verb, thing, step)
    y, x = np.nonzero(drawn.mask)
    return (y + CELLS[track][0]) * SIZE + x + CELLS[track][1], drawn.rgb[y, x]


def _blend(picture: np.ndarray, colour: Rgb, percent: int) -> np.ndarray:
    """About `percent` of one colour in a picture, in 256ths, which are fast and exact."""
    weight = percent * 256 // 100
    mixed = picture.astype(np.uint16) * np.uint16(256 - weight) + np.array(
        colour, dtype=np.uint16
    ) * np.uint16(weight)
    return ((mixed + 128) >> 8).astype(np.uint8)


@dataclass(frozen=True)
class _Backdrop:
    """What of a domain its scenes are drawn from: the key of their caches."""

    family: str
    sky: str
    ground: str
    skyline: tuple[str, ...]
    indoors: bool

    @classmethod
    def of(cls, domain: Domain) -> _Backdrop:
        return cls(domain.family, domain.sky, domain.ground, domain.skyline, domain.indoors)


@lru_cache(maxsize=512)
def _scene(behind: _Backdrop, colour: str, noun: str, lasting: str, step: int) -> np.ndarray:
    """What lies behind the people (92, 128, 3): the backdrop of a place, in the light of the
    effect, and what lasts there.
    """
    canvas = Canvas(SCENE_H, SIZE)
    canvas.rgb[:] = _backdrop(behind, colour, noun, lasting == "dark")
    if lasting in _WASHES:
        percent, light, rows = _WASHES[lasting]
        if lasting == "alarm" and step % 2:
            percent -= 18  # it blinks
        canvas.rgb[:rows] = _blend(canvas.rgb[:rows], light, percent)
    if lasting:
        drawn = _lasting(lasting, step)
        canvas.stamp(drawn.rgb, drawn.mask, 0, 0)
    return canvas.rgb


@lru_cache(maxsize=512)
def _backdrop(behind: _Backdrop, colour: str, noun: str, dark: bool) -> np.ndarray:
    canvas, paint, window = Canvas(SCENE_H, SIZE), COLOUR_RGB[colour], CREAM
    sky_rgb, ground_rgb = mix(rgb(behind.sky), paint, 22), mix(rgb(behind.ground), paint, 12)
    if dark:
        sky_rgb = mix(sky_rgb, _NIGHT, 80)
        ground_rgb = mix(ground_rgb, _NIGHT, 70)
        paint = mix(paint, _NIGHT, 70)
        window = PALETTE["y"]
    _draw_ground(canvas, noun, sky_rgb, sky_rgb if dark else mix(sky_rgb, CREAM, 45), ground_rgb)
    _draw_skyline(canvas, behind, noun, sky_rgb, paint, window)
    return canvas.rgb


@lru_cache(maxsize=len(SHOWN) * art.STEPS)
def _lasting(name: str, step: int) -> Canvas:
    """An effect, a preparation or an oddity, drawn on nothing."""
    canvas = Canvas(SCENE_H, SIZE)
    _LASTING[name](canvas, step)
    return canvas


def _digest(family: str, noun: str) -> bytes:
    return hashlib.sha256(f"{family} {noun}".encode()).digest()


def _draw_ground(canvas: Canvas, noun: str, sky: Rgb, haze: Rgb, ground: Rgb) -> None:
    """The sky, the terrace on which the upper two people stand, its wall, and the ground of the
    lower two.
    """
    for y in range(_HORIZON):
        canvas.box(0, y, SIZE, 1, mix(sky, haze, y * 3))
    canvas.box(0, _HORIZON, SIZE, _LEDGE - _HORIZON, mix(ground, haze, 18))
    canvas.box(0, _LEDGE, SIZE, _FLOOR - _LEDGE, mix(ground, INK, 28))
    canvas.box(0, _LEDGE, SIZE, 2, mix(ground, haze, 45))
    canvas.box(0, _FLOOR, SIZE, SCENE_H - _FLOOR, ground)
    for i, code in enumerate(_digest("ground", noun)[:16]):
        canvas.box(
            code & 127, _FLOOR + 6 + i // 4 * 10 + (code >> 7) * 4, 6, 2, mix(ground, INK, 12)
        )


def _draw_skyline(
    canvas: Canvas, behind: _Backdrop, noun: str, sky: Rgb, paint: Rgb, light: Rgb
) -> None:
    """A far and a near row of stencils in the colour of the place; which ones, and where, follows
    from the noun alone.
    """
    for i, code in enumerate(_digest(behind.family, noun)[:14]):
        near = i >= 7
        stencil = art.scale2x(art.STENCILS[behind.skyline[code & 3]][:, :: 1 if code & 4 else -1])
        body = mix(sky, paint, 62 if near else 28)
        picture = np.zeros((*stencil.shape, 3), dtype=np.uint8)
        for letter, value in (
            ("#", body),
            ("o", mix(body, light, 70 if near else 25)),
            ("=", mix(body, INK, 30)),
        ):
            picture[stencil == ord(letter)] = value
        if behind.indoors:  # things on a wall: one row, apart from each other
            if near and code & 0x60:
                canvas.stamp(
                    picture,
                    stencil > 0,
                    (i - 7) * 22 - 12 + (code >> 3 & 3),
                    _HORIZON - (20 if code & 3 == 3 else 26),
                )
        elif near or code & 0x60:
            canvas.stamp(
                picture,
                stencil > 0,
                i % 7 * 20 - 8 + (code >> 3 & 3) * 2 - near * 8,
                _HORIZON - 24 + (code >> 5) + near * 4,
            )
    canvas.box(0, _HORIZON, SIZE, 1, mix(sky, INK, 25))


def _draw_flood(canvas: Canvas, step: int) -> None:
    """Water over the terrace and down its wall; `_water` is the part in front of the people."""
    canvas.box(0, 40, SIZE, SCENE_H - 40, _WATER)
    for i in range(9):
        canvas.line((i * 16 - step * 2, 43), (i * 16 + 6 - step * 2, 43), 2, CREAM)
        canvas.line(
            (i * 16 + 4, 50 + (i + step) % 3), (i * 16 + 4, 56 + (i + step) % 3), 2, PALETTE["s"]
        )
        canvas.line(
            (i * 16 + step * 2, 66 + i % 2 * 6),
            (i * 16 + 5 + step * 2, 66 + i % 2 * 6),
            2,
            PALETTE["s"],
        )


@lru_cache(maxsize=art.STEPS)
def _water(step: int) -> np.ndarray:
    """The water in front of the people, ready to be averaged with them: (16, 128, 3) uint16."""
    canvas = Canvas(PLATE_TOP - WATER_TOP, SIZE)
    canvas.box(0, 0, SIZE, PLATE_TOP - WATER_TOP, _WATER)
    for i in range(9):
        canvas.line((i * 16 - step * 3, 1), (i * 16 + 8 - step * 3, 1), 2, CREAM)
    return canvas.rgb.astype(np.uint16)


def _draw_alarm(canvas: Canvas, step: int) -> None:
    """A red lamp between the cells and its rays; it flashes."""
    bright = step % 2 == 0
    for x, y in ((-26, 4), (-24, 14), (-14, 24), (0, 28), (14, 24), (24, 14), (26, 4)):
        canvas.line(
            (64 + x * 5 // 9, 6 + y * 5 // 9), (64 + x, 6 + y), 3, PALETTE["y"] if bright else CREAM
        )
    canvas.line((64, 6), (64, 8), 13, INK)
    canvas.line((64, 6), (64, 8), 10, _LOUD if bright else mix(_LOUD, INK, 25))
    canvas.box(56, 0, 16, 4, INK)
    canvas.dot((62, 6), 3, CREAM)


def _draw_smoke(canvas: Canvas, step: int) -> None:
    """Grey puffs that rise through the whole scene."""
    for k in range(
        8
    ):  # rows of puffs, the upper ones first; a row rises to where the next one was in one cycle
        for i in range(6):
            x, y = i * 24 + (k * 11 + i * i * 7) % 16 - 4, k * 15 - 3 * step + (i * 5 + k) % 9 - 2
            width = 12 + (i * 7 + k // 2 * 3) % 3 * 4
            canvas.dot((x + 1, y + 2), width + 2, mix(_SMOKE, INK, 22))
            canvas.dot((x, y), width, mix(_SMOKE, CREAM, 18 + i * 5 % 3 * 12))


def _draw_dark(canvas: Canvas, step: int) -> None:
    """Night: the colours are dimmed already; a moon and stars are left."""
    canvas.dot((64, 9), 12, PALETTE["y"])
    bite = Canvas(SCENE_H, SIZE)
    bite.dot((68, 7), 10, INK)
    canvas.mask &= ~bite.mask
    for i in range(9):
        canvas.box(
            i * 29 % 124 + 2, i * 11 % 20 + 2, 2, 2, CREAM if (i + step) % 5 else PALETTE["e"]
        )


def _draw_crowd(canvas: Canvas, step: int) -> None:
    """A row of onlookers behind a rope."""
    people = Canvas(SCENE_H, SIZE)
    for i in range(13):
        x, y = i * 10 + 4, 54 + (i + step) % 3
        people.line((x, y + 9), (x, y + 12), 10, list(COLOUR_RGB.values())[i * 5 % 6])
        people.dot((x, y), 8, art.SKIN[i * 3 % 4])
        people.line((x - 2, y - 3), (x + 2, y - 3), 3, art.HAIR[i * 7 % 4])
    people.outline()
    canvas.stamp(people.rgb[:66], people.mask[:66], 0, 0)
    canvas.box(0, 65, SIZE, 2, INK)
    canvas.box(0, 64, SIZE, 2, PALETTE["r"])


def _draw_fire(canvas: Canvas, step: int) -> None:
    """Flames along the terrace."""
    for size, colour in ((15, PALETTE["r"]), (10, PALETTE["o"]), (5, PALETTE["y"])):
        for i in range(12):
            x, height = i * 12 - 2, 16 + (i * 37 + step * (5 + i % 3 * 2)) % 17
            for k in range(6):
                lean = (0, 0, 1, 1, 0, -1)[(k + step + i) % 6]
                canvas.dot(
                    (x + lean, _FLOOR - height * size * k // 80),
                    max(size * (6 - k) // 6, 2),
                    colour,
                )


def _draw_bunting(canvas: Canvas, step: int) -> None:
    """Pennants on a line across the sky; the wind swings their tips."""
    for i in range(9):
        x, top, colour = i * 16, 3 + _sag(i), PALETTE["rybgv"[i % 5]]
        for k in range(6):
            lean = (0, 1, 1, 0, -1)[(step + i) % art.STEPS] * k // 3
            canvas.box(x - 6 + k + lean, top + 2 * k, 12 - 2 * k, 2, colour)
    canvas.outline(CREAM)
    for i in range(8):
        canvas.line((i * 16, 3 + _sag(i)), (i * 16 + 16, 3 + _sag(i + 1)), 2, INK)


def _draw_lights(canvas: Canvas, step: int) -> None:
    """A string of round lamps; every fifth is a little brighter than the rest."""
    for i in range(8):
        canvas.line((i * 16, 8 + 2 * _sag(i)), (i * 16 + 16, 8 + 2 * _sag(i + 1)), 2, INK)
    for i in range(9):
        x, y = i * 16, 14 + 2 * _sag(i)
        canvas.dot((x, y), 12, PALETTE["o"])
        canvas.dot((x, y), 9, PALETTE["y"])
        canvas.dot((x, y), 5 + 2 * ((step + i) % art.STEPS == 0), CREAM)


def _sag(i: int) -> int:
    """How far a line that hangs from both edges and the middle of the picture has sunk, at the i-th
    of its 8 steps.
    """
    return (0, 3, 4, 3)[i % 4]


def _draw_carpet(canvas: Canvas, step: int) -> None:
    """A red carpet with golden edges on the ground of the lower people."""
    canvas.box(0, 76, SIZE, SCENE_H - 76, PALETTE["y"])
    canvas.box(0, 78, SIZE, SCENE_H - 80, _CARPET)
    for i in range(9):
        canvas.box(i * 16 - 1, 83, 4, 4, PALETTE["y"])


def _draw_fence(canvas: Canvas, step: int) -> None:
    """White pickets along the terrace."""
    for y in (31, 39):
        canvas.box(0, y, SIZE, 3, CREAM)
    for i in range(13):
        canvas.line((i * 10 + 1, 28), (i * 10 + 1, 44), 5, CREAM)
    canvas.outline()


def _draw_ghost(canvas: Canvas, step: int) -> None:
    """A white sheet with two eyes that floats between the people."""
    x, y = 64 + (0, 1, 2, 1, 0)[step % art.STEPS], 16 + (0, 2, 4, 2, 0)[step % art.STEPS]
    canvas.dot((x, y), 26, CREAM)
    canvas.box(x - 13, y, 26, 18, CREAM)
    for i in range(3):
        canvas.dot((x - 9 + i * 9, y + 19), 8, CREAM)
    canvas.outline()
    canvas.box(x - 7, y - 3, 4, 6, INK)
    canvas.box(x + 3, y - 3, 4, 6, INK)


def _draw_comet(canvas: Canvas, step: int) -> None:
    """A ball of fire with a tail that falls across the sky."""
    x, y = 30 + 6 * step, 8 + 3 * step
    for width, colour, length in (
        (14, PALETTE["r"], 56),
        (10, PALETTE["o"], 44),
        (6, PALETTE["y"], 32),
    ):
        canvas.line((x + length, y - length // 4), (x, y), width, colour)
    canvas.dot((x, y), 18, PALETTE["o"])
    canvas.dot((x, y), 12, CREAM)


def _draw_dragon(canvas: Canvas, step: int) -> None:
    """A green dragon in the sky; its wings beat."""
    body, wing = PALETTE["g"], PALETTE["v"]
    up = (0, -6, -10, -6, 0)[step % art.STEPS]
    canvas.line((36, 30), (54, 22), 6, body)
    canvas.line((54, 22), (76, 18), 13, body)
    canvas.line((76, 18), (90, 10), 8, body)
    canvas.line((90, 10), (100, 12), 9, body)
    for k in range(5):
        canvas.line((58 + 3 * k, 18), (48 + 5 * k, 8 + up + 2 * k), 5, wing)
    canvas.outline()
    canvas.dot((94, 9), 4, CREAM)
    canvas.line((106, 13), (118, 17), 5, PALETTE["o"])


def _draw_saucer(canvas: Canvas, step: int) -> None:
    """A flying saucer with lamps in turn and a beam of light below it."""
    for k in range(8):
        canvas.box(52 - k * 2, 26 + k * 3, 24 + k * 4, 2, PALETTE["y"])
    canvas.dot((64, 12), 20, PALETTE["s"])
    canvas.line((40, 20), (88, 20), 12, PALETTE["l"])
    canvas.outline()
    for i in range(5):
        canvas.dot((44 + i * 10, 20), 5, PALETTE["r"] if (i + step) % art.STEPS == 0 else INK)


_LASTING = {
    "flood": _draw_flood,
    "alarm": _draw_alarm,
    "smoke": _draw_smoke,
    "dark": _draw_dark,
    "crowd": _draw_crowd,
    "fire": _draw_fire,
    "bunting": _draw_bunting,
    "lights": _draw_lights,
    "carpet": _draw_carpet,
    "fence": _draw_fence,
    "ghost": _draw_ghost,
    "comet": _draw_comet,
    "dragon": _draw_dragon,
    "saucer": _draw_saucer,
}
