"""Draws a synthetic person in a room: head, eyes, brows, mouth, with a pose.

Faces are drawn in a plane of their own, 112 units wide and high with the origin in the middle. A
pose (2, 3) maps it to pixels. Images are BGR, as in OpenCV.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float, UInt8

Number = float | int
Colour = tuple[Number, Number, Number]  # BGR
Image = UInt8[np.ndarray, "h w 3"]
Pose = Float[np.ndarray, "2 3"]

FACE_UNITS = 112
_SHIFT = 4  # binary digits of sub-pixel precision
_ANGLE = np.linspace(0, 2 * np.pi, 28, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLE), np.sin(_ANGLE)], axis=1)
_ACROSS = np.linspace(-1, 1, 13)

# BGR, fair to dark. Small random encoders see colour before shape, so the range of skins is limited
# to those from which a flush (below) still stands out.
SKINS = (
    (159, 187, 229), (145, 178, 223), (131, 168, 217), (117, 155, 208), (103, 141, 194),
    (92, 126, 178), (84, 114, 162),
)  # fmt: skip
HAIRS = ((25, 25, 30), (35, 50, 75), (60, 95, 140), (110, 165, 205), (150, 150, 155), (40, 60, 130))
IRISES = ((70, 50, 30), (140, 95, 50), (60, 110, 70), (40, 70, 110))


@dataclass(frozen=True)
class Looks:
    """What makes a person's face their own, whatever they feel.

    Attributes:
        skin, hair, iris, shirt: colours.
        width, height: of the head, units.
        eye_gap: of the eyes from the middle, units.
        mouth_width: half of it, units.
        mouth_y: of its middle, units below the face's.
        brow_y: offset of the brows, units.
        rest_smile: curvature of the mouth at valence 0.
        rest_eyes: offset of the eyes' opening.
        hair_line: how far the hair reaches down the forehead, units.
        long_hair: whether it reaches the shoulders.
    """

    skin: Colour
    hair: Colour
    iris: Colour
    shirt: Colour
    width: Number
    height: Number
    eye_gap: Number
    mouth_width: Number
    mouth_y: Number
    brow_y: Number
    rest_smile: Number
    rest_eyes: Number
    hair_line: Number
    long_hair: bool


def draw_looks(rng: np.random.Generator, offsets: Number = 1.0) -> Looks:
    """Draws a person; `offsets` multiplies how far faces at rest differ in what they show."""
    return Looks(
        skin=SKINS[int(rng.integers(len(SKINS)))],
        hair=HAIRS[int(rng.integers(len(HAIRS)))],
        iris=IRISES[int(rng.integers(len(IRISES)))],
        shirt=tuple(float(c) for c in rng.uniform(40, 200, 3)),  # type: ignore[arg-type]
        width=float(rng.uniform(37, 41)),
        height=float(rng.uniform(47, 51)),
        eye_gap=float(rng.uniform(15, 17.5)),
        mouth_width=float(rng.uniform(19, 22)),
        mouth_y=float(rng.uniform(22, 25)),
        brow_y=float(rng.uniform(-1.5, 1.5)),
        rest_smile=float(rng.normal(0, 0.08 * offsets)),
        rest_eyes=float(rng.normal(0, 0.06 * offsets)),
        hair_line=float(rng.uniform(-36, -30)),
        long_hair=bool(rng.random() < 0.5),
    )


@dataclass(frozen=True)
class Expression:
    """What a face does in a frame.

    Attributes:
        smile: curvature of the mouth; -1 corners down, 1 up.
        mouth_open: 0 shut, 1 wide open.
        brow: 1 raised inner ends (friendly), -1 lowered (frown).
        eye_open: 0 shut, 1 wide open.
        gaze: (x, y) of the irises, -1 … 1.
        turn: (x, y) of the head, -1 … 1.
    """

    smile: Number
    mouth_open: Number
    brow: Number
    eye_open: Number
    gaze: tuple[Number, Number]
    turn: tuple[Number, Number]


def draw_room(rng: np.random.Generator, width: int, height: int) -> Image:
    """A wall with a few pieces of furniture, out of focus."""
    corners = rng.uniform(70, 200, (2, 2, 3)).astype(np.float32)
    image = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)
    for _ in range(6):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        size = rng.uniform(15, 70, 2)
        colour = tuple(float(c) for c in rng.uniform(30, 220, 3))
        first, last = (int(x), int(y)), (int(x + size[0]), int(y + size[1]))
        cv2.rectangle(image, first, last, colour, -1)
    grey = image.mean(axis=2, keepdims=True)
    muted = 128 + 0.4 * (grey - 128) + 0.25 * (image - grey)
    return cv2.GaussianBlur(muted, (0, 0), 4).clip(0, 255).astype(np.uint8)


def make_pose(centre: tuple[Number, Number], scale: Number, roll: Number) -> Pose:
    """Face units to pixels: scaled, turned by `roll` (radians), moved to `centre` (pixels)."""
    c, s = scale * np.cos(roll), scale * np.sin(roll)
    return np.array([[c, -s, centre[0]], [s, c, centre[1]]])


def _mix(a: Colour, b: Colour, share: Number) -> Colour:
    share = min(max(share, 0.0), 1.0)
    return tuple((1 - share) * x + share * y for x, y in zip(a, b))  # type: ignore[return-value]


class _Brush:
    """Fills polygons given in face units."""

    def __init__(self, image: Image, pose: Pose):
        self.image, self.pose = image, pose

    def fill(self, points: np.ndarray, colour: Colour) -> None:
        pixels = points @ self.pose[:, :2].T + self.pose[:, 2]
        fixed = np.rint(pixels * (1 << _SHIFT)).astype(np.int32)
        cv2.fillPoly(self.image, [fixed], colour, cv2.LINE_AA, _SHIFT)

    def ellipse(self, x: Number, y: Number, rx: Number, ry: Number, colour: Colour) -> None:
        self.fill(_CIRCLE * (rx, ry) + (x, y), colour)

    def band(self, x: np.ndarray, top: np.ndarray, bottom: np.ndarray, colour: Colour) -> None:
        """The area between two curves over the same `x`."""
        forth, back = np.stack([x, top], 1), np.stack([x[::-1], bottom[::-1]], 1)
        self.fill(np.concatenate([forth, back]), colour)


def draw_person(image: Image, looks: Looks, pose: Pose, face: Expression) -> None:
    """Draws a person, face to the camera, into `image`."""
    brush = _Brush(image, pose)
    shade = _mix(looks.skin, (0, 0, 0), 0.25)
    _draw_body(brush, looks, shade)
    brush.ellipse(-looks.width, 2, 5, 9, shade)
    brush.ellipse(looks.width, 2, 5, 9, shade)
    skin = _complexion(looks.skin, face.smile)
    looks = replace(looks, skin=skin)
    brush.ellipse(0, 0, looks.width, looks.height, skin)
    _draw_fringe(brush, looks)
    dx, dy = 4 * face.turn[0], 3 * face.turn[1]
    _draw_cheeks(brush, looks, face, dx, dy)
    for side in (-1, 1):
        _draw_eye(brush, looks, face, side, dx, dy)
        _draw_brow(brush, looks, face, side, dx, dy)
    nose_x, nose_y = 1.4 * dx, 7 + 1.2 * dy
    nose = np.array([[-2.0, -13], [2, -13], [6, 2], [3, 4.5], [-3, 4.5], [-6, 2]])
    brush.fill(nose + (nose_x, nose_y), _mix(looks.skin, (0, 0, 0), 0.12))
    brush.ellipse(nose_x - 3, nose_y + 2.5, 1.6, 1, shade)
    brush.ellipse(nose_x + 3, nose_y + 2.5, 1.6, 1, shade)
    _draw_mouth(brush, looks, face, dx, dy)


def draw_back_of_head(image: Image, looks: Looks, pose: Pose) -> None:
    """Draws a person who has turned away, so that the frame shows no face."""
    brush = _Brush(image, pose)
    _draw_body(brush, looks, _mix(looks.skin, (0, 0, 0), 0.25))
    brush.ellipse(-looks.width, 2, 5, 9, looks.skin)
    brush.ellipse(looks.width, 2, 5, 9, looks.skin)
    brush.ellipse(0, -2, looks.width + 2, looks.height + 1, looks.hair)
    x = 0.5 * looks.width * _ACROSS
    brush.band(
        x, -30 + 8 * _ACROSS**2, -28 + 10 * _ACROSS**2, _mix(looks.hair, (255, 255, 255), 0.2)
    )


# The colours of pleasure and displeasure, and their share in the skin's at a full smile.
FLUSHED, PALE, FLUSH = (105, 115, 238), (150, 168, 135), 0.5


def _complexion(skin: Colour, smile: Number) -> Colour:
    """The skin, flushed with pleasure or pale with displeasure."""
    return _mix(skin, FLUSHED if smile > 0 else PALE, FLUSH * min(abs(smile), 1.3))


def _draw_body(brush: _Brush, looks: Looks, shade: Colour) -> None:
    shoulders = np.array([[-75.0, 160], [-70, 84], [-30, 66], [30, 66], [70, 84], [75, 160]])
    brush.fill(np.array([[-17.0, 30], [17, 30], [20, 74], [-20, 74]]), shade)
    brush.fill(shoulders, looks.shirt)
    brush.ellipse(0, 64, 19, 9, shade)
    brush.ellipse(0, -8, looks.width + 4, looks.height, looks.hair)
    if looks.long_hair:
        x = looks.width + 3
        brush.fill(np.array([[-x, -5], [x, -5], [x + 3, 62], [x - 14, 66], [0, 30], [14 - x, 66],
                             [-x - 3, 62]]), looks.hair)  # fmt: skip
        brush.fill(np.array([[-17.0, 30], [17, 30], [20, 66], [-20, 66]]), shade)


def _draw_fringe(brush: _Brush, looks: Looks) -> None:
    """The hair over the forehead: between the head's outline and the hair line."""
    x = 0.97 * looks.width * _ACROSS
    top = -looks.height * np.sqrt(np.maximum(1 - (x / looks.width) ** 2, 0)) - 2
    line = looks.hair_line + 16 * _ACROSS**2
    brush.band(x, np.minimum(top, line), np.maximum(line, top), looks.hair)


