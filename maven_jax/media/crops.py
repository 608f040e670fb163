"""Folders of face crops: `00001.jpg` is the first frame, a frame without a face has no file."""

from __future__ import annotations

import os
import re
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Int, UInt8

CROP_SIZE = 112
MAX_BYTES = 4 << 20
# At least five digits, and no zeros in front beyond the fifth: one name per frame.
_NAME = re.compile(r"(?:\d{5}|[1-9]\d{5,7})\.jpg", re.ASCII)
# Start-of-frame markers: C4, C8 and CC are tables.
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def crop_name(frame: int) -> str:
    """`0 -> "00001.jpg"`: Aff-Wild2 counts from 1."""
    return f"{frame + 1:05d}.jpg"


def jpeg_fault(data: bytes) -> str | tuple[int, int]:
    """Reads a JPEG file's markers without decoding it.

    Returns:
        Height and width from the header, or what is wrong. A truncated picture has no end marker;
        a decoder would fill the rest with grey and say nothing.
    """
    if not data:
        return "zero bytes"
    if data[:2] != b"\xff\xd8":
        return "not a JPEG file"
    size = None
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            return "broken JPEG header"
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker in _FRAME_MARKERS:
            size = (int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9]))
        if marker == 0xDA:  # the picture itself begins
            break
        at += 2 + max(int.from_bytes(data[at + 2 : at + 4]), 2)
    if size is None or min(size) == 0:
        return "truncated JPEG: cut off within its header"
    if not data.endswith(b"\xff\xd9") and not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        return "truncated JPEG: no end marker"
    return size


def read_crop(path: str | Path) -> bytes:
    """The file's bytes, at most `MAX_BYTES` + 1 of them; OSError if it cannot be read."""
    # O_NONBLOCK: a named pipe in the folder must not hang the run.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(fd, MAX_BYTES + 1)
    finally:
        os.close(fd)


def check_crop(path: str | Path) -> str | tuple[int, int]:
    """Height and width of a crop, or what is wrong with it; does not decode."""
    crop = _read_intact(path)
    return crop if isinstance(crop, str) else crop[1]


def _read_intact(path: str | Path) -> tuple[bytes, tuple[int, int]] | str:
    """A crop's bytes, and height and width by its header; or what is wrong with it."""
    try:
        data = read_crop(path)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    if len(data) > MAX_BYTES:
        return f"more than {MAX_BYTES:,} bytes"
    size = jpeg_fault(data)
    return size if isinstance(size, str) else (data, size)


class Crops:
    """An index of one face track's crops.

    Attributes:
        path: the folder.
        existing: (n,) frame indices from 0 that have a file, increasing.
        others: sorted names in the folder that are no crops (`00001.png`, `1.jpg`, `00000.jpg`).
        outside: sorted names of symbolic links that leave `root`; they are not followed.
        missing, broken, resized: how often `load` met a frame without a file, with a file that
            does not decode, and one of another size than 112 x 112.
    """

    def __init__(self, path: Path, root: Path | None = None):
        self.path = Path(path)
        self.missing = self.broken = self.resized = 0
        root = Path(root or path).resolve()
        frames: list[int] = []
        others: list[str] = []
        outside: list[str] = []
        with os.scandir(self.path) as entries:
            for entry in entries:
                if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root):
                    outside.append(entry.name)
                elif _NAME.fullmatch(entry.name) and entry.name != "00000.jpg" and entry.is_file():
                    frames.append(int(entry.name[:-4]) - 1)
                else:
                    others.append(entry.name)
        self.existing: Int[np.ndarray, "n"] = np.sort(np.asarray(frames, np.int64))
        self._present = frozenset(frames)
        self.others, self.outside = sorted(others), sorted(outside)

    def path_of(self, frame: int) -> Path:
        """The path of the crop of frame `frame` (from 0), whether it exists or not."""
        return self.path / crop_name(frame)

    def load(self, frame: int) -> UInt8[np.ndarray, "112 112 3"] | None:
        """The crop of frame `frame` (from 0) as RGB; None if it is missing or does not decode."""
        if frame not in self._present:
            self.missing += 1
            return None
        crop = _read_intact(self.path_of(frame))
        if isinstance(crop, str):
            self.broken += 1
            return None
        image = cv2.imdecode(np.frombuffer(crop[0], np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            self.broken += 1
            return None
        if image.shape[:2] != (CROP_SIZE, CROP_SIZE):
            self.resized += 1
            image = cv2.resize(image, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_AREA)
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
