"""From pictures to crops: decoding in order and upright, finding, following, choosing, aligning."""

from __future__ import annotations

import struct
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from data_prep.synth.plan import plan_corpus
from data_prep.synth.scene import direct, draw_frame
from maven_jax.errors import UserError
from maven_jax.media.crops import Crops
from maven_jax.media.cut_faces import cut_faces
from maven_jax.media.find_faces import TEMPLATE, Face, HaarDetector, YuNetDetector, alignment, cut
from maven_jax.media.frame_times import probe
from maven_jax.media.pictures import pictures
from maven_jax.media.track_faces import Tracker, check_choice, choose
from tests.support import corpora

GREY = np.zeros((90, 160, 3), np.uint8)


@pytest.fixture(scope="module")
def portrait():
    """A drawn face, seen from the front, in a picture of 320 x 240."""
    media = next(m for m in plan_corpus(8, 0) if len(m.cast) == 1)
    scene = direct(media, 2.0, 0)
    times = np.arange(10) / 5
    bgr = draw_frame(scene, scene.shots(times), 5, np.zeros(1, bool))
    return np.ascontiguousarray(bgr[:, :, ::-1])


def write_pictures(path, images, times, pixel_aspect=Fraction(1), pixels="yuv420p"):
    """H.264 with these presentation times in milliseconds."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=1000, options={"preset": "ultrafast", "crf": "10"})
        video.codec_context.sample_aspect_ratio = pixel_aspect
        video.height, video.width = images[0].shape[:2]
        video.pix_fmt = pixels
        for image, time in zip(images, times):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            out.mux(video.encode(frame))
        out.mux(video.encode())


def test_every_picture_has_its_number_whatever_the_rate(tmp_path):
    times = np.cumsum([0, 40, 15, 90, 33, 33, 200, 10, 40, 40]).tolist()
    corpora.write_video(tmp_path / "v.mkv", frames=10, fps=1000, times=times)
    info = probe(tmp_path / "v.mkv")
    found = list(pictures(tmp_path / "v.mkv", info))
    assert [number for number, _ in found] == list(range(10))
    brightness = [image[40:].mean() for _, image in found]
    np.testing.assert_allclose(brightness, 7 * np.arange(10), atol=3)


def test_frames_that_do_not_decode_shift_no_other(tmp_path):
    corpora.write_video(tmp_path / "v.mp4", frames=40, fps=25, options={"g": "5", "bf": "0"})
    data = bytearray((tmp_path / "v.mp4").read_bytes())
    with av.open(str(tmp_path / "v.mp4")) as file:
        spans = [(p.pos, p.size) for p in file.demux(video=0) if p.size]
    at, size = spans[12]
    data[at + 4 : at + size] = bytes(size - 4)
    (tmp_path / "broken.mp4").write_bytes(data)
    found = dict(pictures(tmp_path / "broken.mp4", probe(tmp_path / "broken.mp4")))
    np.testing.assert_allclose(found[30][40:].mean(), 7 * 30, atol=3)


def test_a_video_filmed_upright_is_turned_upright(tmp_path):
    image = np.zeros((64, 96, 3), np.uint8)
    image[:32, :48] = 255  # the upper left quarter
    write_pictures(tmp_path / "v.mp4", [image] * 3, [0, 40, 80])
    data = bytearray((tmp_path / "v.mp4").read_bytes())
    matrix = data.index(b"tkhd") + 44
    # A quarter turn clockwise when shown, as phones held upright write it.
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    (tmp_path / "v.mp4").write_bytes(data)
    _, shown = next(pictures(tmp_path / "v.mp4", probe(tmp_path / "v.mp4")))
    assert shown.shape == (96, 64, 3)
    assert shown[:48, 32:].mean() > 250  # is now the upper right one
    assert shown[48:].mean() < 5


@pytest.mark.parametrize(
    ("pixel_aspect", "width"), [(Fraction(16, 15), 102), (Fraction(1, 2), 48), (Fraction(90), 96)]
)
def test_pixels_that_are_not_square_are_shown_undistorted(tmp_path, pixel_aspect, width):
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, :48] = 255
    write_pictures(tmp_path / "v.mp4", [image] * 2, [0, 40], pixel_aspect)
    _, shown = next(pictures(tmp_path / "v.mp4", probe(tmp_path / "v.mp4")))
    assert shown.shape == (64, width, 3)  # 90 is no aspect but a broken header
    assert (shown > 127).any(axis=(0, 2)).sum() == width // 2


@pytest.mark.parametrize(("size", "pixels"), [((64, 64), "yuv420p10le"), ((63, 65), "yuv444p")])
def test_pictures_of_ten_bits_and_of_odd_sizes(tmp_path, size, pixels):
    images = [np.full((*size, 3), grey, np.uint8) for grey in (60, 180)]
    write_pictures(tmp_path / "v.mp4", images, [0, 40], pixels=pixels)
    found = dict(pictures(tmp_path / "v.mp4", probe(tmp_path / "v.mp4")))
    assert [image.shape for image in found.values()] == [(*size, 3)] * 2
    np.testing.assert_allclose([found[0].mean(), found[1].mean()], [60, 180], atol=4)


def damage(path, frame):
    """Overwrites the middle of the packet of a frame (in decoding order)."""
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][frame]
        begin, size = packet.pos, packet.size
    data = bytearray(path.read_bytes())
    for at in range(begin + size // 3, begin + size // 2):
        data[at] ^= 0x55
    path.write_bytes(data)


def test_damaged_pictures_and_those_built_on_them_are_no_faces(tmp_path):
    """FFmpeg conceals damage and shows something; only a frame's flag tells."""
    path = tmp_path / "v.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    images = [np.roll(noise, (i, 2 * i), axis=(0, 1)) for i in range(30)]
    options = {"g": "10", "bf": "0", "sc_threshold": "0"}
    corpora.write_video(path, frames=30, fps=25, images=images, options=options)
    info = probe(path)
    assert [number for number, _ in pictures(path, info)] == list(range(30))
    damage(path, 13)
    assert [number for number, _ in pictures(path, info)] == [*range(13), *range(20, 30)]
    notes = []
    faces = [Face((16, 16, 28, 28), 0.8)]
    ((face, folder),) = cut_faces(
        path,
        info,
        tmp_path / "crops",
        detector=lambda *_: faces,
        choice="largest",
        note=notes.append,
    )
    assert not face.found[13:20].any()
    assert Crops(folder).existing.tolist() == [*range(13), *range(20, 30)]
    assert notes == [
        "v.mp4: 7 of 30 pictures are damaged (first at 0.52 s): no face is looked for in them"
    ]


