"""A camera that is not perfect: it shakes, the light drifts, and now and then somebody walks
through the picture.

A function of (camera, pictures, times), in integers, so that pixels are the same everywhere. The
town behind it does not change: truth stays exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from timescope_lite.world.art import INK

PERIOD_S = 40  # one passer-by per period, at a moment of its own
CROSSING_S = 1.5  # how long a passer-by takes from edge to edge
PASSER_W, PASSER_TOP = 18, 30  # pixels: how wide, and from which row down


@dataclass(frozen=True)
class Camera:
    """`shake` pixels at most either way, light that drifts by `drift` percent at most, passers-by
    or none. `seed` makes it this camera.
    """

    seed: int
    shake: int = 0
    drift: int = 0
    passers: bool = False

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Camera:
        """One of many cameras: half of them steady, half in changing light, half of them by a busy
        path.
        """
        shake = rng.integers(3) * rng.integers(2)
        drift = rng.integers(5, 26) * rng.integers(2)
        passers = rng.integers(2)
        return cls(int(rng.integers(2**31)), int(shake), int(drift), bool(passers))

    def film(self, frames: np.ndarray, times_s: np.ndarray) -> np.ndarray:
        """Pictures (F, H, W, 3) uint8 at `times_s` (F,) seconds as this camera sees them."""
        seen = np.empty_like(frames)
        for i, (frame, time_s) in enumerate(
            zip(frames, np.asarray(times_s, dtype=float).tolist(), strict=True)
        ):
            picture = self._walk(frame, time_s) if self.passers else frame
            picture = self._move(picture, time_s) if self.shake else picture
            seen[i] = self._light(picture, time_s) if self.drift else picture
        return seen

    def _numbers(self, what: int, at: int, low: int, high: int) -> tuple[int, int]:
        """Two whole numbers in low..high that follow from the seed, a purpose and a moment."""
        a, b = np.random.default_rng((self.seed, what, at)).integers(low, high + 1, size=2)
        return int(a), int(b)

    def _walk(self, frame: np.ndarray, time_s: float) -> np.ndarray:
        """Somebody's back, from one edge to the other, in front of everything but the sign and the
        plate.
        """
        period = int(time_s // PERIOD_S)
        starts_s, tone = self._numbers(1, period, 0, PERIOD_S - 2)
        gone = (time_s - period * PERIOD_S - starts_s) / CROSSING_S
        if not 0 <= gone < 1:
            return frame
        height, width = frame.shape[:2]
        left = int(gone * (width + PASSER_W)) - PASSER_W
        picture = frame.copy()
        for top, bottom, indent in (
            (PASSER_TOP - 10, PASSER_TOP, 5),
            (PASSER_TOP, height - 18, 0),
        ):  # head, body
            first, last = max(left + indent, 0), max(min(left + PASSER_W - indent, width), 0)
            picture[top:bottom, first:last] = np.array(INK, dtype=np.uint8) + np.uint8(tone)
        return picture

    def _move(self, frame: np.ndarray, time_s: float) -> np.ndarray:
        """The picture moved by a few pixels, its edge repeated."""
        y, x = self._numbers(2, int(time_s * 8), -self.shake, self.shake)
        padded = np.pad(
            frame, ((self.shake, self.shake), (self.shake, self.shake), (0, 0)), mode="edge"
        )
        return padded[self.shake + y :, self.shake + x :][: frame.shape[0], : frame.shape[1]]

    def _light(self, frame: np.ndarray, time_s: float) -> np.ndarray:
        """Brighter and darker in a slow triangle wave."""
        period, phase = 23 + self.seed % 17, self.seed % 13
        place = (time_s + phase) % period / period
        percent = round(self.drift * (4 * abs(place - 0.5) - 1))
        return np.minimum(
            frame.astype(np.uint32) * np.uint32(256 + percent * 256 // 100) >> 8, 255
        ).astype(np.uint8)
