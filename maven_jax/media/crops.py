"""Folders of face crops: `00001.jpg` is the first frame, a frame without a face has no file.

Pictures of other formats and names (`1.png`, `frame_00001.JPG`) are read by their number, if one
kind of name is in the folder; they count from 1 too.
"""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import simplejpeg
from jaxtyping import Int, UInt8

from maven_jax.errors import listing
from maven_jax.media.problems import InputError, printable, read_bytes

CROP_SIZE = 112
MAX_BYTES = 4 << 20
# A face of 4096 x 4096 pixels; a header can claim 65535 x 65535.
MAX_PIXELS = 1 << 24
# Without a video, a crop so many frames behind the one before it (an hour) is a stray file.
MAX_GAP_FRAMES = 100_000
# At least five digits, and no zeros in front beyond the fifth: one name per frame.
_NAME = re.compile(r"(?:\d{5}|[1-9]\d{5,7})\.jpg", re.ASCII)
# Any other picture with a number at the end of its name.
_NUMBERED = re.compile(
    r"(?P<prefix>.{0,200}?)(?P<number>\d{1,8})\.(?:jpe?g|png|bmp|webp)", re.ASCII | re.IGNORECASE
)
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
# How files of other formats than JPEG begin.
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF")
# Some of each are named, the others counted.
_NAMED = 3


def crop_name(frame: int) -> str:
    """`0 -> "00001.jpg"`: Aff-Wild2 counts from 1."""
    return f"{frame + 1:05d}.jpg"


def decoded_jpeg(data: bytes) -> UInt8[np.ndarray, "h w 3"] | str:
    """The picture of a JPEG file in RGB, or what is wrong with it.

    What libjpeg only warns about counts too: it fills the rest of a truncated picture with grey and
    goes on behind damaged data.
    """
    if not data:
        return "zero bytes"
    if data.startswith(b"version https://git-lfs"):
        return "not a JPEG file but a pointer of Git LFS"
    if not data.startswith(b"\xff\xd8"):
        return "not a JPEG, PNG, BMP or WebP file"
    try:
        height, width = map(int, simplejpeg.decode_jpeg_header(data)[:2])
        if height * width > MAX_PIXELS:
            return f"{width} x {height} pixels are too many for a face"
        image = simplejpeg.decode_jpeg(data)
    except ValueError as error:
        return f"damaged JPEG: {printable(str(error))}"
    if b"Exif\0\0" in data[:1024]:
        # Cameras note how a picture is turned, which OpenCV heeds.
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        image = image if bgr is None else cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return image


def decoded_picture(data: bytes) -> UInt8[np.ndarray, "h w 3"] | str:
    """As `decoded_jpeg`, also of PNG, BMP and WebP, whatever the file is called."""
    if not data.startswith(_SIGNATURES):
        return decoded_jpeg(data)
    try:
        with PIL.Image.open(io.BytesIO(data), formats=("PNG", "BMP", "WEBP")) as image:
            width, height = image.size
            if height * width > MAX_PIXELS:
                return f"{width} x {height} pixels are too many for a face"
            return np.array(image.convert("RGB"))
    except Exception as error:  # of many types, by format
        return f"damaged picture: {printable(str(error))}"


def read_crop(path: Path) -> UInt8[np.ndarray, "h w 3"] | str:
    """The picture of a crop in RGB, or what is wrong with the file."""
    try:
        return decoded_picture(read_bytes(path, MAX_BYTES, "a crop"))
    except InputError as error:
        return error.message


