"""A corpus full of planted faults: every one is named, none ends in an exception."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from data_prep.corpus import check as check_module
from data_prep.corpus import check_video as check_video_module
from data_prep.corpus.check import _check_safely, check
from data_prep.corpus.check_video import check_video
from data_prep.corpus.layout import scan
from maven_jax.errors import UserError
from maven_jax.media.problems import NOTE, REPAIRED, UNUSABLE
from tests.support.corpora import write_crops, write_tiny_corpus, write_video, write_wav

TRAIN = "annotations/VA_Estimation_Challenge/Train_Set"
VALIDATION = "annotations/VA_Estimation_Challenge/Validation_Set"
TEMPLATE = "annotations/VA_Estimation_Challenge/VA_test_template.txt"
FAULTS = (
    "good",
    "words",
    "nan",
    "columns",
    "empty",
    "bom",
    "crlf",
    "range",
    "headless",
    "blank",
    "latin",
    "cut_jpeg",
    "cut_mp4",
    "reversed",
    "long_wav",
    "zero_wav",
    "no_media",
    "no_crops",
    "twice",
    "names",
    "from_zero",
    "beyond",
    "link",
    "short",
    "long",
)


def _edit(path, old, new, count=1):
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, count))


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """Root of a corpus where each video has the fault of its name."""
    base = tmp_path_factory.mktemp("faulty")
    root = base / "corpus"
    videos = dict.fromkeys(FAULTS, "train") | {"both": "train", "valid": "validation"}
    write_tiny_corpus(root, {**videos, "test_a": "test"}, seconds=1.0)

    def annotation(name):
        return root / TRAIN / f"{name}.txt"

    def lines(name):
        return annotation(name).read_text().splitlines(keepends=True)

    def line(name, number, text):
        changed = lines(name)
        changed[number - 1] = text
        annotation(name).write_text("".join(changed))

    line("words", 7, "happy,0.1\n")
    line("nan", 9, "0.1,nan\n")
    line("columns", 4, "0.1,0.2,0.3\n")
    annotation("empty").write_bytes(b"")
    annotation("bom").write_bytes(b"\xef\xbb\xbf" + annotation("bom").read_bytes())
    _edit(annotation("crlf"), b"\n", b"\r\n", -1)
    line("range", 12, "0.1,-1.5\n")
    annotation("headless").write_text("".join(lines("headless")[1:]))
    line("blank", 6, "\n")
    line("latin", 5, "0.1,0.2\n")
    _edit(annotation("latin"), b"0.1,0.2\n", b"0.1,\xe9\n")
    annotation("short").write_text("".join(lines("short")[:-4]))
    annotation("long").write_text("".join(lines("long")) + "0.1,0.1\n" * 3)
    shutil.copy(annotation("both"), root / VALIDATION / "both.txt")

    crops = root / "cropped_aligned"
    jpeg = crops / "cut_jpeg" / "00011.jpg"
    jpeg.write_bytes(jpeg.read_bytes()[:-60])
    (crops / "cut_jpeg" / "00012.jpg").write_bytes(b"")
    (crops / "cut_jpeg" / "00013.jpg").write_bytes(b"no picture")
    write_crops(crops / "cut_jpeg", [13], size=96)
    write_crops(crops / "beyond", [30])
    shutil.copy(crops / "names" / "00001.jpg", crops / "names" / "1.jpg")
    shutil.copy(crops / "from_zero" / "00001.jpg", crops / "from_zero" / "00000.jpg")
    (crops / "names" / "Thumbs.db").write_bytes(b"x")
    # Of a name in two splits: checked twice, said once.
    (crops / "both" / "00001.jpg").write_bytes(b"")
    shutil.rmtree(crops / "no_crops")
    write_crops(crops / "orphan_crops", [0, 1])
    outside = base / "outside.jpg"
    shutil.copy(crops / "link" / "00001.jpg", outside)
    (crops / "link" / "00001.jpg").unlink()
    os.symlink(outside, crops / "link" / "00001.jpg")

    media = next((root / "videos").glob("*/cut_mp4.mp4"))
    media.write_bytes(media.read_bytes()[:2000])
    next((root / "videos").glob("*/no_media.mp4")).unlink()
    first = next((root / "videos").glob("*/twice.mp4"))
    (root / "videos" / "again").mkdir()
    shutil.copy(first, root / "videos" / "again" / "twice.avi")
    write_video(root / "videos" / "orphan_video.mp4", frames=3)
    (base / "secret.mp4").write_bytes(first.read_bytes())
    os.symlink(base / "secret.mp4", root / "videos" / "secret.mp4")

    (root / "transcripts" / "reversed.txt").write_text(
        "[0.00s - 0.50s] fine\n[0.90s - 0.60s] backwards\n[9s - 8s] too\n"
    )
    (root / "transcripts" / "orphan_words.srt").write_text("")
    write_wav(root / "audio" / "long_wav.wav", 3.0)
    (root / "audio" / "zero_wav.wav").write_bytes(b"")
    write_wav(root / "audio" / "orphan_sound.wav", 0.1)
    with open(root / TEMPLATE, "a") as template:
        template.write("../evil/00001.jpg,0,0\n")
        template.write("../evil/00002.jpg,0,0\n")
    return root


@pytest.fixture(scope="module")
def report(faulty):
    return check(scan(faulty))


PLANTED = [
    (UNUSABLE, f"{TRAIN}/words.txt", "line 7", "'happy' is not a number"),
    (UNUSABLE, f"{TRAIN}/nan.txt", "line 9", "'nan' is not a number"),
    (UNUSABLE, f"{TRAIN}/columns.txt", "line 4", "3 columns"),
    (UNUSABLE, f"{TRAIN}/empty.txt", "", "empty"),
    (NOTE, f"{TRAIN}/bom.txt", "line 1", "BOM"),
    (NOTE, f"{TRAIN}/crlf.txt", "line 1", "CRLF"),
    (UNUSABLE, f"{TRAIN}/range.txt", "line 12", "-1.5 is outside [-1, 1]"),
    (UNUSABLE, f"{TRAIN}/headless.txt", "line 1", "header"),
    (UNUSABLE, f"{TRAIN}/blank.txt", "line 6", "blank line"),
    (UNUSABLE, f"{TRAIN}/latin.txt", "line 5", "UTF-8"),
    (REPAIRED, "cropped_aligned/cut_jpeg/00011.jpg", "", "damaged JPEG"),
    (REPAIRED, "cropped_aligned/cut_jpeg/00012.jpg", "", "zero bytes"),
    (REPAIRED, "cropped_aligned/cut_jpeg/00013.jpg", "", "not a JPEG"),
    (REPAIRED, "cropped_aligned/cut_jpeg/00014.jpg", "", "96 x 96"),
    (REPAIRED, "cropped_aligned/both/00001.jpg", "", "zero bytes"),
    (REPAIRED, "cropped_aligned/beyond/00031.jpg", "", "behind the last frame (00025.jpg)"),
    (NOTE, "cropped_aligned/names/1.jpg", "", "not a crop's name"),
    (UNUSABLE, "cropped_aligned/from_zero/00000.jpg", "", "expected 00001.jpg for the first"),
    (NOTE, "cropped_aligned/names/Thumbs.db", "", "not a crop's name"),
    (UNUSABLE, "cropped_aligned/link/00001.jpg", "", "symbolic link that leaves"),
    (UNUSABLE, "cropped_aligned/no_crops", "", "no folder of crops"),
    (NOTE, "cropped_aligned/orphan_crops", "", "without annotation"),
    (UNUSABLE, "videos/batch1/cut_mp4.mp4", "", "truncated"),
    (UNUSABLE, "videos/**/no_media.mp4", "", "missing video"),
    (UNUSABLE, "videos/again/twice.avi", "", "videos/batch1/twice.mp4"),
    (UNUSABLE, "videos/batch1/twice.mp4", "", "videos/again/twice.avi"),
    (NOTE, "videos/orphan_video.mp4", "", "without annotation"),
    (UNUSABLE, "videos/secret.mp4", "", "symbolic link that leaves"),
    (UNUSABLE, f"{TRAIN}/both.txt", "", f"{VALIDATION}/both.txt"),
    (UNUSABLE, f"{VALIDATION}/both.txt", "", f"{TRAIN}/both.txt"),
    (UNUSABLE, "transcripts/reversed.txt", "line 2", "(and 1 more)"),
    (NOTE, "transcripts/orphan_words.srt", "", "no annotated video"),
    (REPAIRED, "audio/long_wav.wav", "", "the sound ends at 3.00 s, the video at 1.00 s"),
    (UNUSABLE, "audio/zero_wav.wav", "", "zero bytes"),
    (NOTE, "audio/orphan_sound.wav", "", "no annotated video"),
    (UNUSABLE, TEMPLATE, "line 27", "'../evil'"),
    (REPAIRED, f"{TRAIN}/short.txt", "", "21 frames are annotated, the video has 25"),
    (REPAIRED, f"{TRAIN}/long.txt", "", "28 frames are annotated, the video has 25"),
]


@pytest.mark.parametrize(("severity", "file", "place", "message"), PLANTED)
def test_every_planted_fault_is_named(report, severity, file, place, message):
    found = [p for p in report.problems if p.file == file and p.place == place]
    assert any(p.severity == severity and message in p.message for p in found), found
    lines = report.lines()
    assert any(file in line and place in line and message in line for line in lines)


def test_nothing_but_the_planted_faults_is_reported(report):
    found = sorted((p.severity, p.file, p.place) for p in report.problems)
    planted = [(severity, file, place) for severity, file, place, _ in PLANTED]
    # The annotation of `short` ends four frames before its crops do.
    unused = [(REPAIRED, "cropped_aligned/short/00022.jpg", "to 00025.jpg")]
    assert found == sorted(planted + unused)


def test_unusable_videos_are_listed_once(report):
    names = "words nan columns empty range headless blank latin link no_crops cut_mp4 no_media"
    names += " twice both from_zero reversed zero_wav secret ../evil"
    assert report.unusable == sorted(names.split())


def test_the_others_stay_usable(report):
    usable = {c.video.name for c in report.usable}
    names = "good bom crlf cut_jpeg long_wav names beyond short long valid test_a"
    assert usable == set(names.split())


def test_counts(report):
    by_name = {c.video.name: c for c in report.checks if c.video.name != "both"}
    good = by_name["good"]
    assert (good.num_frames, good.missing_crops, good.unlabelled) == (25, 1, 1)
    assert good.fps == pytest.approx(25.0)
    assert by_name["cut_jpeg"].broken_crops == 3
    assert by_name["beyond"].missing_crops == by_name["short"].missing_crops == 1
    assert by_name["beyond"].length_difference == {"crops_beyond": 1}
    assert by_name["long_wav"].length_difference["sound_minus_video_s"] == pytest.approx(2.0)
    assert by_name["short"].length_difference["annotation_minus_video_frames"] == -4
    assert by_name["test_a"].num_frames == 25
    counts = report.counts("train")
    assert counts["videos"] == len(FAULTS) + 1
    assert counts["unusable"] == len(report.unusable) - 2  # the link and the name are no videos
    assert report.counts()["videos"] == len(report.checks)


def test_times_go_on_behind_a_short_video(report):
    check = next(c for c in report.checks if c.video.name == "long")
    np.testing.assert_allclose(check.times_s, np.arange(28) / 25, atol=1e-6)


def test_several_processes_say_the_same(faulty, report):
    assert check(scan(faulty), workers=2).to_json() == report.to_json()


def test_report_is_json_and_printable(report, capsys):
    text = json.dumps(report.to_json())
    assert "cropped_aligned/cut_jpeg/00011.jpg" in text
    report.show()
    shown = capsys.readouterr().out
    assert "line 12" in shown
    assert "missing crops" in shown
    assert "of no video: 1 crops, 1 media, 1 audio, 1 transcripts" in shown


def test_faultless_corpus_has_no_problems(tmp_path):
    report = check(scan(write_tiny_corpus(tmp_path, seconds=1.0)))
    assert report.problems == []
    assert report.unusable == []


def test_a_fault_in_the_check_costs_one_video(tmp_path, monkeypatch):
    corpus = scan(write_tiny_corpus(tmp_path, seconds=1.0))
    real = check_video_module.read_annotation

    def fails_once(path):
        if path.stem == "train_a":
            raise RuntimeError("unforeseen\nsecond line")
        return real(path)

    monkeypatch.setattr(check_video_module, "read_annotation", fails_once)
    report = check(corpus)
    assert report.unusable == ["train_a"]
    (problem,) = report.problems
    assert "could not be checked: RuntimeError: unforeseen" in problem.message
    assert "\n" not in str(problem)


def _dies_on_train_b(video, root, assume_fps):
    """What a decoder that crashes does to its process."""
    if video.name == "train_b":
        os._exit(1)
    return _check_safely(video, root, assume_fps)


def test_a_process_that_dies_costs_one_video(tmp_path, monkeypatch):
    corpus = scan(write_tiny_corpus(tmp_path, seconds=1.0))
    monkeypatch.setattr(check_module, "_check_safely", _dies_on_train_b)
    report = check(corpus, workers=2)
    assert report.unusable == ["train_b"]
    assert [p.message for p in report.problems] == ["the process that checked it died"]


def test_empty_audio_stream_is_no_sound(tmp_path):
    write_tiny_corpus(tmp_path, {"a": "train"}, seconds=1.0)
    (tmp_path / "audio" / "a.wav").unlink()
    media = tmp_path / "videos/batch1/a.mkv"
    write_video(media, frames=25, fps=25, sound_s=0.0)
    media.with_suffix(".mp4").unlink()
    (video,) = scan(tmp_path).videos
    assert video.audio == media
    checked = check_video(video, tmp_path)
    assert checked.usable
    assert checked.video.audio is None
    assert [p.message for p in checked.problems] == ["its audio stream is empty: audio is masked"]


def test_assumed_frame_rate_replaces_a_missing_video(tmp_path):
    write_tiny_corpus(tmp_path, {"a": "train"}, seconds=1.0)
    next((tmp_path / "videos").rglob("a.mp4")).unlink()
    (video,) = scan(tmp_path).videos
    assert not check_video(video, tmp_path).usable
    checked = check_video(video, tmp_path, assume_fps=12.5)
    assert checked.usable
    np.testing.assert_allclose(checked.times_s, np.arange(25) / 12.5)
    assert any(p.severity == REPAIRED and "12.5" in p.message for p in checked.problems)


def test_template_rows_behind_the_video_exist(tmp_path):
    write_tiny_corpus(tmp_path, {"a": "train", "b": "test"}, seconds=1.0)
    with open(tmp_path / TEMPLATE, "a") as template:
        template.write("b/00027.jpg,0,0\n")
    video = scan(tmp_path).videos[-1]
    checked = check_video(video, tmp_path)
    assert checked.num_frames == 27
    assert checked.usable


def test_annotation_of_another_recording_is_unusable(tmp_path):
    write_tiny_corpus(tmp_path, {"a": "train"}, seconds=1.0)
    with open(tmp_path / TRAIN / "a.txt", "a") as annotation:
        annotation.write("0,0\n" * 60)
    (video,) = scan(tmp_path).videos
    checked = check_video(video, tmp_path)
    assert not checked.usable
    assert "same recording" in checked.problems[0].message


def test_a_checked_video_is_a_recording_of_the_times_and_files_that_count(tmp_path):
    write_tiny_corpus(tmp_path, {"a": "train"}, seconds=1.0)
    (tmp_path / "audio" / "a.wav").unlink()
    (tmp_path / "transcripts" / "a.txt").unlink()
    with open(tmp_path / TRAIN / "a.txt", "a") as annotation:
        annotation.write("0,0\n" * 2)
    (video,) = scan(tmp_path).videos
    recording = check_video(video, tmp_path).recording
    np.testing.assert_allclose(recording.times_s, np.arange(27) / 25)
    assert (recording.fps, recording.duration_s) == pytest.approx((25, 27 / 25))
    assert recording.source == recording.audio == video.media
    assert recording.annotation == tmp_path / TRAIN / "a.txt"
    assert recording.crops == tmp_path / "cropped_aligned" / "a"
    assert recording.transcript is None


@pytest.mark.parametrize("part", ["annotations", "cropped_aligned", "videos", ""])
def test_missing_parts_say_which_layout_is_expected(tmp_path, part):
    root = write_tiny_corpus(tmp_path / "corpus", {"a": "train"}, seconds=0.2)
    shutil.rmtree(root / part)
    with pytest.raises(UserError, match="expected ROOT/annotations") as caught:
        scan(root)
    assert "\n" not in str(caught.value)
    assert part in str(caught.value)