def test_landmarks_come_to_lie_where_aff_wild2_has_them():
    turn = np.deg2rad(20)
    rotation = 1.7 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    landmarks = TEMPLATE @ rotation.T + (200, 50)
    matrix = alignment(Face((0, 0, 1, 1), 1.0, landmarks))
    np.testing.assert_allclose(landmarks @ matrix[:, :2].T + matrix[:, 2], TEMPLATE, atol=1e-9)


def test_a_crop_that_is_not_aligned_is_a_square_around_the_box():
    image = np.zeros((200, 300, 3), np.uint8)
    image[40:140, 90:170] = 200  # 80 wide, 100 high
    face = Face((90, 40, 80, 100), 1.0, TEMPLATE @ [[0.7, 0.7], [-0.7, 0.7]] + 100)
    crop = cut(image, face, 0.06)[..., 0]
    bright = crop > 100
    assert abs(bright.any(axis=1).sum() - 100) <= 2
    assert abs(bright.any(axis=0).sum() - 80) <= 2
    np.testing.assert_allclose(np.argwhere(bright).mean(axis=0), 55.5, atol=1)


@pytest.mark.parametrize("side", [60, 400])
def test_a_crop_shows_the_box_upright_and_unsheared(side):
    image = np.zeros((600, 600, 3), np.uint8)
    y, x = np.mgrid[:600, :600]
    image[..., 0], image[..., 1] = x / 600 * 255, y / 600 * 255
    face = Face((100, 150, side, side), 1.0)
    crop = cut(image, face).astype(float)
    matrix = alignment(face)
    v, u = np.mgrid[10:100:10, 10:100:10]
    seen = (np.stack([u, v], -1) - matrix[:, 2]) / matrix[0, 0]
    np.testing.assert_allclose(crop[v, u, :2], seen / 600 * 255, atol=1.5)


