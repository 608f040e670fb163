"""YuNet through OpenCV, by a network of its inputs and outputs that sees a face in any white spot.

The real weights are not shipped: what is tested is everything around them.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from maven_jax.media.find_faces import TEMPLATE, YuNetDetector, alignment

SIDE = 40
# Eyes, nose and mouth around the middle of a face of that side.
LANDMARKS = (TEMPLATE - TEMPLATE.mean(axis=0)) * SIDE / 80


def field(number: int, value: int | bytes | str) -> bytes:
    """A field of a protocol buffer: a number, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    more = b""
    while value > 127:
        more += bytes([value & 127 | 128])
        value >>= 7
    return more + bytes([value])


def node(kind: str, inputs: list[str], output: str, **attributes: list[int]) -> bytes:
    named = b"".join(
        field(5, field(1, name) + b"".join(field(8, i) for i in ints) + field(20, 7))
        for name, ints in attributes.items()
    )
    return b"".join(field(1, name) for name in inputs) + (
        field(2, output) + field(3, output) + field(4, kind) + named
    )


def tensor(name: str, values: np.ndarray) -> bytes:
    dims = b"".join(field(1, n) for n in values.shape)
    return dims + field(2, 1) + field(8, name) + field(9, values.astype("<f4").tobytes())


def value_info(name: str, shape: tuple[int, ...]) -> bytes:
    dims = b"".join(field(1, field(1, n)) for n in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Scores are brightness at a stride of 8 and nothing at the others; boxes have one size."""
    nodes, weights, outputs = [], [], []
    for stride in (8, 16, 32):
        cells, pool = 640 // stride, f"pool_{stride}"
        square = {"kernel_shape": [stride, stride], "strides": [stride, stride]}
        nodes.append(node("AveragePool", ["input"], pool, **square))
        box = [0.5, 0.5, *np.log([SIDE / stride] * 2)]
        points = 0.5 + LANDMARKS.ravel() / stride
        for name, biases in (("cls", [0.0]), ("obj", [0.0]), ("bbox", box), ("kps", points)):
            n, out = len(biases), f"{name}_{stride}"
            score = 1 / (3 * 255) if stride == 8 and n == 1 else 0.0
            weights += [
                tensor(f"{out}_w", np.full((n, 3, 1, 1), score)),
                tensor(f"{out}_b", np.asarray(biases)),
            ]
            conv = [pool, f"{out}_w", f"{out}_b"]
            nodes.append(node("Conv", conv, f"{out}_c", kernel_shape=[1, 1]))
            nodes.append(node("Transpose", [f"{out}_c"], out, perm=[0, 2, 3, 1]))
            outputs.append(value_info(out, (1, cells, cells, n)))
    graph = b"".join(field(1, n) for n in nodes) + field(2, "yunet")
    graph += b"".join(field(5, w) for w in weights)
    graph += field(11, value_info("input", (1, 3, 640, 640)))
    graph += b"".join(field(12, o) for o in outputs)
    path = tmp_path_factory.mktemp("yunet") / "face_detection_yunet.onnx"
    path.write_bytes(field(1, 7) + field(7, graph) + field(8, field(1, "") + field(2, 11)))
    return path


@pytest.mark.parametrize("scale", [1, 3])
def test_boxes_and_landmarks_are_in_pixels_of_the_picture(model, scale):
    detector = YuNetDetector(model, smallest=20 / 240, least_confidence=0.6)
    image = np.zeros((240, 328, 3), np.uint8)
    image[80:88, 160:168] = 255
    image[160:168, 240:248] = 200
    large = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    faces = detector(large, [], True)
    assert sorted(face.confidence for face in faces) == pytest.approx([200 / 255, 1], abs=0.02)
    face = max(faces, key=lambda face: face.confidence)
    middle = np.array([164, 84])
    half = SIDE / 2
    np.testing.assert_allclose(
        face.box, scale * np.array([*(middle - half), SIDE, SIDE]), atol=scale * 1.0
    )
    assert face.landmarks is not None
    np.testing.assert_allclose(face.landmarks, scale * (middle + LANDMARKS), atol=scale * 1.0)
    matrix = alignment(face)
    np.testing.assert_allclose(face.landmarks @ matrix[:, :2].T + matrix[:, 2], TEMPLATE, atol=0.5)
    assert detector(np.zeros_like(large), [face], False) == []


def test_weaker_faces_than_asked_for_are_left_out(model):
    image = np.zeros((240, 320, 3), np.uint8)
    image[160:168, 240:248] = 200
    assert YuNetDetector(model, smallest=0.12, least_confidence=0.9)(image, [], True) == []