class Crops:
    """An index of one face track's crops.

    Attributes:
        path: the folder.
        existing: (n,) frame indices from 0 that have a file, increasing.
        others: sorted names in the folder that are no crops.
        renamed: frame -> name of its file, where that is not the usual one.
        outside: sorted names of symbolic links that leave `root`; they are not followed.
        broken: frame -> what is wrong with its file, of the frames that `load` was asked for.
        missing, resized: how often `load` met a frame without a file, and a crop of another size
            than 112 x 112.

    Raises:
        InputError: (a UserError) the folder cannot be read.
    """

    def __init__(self, path: Path, root: Path | None = None, first: int = 0):
        """Lists the folder.

        Args:
            path: the folder.
            root: links that leave it are not followed; None for the folder itself.
            first: the frame of the video that counts as frame 0; those before it are left out.
        """
        self.path, self._first = Path(path), first
        self.broken: dict[int, str] = {}
        self.missing = self.resized = 0
        root = Path(root or path).resolve()
        frames: list[int] = []
        numbered: dict[str, dict[int, list[str]]] = {}  # by what is before the number
        others: list[str] = []
        outside: list[str] = []
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    name = entry.name
                    if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root):
                        outside.append(name)
                    elif _NAME.fullmatch(name) and int(name[:-4]) and entry.is_file():
                        frames.append(int(name[:-4]) - 1)
                    elif (match := _NUMBERED.fullmatch(name)) and entry.is_file():
                        same = numbered.setdefault(match["prefix"], {})
                        same.setdefault(int(match["number"]) - 1, []).append(name)
                    else:
                        others.append(name)
        except OSError as error:
            raise InputError(path, "", f"cannot be read: {error.strerror or error}") from None
        present = frozenset(frames)
        self._numbered = numbered
        self.renamed = {
            frame: names[0]
            for frame, names in self._taken_names(bool(frames)).items()
            if frame >= 0 and frame not in present and len(names) == 1
        }
        taken = set(self.renamed.values())
        unused = [n for same in numbered.values() for names in same.values() for n in names]
        frames += self.renamed
        frames = [frame - first for frame in frames if frame >= first]
        self.existing: Int[np.ndarray, "n"] = np.sort(np.asarray(frames, np.int64))
        self._present = frozenset(frames)
        self.others = sorted([*others, *(name for name in unused if name not in taken)])
        self.outside = sorted(outside)

    def _taken_names(self, usual: bool) -> dict[int, list[str]]:
        """Frame -> names of the pictures that are read by their number."""
        if usual or "" in self._numbered:
            return self._numbered.get("", {})
        return next(iter(self._numbered.values())) if len(self._numbered) == 1 else {}

    def check_names(self) -> None:
        """Checks that the names count frames as Aff-Wild2 does.

        Raises:
            InputError: the first frame's crop would have the number 0, two are of one frame, or
                there are pictures and not one is a crop.
        """
        for frame, names in sorted(self._taken_names(len(self._present) > 0).items()):
            if frame < 0:
                message = f"expected {crop_name(0)} for the first frame; count the names from 1"
                raise InputError(self.path / names[0], "", message)
            if len(names) > 1:
                message = f"{listing(sorted(names), _NAMED)}: of the same frame; keep one"
                raise InputError(self.path, "", message)
        pictures = [n for n in self.others if Path(n).suffix.lower() in _PICTURES]
        if pictures and not len(self.existing):
            names = listing([printable(name) for name in pictures], _NAMED)
            message = f"no crop is named like {crop_name(0)} (the first frame's), but {names}"
            raise InputError(self.path, "", message)

    @property
    def num_frames(self) -> int:
        """Frames up to the last crop, where no video tells their number.

        Raises:
            InputError: a crop lies so far behind the others that it is a stray file.
        """
        gaps = np.diff(self.existing, prepend=-1)
        if (gaps > MAX_GAP_FRAMES).any():
            stray = int((gaps > MAX_GAP_FRAMES).argmax())
            message = f"{gaps[stray]:,} frames behind the crop before it; remove a stray file"
            raise InputError(self.path_of(int(self.existing[stray])), "", message)
        return int(self.existing[-1]) + 1 if len(self.existing) else 0

    def path_of(self, frame: int) -> Path:
        """The path of the crop of frame `frame` (from 0), whether it exists or not."""
        frame += self._first
        return self.path / self.renamed.get(frame, crop_name(frame))

    def load(self, frame: int) -> UInt8[np.ndarray, "112 112 3"] | None:
        """The crop of frame `frame` (from 0) as RGB; None if it is missing or does not decode."""
        if frame not in self._present:
            self.missing += 1
            return None
        image = read_crop(self.path_of(frame))
        if isinstance(image, str):
            self.broken[frame] = image
            return None
        if image.shape[:2] != (CROP_SIZE, CROP_SIZE):
            self.resized += 1
            image = cv2.resize(image, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_AREA)
        return image

    def notes(self) -> list[str]:
        """What was wrong with the crops that were loaded, in sentences."""
        if not self.broken:
            return []
        named = [
            f"{self.path_of(frame).name} ({why})" for frame, why in sorted(self.broken.items())
        ]
        count = "1 crop" if len(named) == 1 else f"{len(named):,} crops"
        return [f"{count} cannot be used (masked): {listing(named, _NAMED)}"]