def test_the_cascade_finds_a_face_and_nothing_in_an_empty_picture(portrait):
    detector = HaarDetector(0.12)
    (face,) = detector(portrait, [], True)
    assert 0 < face.confidence < 1
    assert 60 < face.box[2] < 160
    assert detector(np.zeros_like(portrait), [], True) == []
    # Larger pictures are searched at the same size, and boxes are in their pixels.
    (large,) = detector(cv2.resize(portrait, None, fx=4, fy=4), [], True)
    np.testing.assert_allclose(large.box, np.array(face.box) * 4, atol=60)


def test_a_known_face_is_looked_for_where_it_was_and_not_taken_for_granted(portrait):
    detector = HaarDetector(0.12)
    (face,) = detector(portrait, [], True)
    moved = np.roll(portrait, 12, axis=1)
    (near,) = detector(moved, [face], False)
    np.testing.assert_allclose(near.box, np.add(face.box, (12, 0, 0, 0)), atol=8)
    (new,) = detector(moved, [], True)
    np.testing.assert_allclose(near.box, new.box, atol=8)
    assert detector(np.zeros_like(portrait), [face], False) == []
    # Two hints at one face are one face; what has gone elsewhere is looked for everywhere.
    assert len(detector(moved, [face, near], False)) == 1
    far = np.roll(portrait, portrait.shape[1] // 3, axis=1)
    assert len(detector(far, [face], False)) == 1
    # Nobody else is looked for while the known face is there, unless that is asked for.
    pair = np.concatenate([portrait, portrait], axis=1)
    assert len(detector(pair, [face], False)) == 1
    assert [f.box[0] > 320 for f in sorted(detector(pair, [face], True), key=lambda f: f.box)] == (
        [False, True]
    )


def test_others_are_searched_for_now_and_then_and_behind_cuts(tmp_path):
    dark, bright = np.full((64, 64, 3), 20, np.uint8), np.full((64, 64, 3), 220, np.uint8)
    write_pictures(tmp_path / "v.mp4", [dark] * 8 + [bright] * 4, (40 * np.arange(12)).tolist())
    asked = []

    def detector(image, known, everywhere):
        asked.append((len(known), everywhere))
        return [Face((10 + len(asked), 10, 30, 30), 0.5)]

    info = probe(tmp_path / "v.mp4")
    cut_faces(tmp_path / "v.mp4", info, tmp_path / "c", detector=detector, choice="largest")
    assert [number for number, (_, everywhere) in enumerate(asked) if everywhere] == [0, 5, 8, 10]
    assert [known for known, _ in asked] == [0] + [1] * 11


def test_a_file_that_is_no_yunet_is_refused(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match="not a YuNet model"):
        YuNetDetector(tmp_path / "x.onnx", smallest=0.1, least_confidence=0.6)
    with pytest.raises(UserError, match="no such file"):
        YuNetDetector(tmp_path / "y.onnx", smallest=0.1, least_confidence=0.6)


def tracked(faces_of_frames, images=None):
    tracker = Tracker()
    for i, boxes in enumerate(faces_of_frames):
        if images is not None:
            tracker.sees_cut(images[i])
        tracker.update(i, i / 25, [Face(box, 0.5) for box in boxes])
    return tracker.people()


def test_two_people_are_followed_and_chosen(tmp_path):
    left = [(10 + i, 10, 40, 40) for i in range(30)]
    right = [(100, 20, 30, 30)] * 30
    frames = [[a, b] if i != 12 else [b] for i, (a, b) in enumerate(zip(left, right))]
    frames += [[b] for b in right[:20]]
    people = tracked(frames)
    assert [len(t.frames) for t in people] == [29, 50]
    (longest,) = choose(people, "longest", 50)
    assert longest.found.all()
    assert set(longest.boxes[:, 0]) == {100}
    # The one in front counts while there, the other before and after.
    (largest,) = choose(people, "largest", 50)
    assert largest.found.all()
    assert largest.boxes[11, 0] == 21
    assert (largest.boxes[[12, 30, 49], 0] == 100).all()
    (second,) = choose(people, "2", 50)
    np.testing.assert_array_equal(second.boxes, longest.boxes)
    everyone = choose(people, "all", 50)
    assert [(face.name, face.found.sum()) for face in everyone] == [("1", 29), ("2", 50)]
    with pytest.raises(UserError, match="there are 1 to 2"):
        choose(people, "3", 50)
    with pytest.raises(UserError, match="largest, longest, left, right, all or a face's number"):
        choose(people, "widest", 50)


def test_a_cut_in_the_film_ends_tracks_and_flashes_count_for_nothing():
    box = [(10, 10, 40, 40)]
    images = [GREY] * 15 + [GREY + 200] * 15
    assert [len(t.frames) for t in tracked([box] * 30, images)] == [15, 15]
    assert len(tracked([box] * 30)) == 1
    assert tracked([box] * 2 + [[]] * 28) == []


def test_a_face_that_is_away_for_long_or_jumps_comes_back_as_another():
    here, there = [(10, 10, 40, 40)], [(90, 40, 40, 40)]
    assert [len(t.frames) for t in tracked([here] * 10 + [[]] * 20 + [here] * 10)] == [20]
    assert [len(t.frames) for t in tracked([here] * 10 + [[]] * 30 + [here] * 10)] == [10, 10]
    assert [len(t.frames) for t in tracked([here] * 12 + [there] * 13)] == [12, 13]


def test_nobody_found_is_one_face_without_frames():
    (nobody,) = choose([], "all", 5)
    assert not nobody.found.any()
    with pytest.raises(UserError, match="none was found"):
        choose([], "1", 5)


def test_crops_are_written_as_a_corpus_has_them(portrait, tmp_path):
    empty = np.full_like(portrait, portrait.mean(axis=(0, 1)).astype(np.uint8))
    images = [portrait] * 12
    images[4] = empty
    write_pictures(tmp_path / "v.mp4", images, (40 * np.arange(12)).tolist())
    info, counted = probe(tmp_path / "v.mp4"), []
    ((face, folder),) = cut_faces(
        tmp_path / "v.mp4",
        info,
        tmp_path / "crops",
        detector=HaarDetector(0.12),
        choice="largest",
        advance=counted.append,
    )
    crops = Crops(folder)
    assert crops.existing.tolist() == [i for i in range(12) if i != 4]
    np.testing.assert_array_equal(face.found, [i != 4 for i in range(12)])
    assert np.isnan(face.boxes[4]).all()
    assert crops.load(0).shape == (112, 112, 3)
    assert sum(counted) == 12


def test_each_person_has_crops_of_their_own(tmp_path):
    image = np.full((64, 128, 3), 40, np.uint8)
    image[:, 64:] = 200
    write_pictures(tmp_path / "v.mp4", [image] * 12, (40 * np.arange(12)).tolist())
    faces = [Face((80, 16, 30, 30), 0.9), Face((16, 16, 28, 28), 0.8)]
    info = probe(tmp_path / "v.mp4")

    def cut_of(choice):
        place = tmp_path / choice
        found = cut_faces(tmp_path / "v.mp4", info, place, detector=lambda *_: faces, choice=choice)
        return [round(float(Crops(folder).load(11).mean()) / 20) for _, folder in found]

    assert cut_of("all") == [10, 2]
    assert cut_of("2") == [2]
    assert cut_of("largest") == [10]


def people_of(times_s, box=(10, 10, 40, 40), confidence=0.9, frames=None, clear=0.0):
    """Tracks of one still face in a video of these times, found in some of its frames."""
    tracker = Tracker(times_s)
    for i, time_s in enumerate(times_s):
        here = frames is None or i in frames
        tracker.update(i, float(time_s), [Face(box, confidence)] if here else [])
    return tracker.people(clear)


@pytest.mark.parametrize(
    "times_s",
    [np.arange(6) * 2.0, np.arange(4) * 0.9, np.arange(5) / 25, np.arange(2) / 25, [0.0]],
    ids=["half a picture a second", "0.9 s apart", "a fifth of a second", "two", "one"],
)
def test_slow_and_short_videos_have_people_too(times_s):
    (person,) = people_of(np.asarray(times_s))
    assert len(person.frames) == len(times_s)


def test_a_few_doubtful_boxes_are_nobody():
    times_s = np.arange(100) / 25
    assert people_of(times_s, frames=range(2)) == []
    assert len(people_of(times_s, frames=range(15), clear=0.8)) == 1
    assert people_of(times_s, confidence=0.65, frames=range(15), clear=0.8) == []
    assert len(people_of(times_s, confidence=0.65, frames=range(60), clear=0.8)) == 1


def test_left_and_right_stay_with_one_of_two_people():
    left = [(10, 10, 30, 30)] * 40
    right = [(100, 20, 50, 50)] * 40
    both = [[a, b] if i not in (12, 13) else [b] for i, (a, b) in enumerate(zip(left, right))]
    people = tracked([[b] for b in right[:10]] + both)
    (seen,) = choose(people, "left", 50)
    assert (seen.boxes[:10, 0] == 100).all()  # alone until then
    assert (seen.boxes[[10, 30, 49], 0] == 10).all()
    assert not seen.found[[22, 23]].any()  # rather nobody than the other
    (seen,) = choose(people, "right", 50)
    assert (seen.boxes[:, 0] == 100).all()
    for wrong in ("0", "middle", "-1"):
        with pytest.raises(UserError, match="a face's number from 1"):
            check_choice(wrong)


def test_faces_are_followed_between_pictures_that_are_searched(tmp_path):
    """A textured square on grey that drifts by 3 pixels a picture."""
    texture = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    patch = cv2.resize(texture, (60, 60), interpolation=cv2.INTER_CUBIC)
    images = [np.full((160, 240, 3), 120, np.uint8) for _ in range(12)]
    for i, image in enumerate(images):
        image[40:100, 20 + 3 * i : 80 + 3 * i] = patch
    write_pictures(tmp_path / "v.mp4", images, [40 * i for i in range(12)])
    searched = []

    def detector(image, earlier, everywhere):
        columns = np.flatnonzero((np.abs(image.astype(int) - 120) > 25).any(axis=(0, 2)))
        searched.append(everywhere)
        return [Face((float(columns[0]), 40.0, 60.0, 60.0), 0.9)]

    ((face, folder),) = cut_faces(
        tmp_path / "v.mp4",
        probe(tmp_path / "v.mp4"),
        tmp_path / "crops",
        detector=detector,
        choice="largest",
        every=3,
    )
    assert len(searched) == 4
    assert len(Crops(folder).existing) == 12
    np.testing.assert_allclose(face.boxes[:, 0], 20 + 3 * np.arange(12), atol=2.5)
