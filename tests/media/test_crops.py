"""Folders of crops: which frames they hold, and pictures that are broken."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest

from maven_jax.media.crops import Crops, check_crop, jpeg_fault
from tests.support.corpora import write_crops


def test_index_is_zero_based_and_sorted(tmp_path):
    write_crops(tmp_path, [4, 0, 2, 99_999, 100_000])
    for name in ("1.jpg", "00000.jpg", "00001.png", "000004.jpg", "Thumbs.db", "00008.JPG"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "00009.jpg").mkdir()
    crops = Crops(tmp_path)
    np.testing.assert_array_equal(crops.existing, [0, 2, 4, 99_999, 100_000])
    names = "00000.jpg 000004.jpg 00001.png 00008.JPG 00009.jpg 1.jpg Thumbs.db"
    assert crops.others == names.split()
    assert crops.path_of(2) == tmp_path / "00003.jpg"


def test_load_gives_rgb_of_one_size(tmp_path):
    picture = np.zeros((112, 112, 3), np.uint8)
    picture[..., 0] = 255  # blue, as OpenCV writes it
    cv2.imwrite(str(tmp_path / "00001.jpg"), picture)
    write_crops(tmp_path, [50], size=200)
    crops = Crops(tmp_path)
    blue = crops.load(0)
    assert blue.shape == (112, 112, 3)
    assert blue.dtype == np.uint8
    assert blue[..., 2].min() > 240
    assert blue[..., 0].max() < 15
    grey = crops.load(50)
    assert grey.shape == (112, 112, 3)
    assert abs(int(grey.mean()) - 100) <= 1
    assert (crops.missing, crops.broken, crops.resized) == (0, 0, 1)


def test_missing_and_broken_crops_are_none_and_counted(tmp_path):
    write_crops(tmp_path, [0, 1, 2, 3])
    whole = (tmp_path / "00002.jpg").read_bytes()
    # OpenCV decodes this one, the lower part grey.
    (tmp_path / "00002.jpg").write_bytes(whole[: len(whole) - 20])
    (tmp_path / "00003.jpg").write_bytes(b"")
    crops = Crops(tmp_path)
    found = [crops.load(i) is not None for i in range(6)]
    assert found == [True, False, False, True, False, False]
    assert (crops.missing, crops.broken) == (2, 2)


def test_grey_pictures_load_as_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / "00001.jpg"), np.full((112, 112), 80, np.uint8))
    assert Crops(tmp_path).load(0).shape == (112, 112, 3)


def test_every_truncation_is_noticed(tmp_path):
    rng = np.random.default_rng(0)
    picture = cv2.resize(rng.integers(0, 256, (14, 14, 3), dtype=np.uint8), (112, 112))
    cv2.imwrite(str(tmp_path / "00001.jpg"), picture)
    data = (tmp_path / "00001.jpg").read_bytes()
    assert jpeg_fault(data) == (112, 112)
    assert jpeg_fault(data + b"\0" * 7) == (112, 112)
    assert all(isinstance(jpeg_fault(data[:n]), str) for n in range(len(data)))


def test_progressive_and_rectangular_pictures(tmp_path):
    path = tmp_path / "a.jpg"
    picture = np.zeros((50, 70, 3), np.uint8)
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert check_crop(path) == (50, 70)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "zero bytes"),
        (b"\x89PNG\r\n", "not a JPEG"),
        (b"\xff\xd8" + b"\xff" * 50, "truncated"),
        (b"\xff\xd8\x00\x01" + b"a" * 50, "broken JPEG header"),
        (b"\xff\xd8" + b"\xff\xe0\x00\x00" * 50 + b"\xff\xd9", "JPEG"),
        (b"\xff\xd8\xff\xc0\x00\x11\x08\x00\x00\x00\x00\x03" + b"\0" * 9 + b"\xff\xd9", "header"),
    ],
)
def test_faults(tmp_path, data, message):
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    assert message in check_crop(path)


def test_what_is_no_file_does_not_hang(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "00001.jpg")
    write_crops(tmp_path, [1])
    crops = Crops(tmp_path)
    np.testing.assert_array_equal(crops.existing, [1])
    assert isinstance(check_crop(tmp_path / "00001.jpg"), str)
    assert "cannot be read" in check_crop(tmp_path / "absent.jpg")
    monkeypatch.setattr("maven_jax.media.crops.MAX_BYTES", 100)
    assert "more than 100 bytes" in check_crop(tmp_path / "00002.jpg")


def test_links_stay_within_the_corpus(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    write_crops(outside, [0])
    write_crops(root / "a", [1])
    os.symlink(outside / "00001.jpg", root / "a" / "00001.jpg")
    os.symlink(root / "a" / "00002.jpg", root / "a" / "00003.jpg")
    crops = Crops(root / "a", root)
    np.testing.assert_array_equal(crops.existing, [1, 2])
    assert crops.outside == ["00001.jpg"]
    assert crops.load(0) is None
