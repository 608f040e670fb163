"""What an overlay draws into each picture of a video: box, values, circle, curves, banner."""

from __future__ import annotations

from pathlib import Path

import cv2
import matplotlib
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from maven_jax.types import DIMENSIONS
from maven_jax.video.prediction import VideoPrediction
from maven_jax.video.show import look

_LEAST_WIDTH = 480  # pixels; smaller videos are enlarged, so that the strip can be read
_STRIP = 0.19  # height of the strip, as a share of the width
_VIEW_S = 20.0  # seconds of the curves that are seen at once
_TRAIL_S = 3.0
_GROUND, _LINE, _TEXT = (20, 24, 27), (62, 72, 79), (190, 199, 205)
_SHADE, _HEAD, _BOX = (44, 53, 59), (255, 123, 107), (255, 255, 255)
_CURVES = ((92, 193, 226), (240, 166, 72))  # valence, arousal: of look, lighter on the dark ground
_FRACTION = 4  # bits behind the point of OpenCV's coordinates


def _font(size: float, bold: bool = False) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / name), max(round(size), 6))


class Panel:
    """Draws a prediction into the pictures of its video.

    Attributes:
        size: width and height of what `drawn` returns, both even as H.264 wants them.

    Args:
        prediction: of one face of the video.
        width, height: of the upright pictures in pixels.
    """

    def __init__(self, prediction: VideoPrediction, width: int, height: int):
        self._prediction = prediction
        self._scale = max(1.0, _LEAST_WIDTH / width)
        self._width, self._height = round(width * self._scale), round(height * self._scale)
        even = self._width + self._width % 2
        self._strip = round(_STRIP * max(min(even, 1.6 * self._height), _LEAST_WIDTH))
        self._strip += (self._height + self._strip) % 2
        self.size = (even, self._height + self._strip)
        self._rows = {int(frame): row for row, frame in enumerate(prediction.frame)}
        self._track = look.shown_track(prediction)
        ends = look.frame_ends(prediction.time_s)
        self._end_s = float(ends[-1]) if len(ends) else 0.0
        begins_later = len(ends) and prediction.frame[0]
        self._begin_s = float(prediction.time_s[0]) if begins_later else 0.0
        self._faceless = look.spans(~prediction.face_found, prediction.time_s)
        unit = self._strip / 100
        self._unit = unit
        self._small, self._large = _font(10.5 * unit), _font(17 * unit, bold=True)
        self._tiny = _font(8 * unit)
        self._radius = 38 * unit
        self._centre = (50 * unit, 50 * unit)
        self._left = 214 * unit
        self._lanes = [(round((6 + 46 * c) * unit), round(42 * unit)) for c in (0, 1)]
        self._ground = self._empty_strip()

    def drawn(
        self, image: UInt8[np.ndarray, "h w 3"], number: int, time_s: float | int
    ) -> UInt8[np.ndarray, "_ _ 3"]:
        """The picture with its prediction: (height, width, 3) of `size`.

        Args:
            image: upright, RGB.
            number: of the picture, from 0; if it was not predicted, no values are shown.
            time_s: when it is shown.
        """
        if self._scale > 1:
            image = cv2.resize(image, (self._width, self._height), interpolation=cv2.INTER_CUBIC)
        canvas = np.zeros((self.size[1], self.size[0], 3), np.uint8)
        canvas[: self._height, : self._width] = image[: self._height, : self._width]
        row = self._rows.get(number)
        if row is not None:
            self._draw_box(canvas, row)
        if self._prediction.label:
            self._draw_banner(canvas)
        canvas[self._height :] = self._drawn_strip(row, float(time_s))
        return canvas

    def _draw_box(self, canvas: np.ndarray, row: int) -> None:
        box = self._prediction.boxes[row] * self._scale
        if not np.isfinite(box).all():
            return
        x, y, w, h = box.round().astype(int).tolist()
        thick = max(2, round(self._width / 400))
        picture = canvas[: self._height]
        for colour, width in (((0, 0, 0), thick + 2), (_BOX, thick)):
            cv2.rectangle(picture, (x, y), (x + w, y + h), colour, width, cv2.LINE_AA)

    def _draw_banner(self, canvas: np.ndarray) -> None:
        text = self._prediction.caution
        font = _font(12 * self._unit, bold=True)
        font = _font(font.size * min(1.0, 0.95 * self.size[0] / font.getlength(text)), bold=True)
        high = round(2 * font.size)
        top = Image.new("RGB", (self.size[0], high), look.banner_colour(self._prediction))
        middle = (self.size[0] / 2, high / 2)
        ImageDraw.Draw(top).text(middle, text, font=font, fill="white", anchor="mm")
        high = min(high, self._height)
        canvas[:high] = np.asarray(top)[:high]

    def _empty_strip(self) -> Image.Image:
        """The strip without anything that moves."""
        strip = Image.new("RGB", (self.size[0], self._strip), _GROUND)
        pen = ImageDraw.Draw(strip)
        (x, y), r = self._centre, self._radius
        thin = max(1, round(self._unit / 1.5))
        for radius in (r, r / 2):
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=_LINE, width=thin)
        pen.line((x - r, y, x + r, y), fill=_LINE, width=thin)
        pen.line((x, y - r, x, y + r), fill=_LINE, width=thin)
        for column, name in enumerate(DIMENSIONS):
            at = (104 * self._unit, (16 + 42 * column) * self._unit)
            pen.text(at, name, font=self._small, fill=_CURVES[column], anchor="lm")
        for top, high in self._lanes:
            for text, y in (("+1", top + 4 * self._unit), ("−1", top + high - 4 * self._unit)):
                at = (self._left - 3 * self._unit, y)
                pen.text(at, text, font=self._tiny, fill=_TEXT, anchor="rm")
        return strip

    def _drawn_strip(self, row: int | None, time_s: float) -> np.ndarray:
        strip = self._ground.copy()
        values = np.full(2, np.nan) if row is None else self._track[row]
        pen = ImageDraw.Draw(strip)
        for column, value in enumerate(values):
            text = f"{value:+.2f}".replace("-", "−") if np.isfinite(value) else "–"
            at = (104 * self._unit, (34 + 42 * column) * self._unit)
            pen.text(at, text, font=self._large, fill=_CURVES[column], anchor="lm")
        pixels = np.array(strip)
        self._draw_trail(pixels, values, time_s)
        self._draw_curves(pixels, time_s)
        return pixels

    def _rows_between(self, first_s: float, last_s: float) -> np.ndarray:
        low, high = np.searchsorted(self._prediction.time_s, (first_s, last_s), side="right")
        # At most about one point for each pixel.
        return np.arange(max(low - 1, 0), high, max(1, (high - low) // self.size[0]))

    def _draw_line(
        self, pixels: np.ndarray, points: np.ndarray, colour: tuple[int, ...], thick: int
    ) -> None:
        """A line through points (n, 2) in pixels, with gaps where they are not finite."""
        finite = np.asarray(np.isfinite(points).all(axis=1))
        for part in np.split(np.arange(len(points)), np.flatnonzero(np.diff(finite)) + 1):
            if len(part) > 1 and finite[part[0]]:
                fixed = (points[part] * 2**_FRACTION).round().astype(np.int32)
                cv2.polylines(pixels, [fixed], False, colour, thick, cv2.LINE_AA, _FRACTION)

    def _draw_trail(self, pixels: np.ndarray, values: np.ndarray, time_s: float) -> None:
        rows = self._rows_between(time_s - _TRAIL_S, time_s)
        upwards = self._radius * np.array([1, -1])
        thick = max(1, round(1.6 * self._unit))
        self._draw_line(pixels, self._centre + self._track[rows] * upwards, _HEAD, thick)
        if np.isfinite(values).all():
            x, y = ((self._centre + values * upwards) * 2**_FRACTION).round().astype(int).tolist()
            radius = round(4 * self._unit * 2**_FRACTION)
            cv2.circle(pixels, (x, y), radius, _HEAD, -1, cv2.LINE_AA, _FRACTION)

    def _draw_curves(self, pixels: np.ndarray, time_s: float) -> None:
        """Both curves around the present time, which is in the middle except near the ends."""
        begin_s = self._begin_s
        length = min(_VIEW_S, self._end_s - begin_s) or 1.0
        first = min(max(time_s - length / 2, begin_s), max(self._end_s - length, begin_s))
        right = self.size[0] - 6 * self._unit
        per_s = (right - self._left) / length
        view = pixels[:, round(self._left) : round(right)]

        def x(seconds: np.ndarray) -> np.ndarray:
            return (seconds - first) * per_s

        thin = max(1, round(self._unit / 1.5))
        wide = view.shape[1]
        for a, b in self._faceless:
            if b > first and a < first + length:
                left, behind = (int(v) for v in np.clip(x(np.array([a, b])), 0, wide))
                for top, high in self._lanes:
                    view[top : top + high, left:behind] = _SHADE
        rows = self._rows_between(first, first + length)
        for column, (top, high) in enumerate(self._lanes):
            for level in (top, top + high // 2, top + high):
                cv2.line(view, (0, level), (wide, level), _LINE, thin)
            y = top + high * (1 - self._track[rows, column]) / 2
            points = np.stack([x(self._prediction.time_s[rows]), y], axis=1)
            self._draw_line(view, points, _CURVES[column], max(1, round(1.8 * self._unit)))
        head = round((time_s - first) * per_s)
        cv2.line(
            view, (head, self._lanes[0][0]), (head, sum(self._lanes[1])), _HEAD, max(1, 2 * thin)
        )
