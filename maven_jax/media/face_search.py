"""How faces are looked for in a video: the values, and the options of commands that set them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from maven_jax.command_line import count, local_path, positive
from maven_jax.errors import UserError

# Detectors by name, in the order in which they are taken.
DETECTORS = ("yunet", "mtcnn", "haar")
# Height of the smallest face to find, as a share of the picture's.
SMALLEST_FACE = 0.12
# Of a crowd, only the largest faces.
MOST_FACES = 8


@dataclass(frozen=True)
class FaceSearch:
    """How faces are looked for.

    Attributes:
        model: a name of `DETECTORS`, or YuNet's ONNX file; None for the first name that is here.
        smallest: height of the smallest face, as a share of the picture's.
        threshold: least confidence of a face; None for the detector's own.
        most: only the largest faces of a picture.
        every: a picture of so many is searched; in those between, faces are followed.

    Raises:
        UserError: a value that means nothing.
    """

    model: Path | None = None
    smallest: float | int = SMALLEST_FACE
    threshold: float | int | None = None
    most: int = MOST_FACES
    every: int = 1

    def __post_init__(self) -> None:
        if not 0.01 <= self.smallest <= 1:
            raise UserError(f"smallest face {self.smallest}: expected a share from 0.01 to 1")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise UserError(
                f"threshold of faces {self.threshold}: expected more than 0, less than 1"
            )
        if self.most < 1 or self.every < 1:
            raise UserError("most faces, and a face search every N pictures: expected at least 1")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that `search_of` reads."""
    group = parser.add_argument_group("faces")
    group.add_argument(
        "--face-model",
        type=local_path,
        metavar=f"{'|'.join(DETECTORS)}|ONNX",
        help="what finds faces: a name, or YuNet's file (default: the first name that is here; "
        "`maven-jax weights yunet` fetches the best)",
    )
    group.add_argument(
        "--smallest-face",
        type=positive,
        default=SMALLEST_FACE,
        metavar="SHARE",
        help=f"height of the smallest face, as a share of the picture's (default {SMALLEST_FACE})",
    )
    group.add_argument(
        "--face-threshold",
        type=positive,
        metavar="C",
        help="least confidence of a face (default: yunet 0.6, mtcnn 0.7, haar none)",
    )
    group.add_argument(
        "--most-faces",
        type=count,
        default=MOST_FACES,
        metavar="N",
        help=f"only the N largest faces of a picture (default {MOST_FACES})",
    )
    group.add_argument(
        "--face-every",
        type=count,
        default=1,
        metavar="N",
        help="search every N-th picture and follow faces in between (default 1: search all)",
    )


def search_of(args: argparse.Namespace) -> FaceSearch:
    """The values of the options.

    Raises:
        UserError: one that means nothing.
    """
    return FaceSearch(
        args.face_model, args.smallest_face, args.face_threshold, args.most_faces, args.face_every
    )
