"""One's own videos and ratings become a corpus, frame by frame."""

from __future__ import annotations

import os

import numpy as np
import pytest

from data_prep.annotations import read_annotation, write_annotation
from data_prep.corpus import ANNOTATIONS, scan
from data_prep.find_faces import Face
from data_prep.own_corpus import find_videos, make_corpus, per_frame
from maven_jax.__main__ import main
from maven_jax.errors import UserError
from tests.corpora import write_rated_videos, write_video

FRAMES = 30


def everywhere(image: np.ndarray) -> list[Face]:
    """A detector that sees one face in all but the darkest pictures."""
    return [Face((8.0, 8.0, 40.0, 40.0), 0.9)] if image.mean() > 30 else []


def test_ratings_become_one_per_frame_and_nothing_is_invented(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "time_s,valence,arousal\n0.1,0,0\n0.3,.4,-.2\n0.5,,\n0.7,.1,.1\n0.9,.3,.1\n2,1,1\n"
    )
    found = per_frame(path, np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 0.9, 1.5, 2.0, 2.1]))
    wanted = [
        (-5, -5),  # before the first row
        (0, 0),
        (0.2, -0.1),
        (0.4, -0.2),
        (-5, -5),  # beside an empty row
        (-5, -5),
        (-5, -5),
        (0.2, 0.1),
        (0.3, 0.1),
        (-5, -5),  # rows too far apart
        (1, 1),
        (-5, -5),  # behind the last row
    ]
    np.testing.assert_allclose(found, wanted, atol=1e-9)
    with pytest.raises(UserError, match=r"a.csv: rates none of the video's frames \(0 to 9.00 s\)"):
        per_frame(path, np.array([8.0, 9.0]))


def test_annotations_are_read_as_they_were_written(tmp_path):
    values = np.array([[0.25, -1], [-5, -5], [1e-7, 0.333333]])
    write_annotation(tmp_path / "x" / "a.txt", values)
    read = read_annotation(tmp_path / "x" / "a.txt")
    assert read.valid.tolist() == [True, False, True]
    np.testing.assert_allclose(read.values[read.valid], values[[0, 2]], atol=1e-6)


def test_the_corpus_is_one_of_prepare(tmp_path, capsys):
    mine = write_rated_videos(tmp_path / "mine", {"one": "train", "two": "validation"})
    (mine / "transcripts").mkdir()
    (mine / "transcripts" / "two.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
    root = tmp_path / "root"
    make_corpus(mine, root, face="largest", detector=everywhere)
    printed = capsys.readouterr().out
    found = scan(root)
    assert [(v.name, v.split) for v in found.videos] == [("one", "train"), ("two", "validation")]
    assert not found.problems
    one, two = found.videos
    assert two.transcript is not None
    crops = sorted(p.name for p in (root / "cropped_aligned" / "one").iterdir())
    # Pictures grow brighter by 7 levels, their upper half is half as bright.
    assert crops[-1] == f"{FRAMES:05d}.jpg"
    assert 20 < len(crops) < FRAMES
    assert f"one (train): {FRAMES} frames, {len(crops)} with a face, 26 annotated" in printed
    annotation = read_annotation(root / ANNOTATIONS / "Train_Set" / "one.txt")
    assert len(annotation.values) == FRAMES
    assert annotation.valid.sum() == 26  # up to the last rating, at 1 s
    np.testing.assert_allclose(annotation.values[5], [0.08, -0.08], atol=1e-6)
    assert one.audio == one.media


def test_the_same_command_adds_what_is_new_and_leaves_the_rest(tmp_path, capsys):
    mine = write_rated_videos(tmp_path / "mine", {"one": "train", "two": "validation"})
    root = tmp_path / "root"
    make_corpus(mine, root, face="largest", detector=everywhere)
    before = os.stat(root / "cropped_aligned" / "one" / "00030.jpg").st_mtime_ns
    write_rated_videos(mine, {"three": "train"})
    capsys.readouterr()
    make_corpus(mine, root, face="largest", detector=everywhere)
    printed = capsys.readouterr().out
    assert "one (train): is there already" in printed
    assert "three (train): 30 frames" in printed
    assert os.stat(root / "cropped_aligned" / "one" / "00030.jpg").st_mtime_ns == before
    assert not list(root.glob(".faces-*"))


def test_a_video_without_any_face_is_kept_without_crops(tmp_path, capsys):
    mine = write_rated_videos(tmp_path / "mine", {"one": "train", "two": "validation"})
    make_corpus(mine, tmp_path / "root", face="largest", detector=lambda image: [])
    assert "one (train): 30 frames, 0 with a face" in capsys.readouterr().out
    assert (tmp_path / "root/cropped_aligned/one").is_dir()


def test_mistakes_end_in_one_line_before_anything_is_written(tmp_path, capsys):
    mine = tmp_path / "mine"
    mine.mkdir()
    with pytest.raises(UserError, match="mine: no annotations; expected"):
        find_videos(mine)
    write_rated_videos(mine, {"one": "train"})
    with pytest.raises(UserError, match=r"annotations/validation: no <video>.csv"):
        find_videos(mine)
    write_rated_videos(mine, {"two": "validation"})
    (mine / "annotations/train/gone.csv").write_text("time_s,valence,arousal\n0,0,0\n")
    with pytest.raises(UserError, match=r"gone.csv: no video .*gone.mp4"):
        find_videos(mine)
    (mine / "annotations/train/gone.csv").rename(mine / "annotations/train/two.csv")
    with pytest.raises(UserError, match=r"two.csv: .*two.csv annotates the same video"):
        find_videos(mine)
    (mine / "annotations/train/two.csv").unlink()
    write_video(mine / "videos" / "one.mov", frames=5)
    with pytest.raises(UserError, match=r"one.mp4 has the same name|one.mov has the same name"):
        find_videos(mine)
    (mine / "videos/one.mov").unlink()
    words = ["--from", str(mine), "--out", str(tmp_path / "root")]
    assert main(["corpus", *words, "--face", "all"]) == 2
    assert "--face all" in capsys.readouterr().err
    (mine / "annotations/train/one.csv").write_text("time_s,valence,arousal\n0,0,0\n1,2,0\n")
    with pytest.raises(UserError, match=r"one.csv: line 3: a value is outside"):
        make_corpus(mine, tmp_path / "root", face="largest", detector=everywhere)
    assert not list((tmp_path / "root").rglob("*.txt"))
