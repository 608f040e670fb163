"""Which files belong to which video, and names that are refused."""

from __future__ import annotations

import os
import shutil

import pytest

from data_prep.corpus.check_video import check_video
from data_prep.corpus.layout import name_fault, scan
from maven_jax.errors import UserError
from maven_jax.media.problems import NOTE, UNUSABLE
from tests.support.corpora import write_crops, write_tiny_corpus, write_video, write_wav

ANNOTATIONS = "annotations/VA_Estimation_Challenge"


def _by_name(corpus):
    return {video.name: video for video in corpus.videos}


def test_files_of_each_video(tmp_path):
    corpus = scan(write_tiny_corpus(tmp_path, seconds=0.4))
    assert [(v.split, v.name) for v in corpus.videos] == [
        ("train", "train_a"),
        ("train", "train_b"),
        ("validation", "validation_a"),
        ("test", "test_a"),
    ]
    first, second, _, test = corpus.videos
    assert first.annotation == tmp_path / ANNOTATIONS / "Train_Set" / "train_a.txt"
    assert first.crops == tmp_path / "cropped_aligned" / "train_a"
    assert first.media == tmp_path / "videos" / "batch1" / "train_a.mp4"
    assert first.audio == tmp_path / "audio" / "train_a.wav"
    assert first.transcript == tmp_path / "transcripts" / "train_a.txt"
    assert second.audio == second.media
    assert (test.annotation, test.listed_frames) == (None, 10)
    assert corpus.problems == ()
    assert not any(corpus.orphans.values())


def test_two_people_share_a_recording(tmp_path):
    videos = {"a_left": "train", "a_right": "train", "b": "train", "b_right": "validation"}
    write_tiny_corpus(tmp_path, videos, seconds=0.4)
    (tmp_path / "transcripts" / "a_left.txt").write_text("[0s - 1s] own words\n")
    found = _by_name(scan(tmp_path))
    assert {v.name: v.stem for v in found.values()} == {
        "a_left": "a",
        "a_right": "a",
        "b": "b",
        "b_right": "b",
    }
    assert found["a_left"].media == found["a_right"].media == tmp_path / "videos/batch1/a.mp4"
    assert found["a_left"].audio == found["a_right"].audio
    assert found["a_left"].transcript.name == "a_left.txt"
    assert found["a_right"].transcript.name == "a.txt"
    assert found["a_left"].crops != found["a_right"].crops
    assert scan(tmp_path).problems == ()


def test_a_name_that_only_ends_in_left_is_its_own_stem(tmp_path):
    write_tiny_corpus(tmp_path, {"a": "train"}, seconds=0.4)
    annotation = tmp_path / ANNOTATIONS / "Train_Set"
    shutil.copy(annotation / "a.txt", annotation / "turn_left.txt")
    write_video(tmp_path / "videos" / "turn_left.mp4", frames=10)
    assert _by_name(scan(tmp_path))["turn_left"].stem == "turn_left"


def test_video_without_sound_or_transcript(tmp_path):
    write_tiny_corpus(tmp_path, {"a": "train"}, seconds=0.4)
    write_video(tmp_path / "videos/batch1/a.mp4", frames=10)
    shutil.rmtree(tmp_path / "audio")
    shutil.rmtree(tmp_path / "transcripts")
    corpus = scan(tmp_path)
    (video,) = corpus.videos
    assert (video.audio, video.transcript) == (None, None)
    assert [p.file for p in corpus.problems] == ["transcripts"]
    # One note for the whole corpus, not one for each of its videos.
    said = check_video(video, tmp_path).problems
    assert [p.message for p in said] == ["no sound: audio is masked"]


def test_preferred_transcript(tmp_path):
    write_tiny_corpus(tmp_path, {"a": "train"}, seconds=0.4)
    (tmp_path / "transcripts" / "a.json").write_text("[]")
    corpus = scan(tmp_path)
    assert corpus.videos[0].transcript.name == "a.json"
    assert [(p.severity, p.file) for p in corpus.problems] == [(NOTE, "transcripts/a.txt")]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffimage_location,valence,arousal\r\nx/00003.jpg,,\r\ny/00002.jpg,0,0\r\nx/00001.jpg",
        "x\ny.mp4\n\nx\n",
        "x.txt\ny\n",
    ],
)
def test_lists_of_test_videos(tmp_path, text):
    write_tiny_corpus(tmp_path, {"a": "train"}, seconds=0.4)
    for name in "xyz":
        write_crops(tmp_path / "cropped_aligned" / name, [0])
    listed = tmp_path / ANNOTATIONS / "My_TEST_names.csv"
    listed.write_text(text, newline="")
    found = scan(tmp_path)
    frames = {v.name: v.listed_frames for v in found.videos if v.split == "test"}
    assert frames == ({"x": 3, "y": 2} if "image" in text else {"x": 0, "y": 0})
    assert found.orphans["crops"] == (tmp_path / "cropped_aligned" / "z",)
    # The same file given by hand, from elsewhere, goes before those in the corpus.
    outside = tmp_path.parent / f"{tmp_path.name}.list"
    outside.write_text("z\n")
    assert {v.name for v in scan(tmp_path, outside).videos} == {"a", "z"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("../../etc/00001.jpg,0,0", "another folder"),
        ("a/b/00001.jpg,0,0", "another folder"),
        ("..\\x/00001.jpg,0,0", "another folder"),
        ("x\x1b[2J/00001.jpg,0,0", "control characters"),
        ("x/one.jpg,0,0", "expected <video>/00001.jpg"),
        ("00001.jpg,0,0", "expected <video>/00001.jpg"),
        ("x" * 300 + "/00001.jpg", "not a name"),
    ],
)
def test_refused_lines_of_a_template(tmp_path, line, message):
    write_tiny_corpus(tmp_path, {"a": "train"}, seconds=0.4)
    template = tmp_path / ANNOTATIONS / "test.txt"
    template.write_text(f"image_location,valence,arousal\nb/00001.jpg,0,0\n{line}\n{line}\n")
    corpus = scan(tmp_path)
    assert [v.name for v in corpus.videos] == ["a", "b"]
    (problem,) = corpus.problems
    assert (problem.severity, problem.place) == (UNUSABLE, "line 3")
    assert problem.file == f"{ANNOTATIONS}/test.txt"
    assert message in problem.message
    assert str(problem).isprintable()