def _draw_cheeks(brush: _Brush, looks: Looks, face: Expression, dx: Number, dy: Number) -> None:
    """Round and red when smiling, with folds beside the mouth; pale when not."""
    smile = max(face.smile, 0.0)
    blush = _mix(looks.skin, _mix((90, 90, 235), looks.skin, 0.3), 0.55 * smile)
    y = 15 - 3 * smile + dy
    for side in (-1, 1):
        x = side * (looks.eye_gap + 6) + dx
        brush.ellipse(x, y, 8 + 2 * smile, 6 + 1.5 * smile, blush)


def _draw_eye(
    brush: _Brush, looks: Looks, face: Expression, side: int, dx: Number, dy: Number
) -> None:
    x, y = side * looks.eye_gap + dx, -7 + dy
    open_ = min(max(face.eye_open, 0.05), 1.2)
    upper, lower = 7.0 * open_, 5.5 * open_ * (1 - 0.35 * max(face.smile, 0.0))
    brush.ellipse(x, y, 10.5, 8.5, _mix(looks.skin, (0, 0, 0), 0.10))
    over, bow = 9 * _ACROSS + x, 1 - _ACROSS**2
    brush.band(over, y - upper * bow - 1.5, y + lower * bow + 0.7, (30, 30, 40))
    brush.band(over, y - upper * bow, y + lower * bow, (240, 243, 245))
    # The iris is cut by the lids: its circle is clipped to the opening.
    disc = _CIRCLE * 4.6 + (2.5 * face.gaze[0], 1.5 * face.gaze[1])
    bow = np.maximum(1 - (disc[:, 0] / 9) ** 2, 0)
    disc[:, 1] = np.clip(disc[:, 1], -upper * bow, lower * bow)
    brush.fill(disc + (x, y), looks.iris)
    if open_ > 0.25:
        brush.ellipse(x + 2.5 * face.gaze[0], y + 1.5 * face.gaze[1], 2.0, min(2.0, 4 * open_),
                      (15, 15, 15))  # fmt: skip


