"""Folders of crops: which frames they hold, and pictures that are broken."""

from __future__ import annotations

import os
import tracemalloc

import cv2
import numpy as np
import PIL.ExifTags
import PIL.Image
import pytest

from maven_jax.media.crops import MAX_PIXELS, Crops, decoded_jpeg, read_crop
from maven_jax.media.problems import InputError
from maven_jax.media.recording import open_recording
from tests.support.corpora import write_crops, write_video


def test_index_is_zero_based_and_sorted(tmp_path):
    write_crops(tmp_path, [4, 0, 2, 99_999, 100_000])
    for name in ("1.jpg", "00000.jpg", "00001.png", "000004.jpg", "Thumbs.db", "00008.JPG"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "00009.jpg").mkdir()
    crops = Crops(tmp_path)
    np.testing.assert_array_equal(crops.existing, [0, 2, 3, 4, 7, 99_999, 100_000])
    names = "00000.jpg 00001.png 00009.jpg 1.jpg Thumbs.db"
    assert crops.others == names.split()
    assert crops.path_of(2) == tmp_path / "00003.jpg"
    assert crops.path_of(3) == tmp_path / "000004.jpg"


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
    assert (crops.missing, crops.broken, crops.resized) == (0, {}, 1)


def test_missing_and_broken_crops_are_none_and_counted(tmp_path):
    write_crops(tmp_path, [0, 1, 2, 3])
    whole = (tmp_path / "00002.jpg").read_bytes()
    # OpenCV decodes this one, the lower part grey.
    (tmp_path / "00002.jpg").write_bytes(whole[: len(whole) - 20])
    (tmp_path / "00003.jpg").write_bytes(b"")
    crops = Crops(tmp_path)
    found = [crops.load(i) is not None for i in range(6)]
    assert found == [True, False, False, True, False, False]
    assert crops.missing == 2
    assert list(crops.broken) == [1, 2]
    (note,) = crops.notes()
    assert note.startswith("2 crops cannot be used (masked): 00002.jpg (")
    assert "00003.jpg (zero bytes)" in note


def test_grey_pictures_load_as_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / "00001.jpg"), np.full((112, 112), 80, np.uint8))
    assert Crops(tmp_path).load(0).shape == (112, 112, 3)


def picture(seed, side=112):
    """A smooth picture of many colours."""
    small = np.random.default_rng(seed).integers(0, 256, (14, 14, 3), dtype=np.uint8)
    return cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)


def jpeg(image, *options):
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95, *options])[1].tobytes()


def test_every_truncation_is_noticed():
    data = jpeg(picture(0))
    assert decoded_jpeg(data).shape == decoded_jpeg(data + b"\0" * 7).shape == (112, 112, 3)
    assert all(isinstance(decoded_jpeg(data[:n]), str) for n in range(len(data)))


def test_damage_that_libjpeg_warns_about_is_noticed(tmp_path):
    """OpenCV prints a line on stderr and goes on with another picture."""
    data = bytearray(jpeg(picture(1)))
    begin = data.index(b"\xff\xda") + 14
    data[begin + 200 : begin + 210] = b"\x55" * 10
    write_crops(tmp_path, [0, 1])
    (tmp_path / "00001.jpg").write_bytes(data)
    crops = Crops(tmp_path)
    assert crops.load(0) is None
    assert crops.broken[0].startswith("damaged JPEG: ")
    assert crops.load(1) is not None


@pytest.mark.parametrize(
    "options",
    [
        (),
        (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    ],
)
def test_intact_pictures_are_those_of_opencv(options):
    data = jpeg(picture(2)[:50], *options)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(decoded_jpeg(data), expected)


def test_a_picture_that_a_camera_turned_is_upright(tmp_path):
    exif = PIL.Image.Exif()
    exif[PIL.ExifTags.Base.Orientation] = 6
    PIL.Image.fromarray(picture(3)[:, :60]).save(tmp_path / "00001.jpg", exif=exif)
    assert read_crop(tmp_path / "00001.jpg").shape == (60, 112, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "zero bytes"),
        (b"\x89PNG\r\n", "not a JPEG, PNG"),
        (b"\x89PNG\r\n\x1a\n" + b"a" * 50, "damaged picture"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"\xff\xd8" + b"\xff" * 50, "damaged JPEG"),
        (b"\xff\xd8\x00\x01" + b"a" * 50, "damaged JPEG"),
        (b"\xff\xd8\xff\xc0\x00\x11\x08\x00\x00\x00\x00\x03" + b"\0" * 9 + b"\xff\xd9", "damaged"),
    ],
)
def test_faults(tmp_path, data, message):
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    assert message in read_crop(path)


