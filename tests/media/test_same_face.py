"""Tracks over cuts are joined where an embedding says so, and nobody is twice in a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maven_jax.media.crops import Crops
from maven_jax.media.cut_faces import cut_faces
from maven_jax.media.find_faces import Face
from maven_jax.media.frame_times import probe
from maven_jax.media.same_face import SameFace
from tests.support import corpora


def by_brightness(folder: Path) -> np.ndarray:
    """Black and white are at right angles."""
    crops = Crops(folder)
    angle = np.pi / 2 * float(crops.load(int(crops.existing[0])).mean()) / 255
    return np.array([np.cos(angle), np.sin(angle)])


def film(path: Path, shots: list[int]) -> None:
    """Twelve pictures a shot, of one brightness in the middle and another around."""
    images = []
    for i, grey in enumerate(shots):
        image = np.full((64, 128, 3), 250 * (i % 2), np.uint8)
        image[:, 32:96] = grey
        images += [image] * 12
    corpora.write_video(path, frames=len(images), fps=25, images=images)


def faces_of(path: Path, place: Path, least: float, faces: list[Face]) -> tuple[list, list[str]]:
    notes = list[str]()
    people = cut_faces(
        path,
        probe(path),
        place,
        detector=lambda *_: faces,
        choice="all",
        same=SameFace(least, by_brightness),
        note=notes.append,
    )
    return people, notes


def test_a_face_that_comes_back_after_a_cut_is_the_same_person(tmp_path):
    film(tmp_path / "v.mp4", [30, 220, 40])
    one = [Face((48, 16, 30, 30), 0.9)]
    people, notes = faces_of(tmp_path / "v.mp4", tmp_path / "joined", 0.95, one)
    first, second = (np.flatnonzero(face.found).tolist() for face, _ in people)
    assert (first, second) == ([*range(12), *range(24, 36)], list(range(12, 24)))
    assert [len(list(folder.iterdir())) for _, folder in people] == [24, 12]
    assert "of one person 1.00 to 1.00, of different people 0.39 to 0.44" in notes[0]
    apart, _ = faces_of(tmp_path / "v.mp4", tmp_path / "apart", 0.9999, one)
    assert [face.name for face, _ in apart] == ["1", "2", "3"]


def test_two_in_one_picture_are_two_and_without_a_cut_nothing_is_asked(tmp_path):
    film(tmp_path / "v.mp4", [90, 100])
    two = [Face((34, 16, 28, 28), 0.9), Face((66, 16, 28, 28), 0.9)]
    people, _ = faces_of(tmp_path / "v.mp4", tmp_path / "two", 0.5, two)
    assert [int(face.found.sum()) for face, _ in people] == [24, 24]
    film(tmp_path / "w.mp4", [90])
    people, notes = faces_of(tmp_path / "w.mp4", tmp_path / "one", 0.5, two)
    assert [int(face.found.sum()) for face, _ in people] == [12, 12]
    assert not notes