def _draw_brow(
    brush: _Brush, looks: Looks, face: Expression, side: int, dx: Number, dy: Number
) -> None:
    """A friendly brow is an arch; a frown brings its inner end down and to the middle."""
    brow = min(max(face.brow, -1.2), 1.2)
    frown = max(-brow, 0.0)
    u = 0.5 * (_ACROSS + 1)  # 0 at the inner end, 1 at the outer
    x = side * (looks.eye_gap - 9 - 3 * frown + (19 + 2 * frown) * u) + dx
    slope = 7 * brow  # the outer end's height over the inner one's is -slope
    y = looks.brow_y - 21 + dy - 2.5 * max(brow, 0.0) - slope * (0.5 - u) + 0.0 * u
    y = y - 3.0 * (1 - (2 * u - 1) ** 2) * (1 + 0.4 * brow)
    thick = 3.4 - 1.4 * u
    brush.band(x, y - thick / 2, y + thick / 2, _mix(looks.hair, (20, 20, 20), 0.5))


def _draw_mouth(brush: _Brush, looks: Looks, face: Expression, dx: Number, dy: Number) -> None:
    smile = min(max(face.smile, -1.3), 1.3)
    open_ = min(max(face.mouth_open, 0.0), 1.0)
    half = looks.mouth_width * (1 + 0.18 * max(smile, 0.0) - 0.12 * max(-smile, 0.0))
    x = half * _ACROSS + dx
    bow = 1 - _ACROSS**2
    # Corners rise by as much as the middle falls, so that the mouth stays in its place.
    middle = looks.mouth_y + dy + 13 * smile * (bow - 0.5)
    gap_up, gap_down = 2.5 * open_ * bow, 9 * open_ * bow
    lips = _mix(looks.skin, (70, 50, 170), 0.62)
    brush.band(x, middle - gap_up - 3.2 * bow - 0.8, middle + gap_down + 4.0 * bow + 0.8, lips)
    brush.band(x, middle - gap_up - 0.6, middle + gap_down + 0.6, (45, 25, 60))
    if open_ > 0.2:
        teeth = np.minimum(3.0, gap_up + gap_down - 1)
        inner = slice(2, -2)
        top = (middle - gap_up)[inner]
        brush.band(x[inner], top, top + np.maximum(teeth[inner], 0), (235, 240, 242))