def test_a_header_that_claims_a_huge_picture_is_refused_before_decoding():
    data = bytearray(jpeg(picture(4)))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = (65500).to_bytes(2) * 2
    tracemalloc.start()
    assert "65500 x 65500 pixels are too many" in decoded_jpeg(bytes(data))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
    assert MAX_PIXELS < 65500**2


def test_what_is_no_file_does_not_hang(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "00001.jpg")
    os.symlink("/dev/zero", tmp_path / "zero.jpg")
    write_crops(tmp_path, [1])
    crops = Crops(tmp_path)
    np.testing.assert_array_equal(crops.existing, [1])
    assert "pipe" in read_crop(tmp_path / "00001.jpg")
    assert "device" in read_crop(tmp_path / "zero.jpg")
    assert "folder" in read_crop(tmp_path)
    assert "no such file" in read_crop(tmp_path / "absent.jpg")
    monkeypatch.setattr("maven_jax.media.crops.MAX_BYTES", 100)
    assert "too many for a crop" in read_crop(tmp_path / "00002.jpg")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a_00001.jpg", "b_00002.jpg"], "named like 00001.jpg .* but a_00001.jpg, b_00002.jpg"),
        (["face.jpg"], "but face.jpg"),
        (["00000.jpg", "00001.jpg"], "00000.jpg: expected 00001.jpg for the first frame"),
        (["frame_0.png"], "frame_0.png: expected 00001.jpg for the first frame"),
        (["1.jpg", "01.png"], "01.png, 1.jpg: of the same frame"),
    ],
)
@pytest.mark.parametrize("beside_a_video", [False, True])
def test_other_names_are_refused(tmp_path, names, message, beside_a_video):
    folder = tmp_path / "crops"
    write_crops(folder, [0])
    data = (folder / "00001.jpg").read_bytes()
    (folder / "00001.jpg").unlink()
    for name in names:
        (folder / name).write_bytes(data)
    write_video(tmp_path / "v.mp4", frames=2)
    media, crops = (tmp_path / "v.mp4", folder) if beside_a_video else (folder, None)
    with pytest.raises(InputError, match=message):
        open_recording(media, crops=crops, fps=25)


@pytest.mark.parametrize(
    "name", ["{}.jpg", "{:05d}.JPG", "{:05d}.png", "frame_{:06d}.jpeg", "12-24_det_00_{:04d}.bmp"]
)
def test_crops_of_other_names_and_formats_are_read_by_their_number(tmp_path, name):
    for number in (2, 10):
        image = np.full((112, 112, 3), 20 * number, np.uint8)
        cv2.imwrite(str(tmp_path / name.format(number)), image)
    (tmp_path / "notes.txt").write_text("")
    crops = Crops(tmp_path)
    crops.check_names()
    assert crops.existing.tolist() == [1, 9]
    assert [abs(crops.load(f).mean() - 20 * (f + 1)) < 1 for f in (1, 9)] == [True, True]
    assert crops.others == ["notes.txt"]


def test_what_a_file_holds_counts_more_than_its_name(tmp_path):
    PIL.Image.fromarray(picture(5)).save(tmp_path / "00001.jpg", format="PNG")
    np.testing.assert_array_equal(Crops(tmp_path).load(0), picture(5))
    data = (tmp_path / "00001.jpg").read_bytes()
    (tmp_path / "00001.jpg").write_bytes(data[: len(data) // 2])
    crops = Crops(tmp_path)
    assert crops.load(0) is None
    assert "damaged picture" in crops.broken[0]


def test_a_stray_crop_far_behind_costs_nothing(tmp_path):
    write_crops(tmp_path, [0, 1, 99_999_998])
    tracemalloc.start()
    with pytest.raises(InputError, match=r"99999999\.jpg: 99,999,997 frames behind"):
        open_recording(tmp_path, crops=None, fps=25)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20
    (tmp_path / "99999999.jpg").unlink()
    assert open_recording(tmp_path, crops=None, fps=25).num_frames == 2


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