def test_hostile_lists_end_in_one_line(tmp_path):
    write_tiny_corpus(tmp_path, {"a": "train"}, seconds=0.4)
    template = tmp_path / ANNOTATIONS / "test.txt"
    template.write_text("x" * 100_000)
    with pytest.raises(UserError, match="line 1: line too long"):
        scan(tmp_path)
    template.write_bytes(b"a\n\xff\xfe\n")
    with pytest.raises(UserError, match="not UTF-8"):
        scan(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        scan(tmp_path, tmp_path / "absent.txt")


@pytest.mark.parametrize("name", ["a b-1.x", "12-24-1920x1080_left", "Ünï", "30-30-1920x1080"])
def test_allowed_names(name):
    assert name_fault(name) == ""


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a..b", "a\nb", "\x00", "a" * 201])
def test_refused_names(name):
    assert name_fault(name)


def test_refused_file_names_are_printed_safely(tmp_path):
    write_tiny_corpus(tmp_path, {"a": "train"}, seconds=0.4)
    folder = tmp_path / ANNOTATIONS / "Train_Set"
    shutil.copy(folder / "a.txt", folder / "evil\x1b[31m\n.txt")
    (tmp_path / "cropped_aligned" / "b\\c").mkdir()
    with open(os.fsencode(tmp_path) + b"/videos/\xff\xfe.mp4", "wb") as file:
        file.write(b"x")
    corpus = scan(tmp_path)
    assert [v.name for v in corpus.videos] == ["a"]
    assert len(corpus.problems) == 3
    for problem in corpus.problems:
        assert problem.severity == UNUSABLE
        assert str(problem).isprintable()


def test_links_that_leave_the_corpus_are_refused(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    write_tiny_corpus(root, {"a": "train", "b": "train"}, seconds=0.4)
    shutil.move(root / "cropped_aligned" / "b", outside)
    os.symlink(outside, root / "cropped_aligned" / "b")
    os.symlink(tmp_path / "nowhere", root / "audio" / "c.wav")
    os.symlink(root / "videos", root / "videos" / "loop")
    os.symlink(root / "audio" / "a.wav", root / "audio" / "again.wav")
    corpus = scan(root)
    found = {(p.severity, p.file, p.message.split(" is ")[0]) for p in corpus.problems}
    assert found == {
        (UNUSABLE, "cropped_aligned/b", "a symbolic link that leaves the corpus"),
        (UNUSABLE, "audio/c.wav", "a symbolic link that leads nowhere"),
        (NOTE, "videos/loop", "a link to a folder"),
        (NOTE, "audio/again.wav", "audio of no annotated video"),
    }
    assert _by_name(corpus)["b"].crops is None


def test_root_itself_may_be_a_link(tmp_path):
    write_tiny_corpus(tmp_path / "real", {"a": "train"}, seconds=0.4)
    os.symlink(tmp_path / "real", tmp_path / "link")
    corpus = scan(tmp_path / "link")
    assert corpus.problems == ()
    assert corpus.videos[0].media == tmp_path / "link/videos/batch1/a.mp4"


def test_same_name_in_train_and_test(tmp_path):
    write_tiny_corpus(tmp_path, {"a": "train", "b": "test"}, seconds=0.4)
    with open(tmp_path / ANNOTATIONS / "VA_test_template.txt", "a") as template:
        template.write("a/00001.jpg,0,0\n")
    problems = scan(tmp_path).problems
    assert {p.file for p in problems} == {
        f"{ANNOTATIONS}/Train_Set/a.txt",
        f"{ANNOTATIONS}/VA_test_template.txt",
    }
    assert all(p.severity == UNUSABLE and p.video == "a" for p in problems)


def test_missing_split_is_noted(tmp_path):
    write_tiny_corpus(tmp_path, {"a": "train"}, seconds=0.4)
    (tmp_path / ANNOTATIONS / "Validation_Set").rmdir()
    (problem,) = scan(tmp_path).problems
    assert problem.message == "no such folder: no validation videos"


def test_files_that_belong_nowhere_are_noted(tmp_path):
    write_tiny_corpus(tmp_path, {"a": "train"}, seconds=0.4)
    write_wav(tmp_path / "audio" / "x.wav", 0.1)
    (tmp_path / "audio" / "a.mp3").write_bytes(b"")
    (tmp_path / "videos" / "readme.md").write_text("")
    (tmp_path / "videos" / ".DS_Store").write_text("")
    (tmp_path / "cropped_aligned" / "list.txt").write_text("")
    (tmp_path / ANNOTATIONS / "Train_Set" / "._a.txt").write_text("")
    corpus = scan(tmp_path)
    assert {p.file for p in corpus.problems} == {
        "audio/x.wav",
        "audio/a.mp3",
        "videos/readme.md",
        "cropped_aligned/list.txt",
    }
    assert {p.severity for p in corpus.problems} == {NOTE}
