"""One's own videos and ratings become a corpus, frame by frame."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_prep.corpus.check_video import check_video
from data_prep.corpus.extra_targets import dimension_target, read_extra
from data_prep.corpus.face_records import read_records
from data_prep.corpus.layout import ANNOTATIONS, scan
from data_prep.imports.raters import RATED, LabelOptions
from data_prep.own_corpus import find_videos, make_corpus, per_frame, rated_frames
from maven_jax.__main__ import main
from maven_jax.errors import UserError
from maven_jax.media.annotations import read_annotation, write_annotation
from maven_jax.media.find_faces import Face
from maven_jax.media.frame_times import probe
from tests.support.corpora import write_rated_videos, write_video

FRAMES = 30


def everywhere(image: np.ndarray, *_: object) -> list[Face]:
    """A detector that sees one face in all but the darkest pictures."""
    return [Face((8.0, 8.0, 40.0, 40.0), 0.9)] if image.mean() > 30 else []


def never(*_: object) -> list[Face]:
    raise AssertionError("no face is to be looked for")


def test_ratings_become_one_per_frame_and_nothing_is_invented(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "time_s,valence,arousal\n0.1,0,0\n0.3,.4,-.2\n0.5,,\n0.7,.1,.1\n0.9,.3,.1\n2,1,1\n"
    )
    found, notes = per_frame(
        path, np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 0.9, 1.5, 2.0, 2.1])
    )
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
    assert not notes


def test_ratings_outside_the_video_are_counted_and_those_of_another_refused(tmp_path):
    path, times_s = tmp_path / "a.csv", np.arange(25) / 25
    path.write_text('\ufeff"time_s",valence,arousal,note\n-1,0,0,a\n0,0,0,b\n.5,0,0,\n1.2,0,0,\n')
    found, notes = per_frame(path, times_s)
    assert (found[:, 0] == 0).all()  # up to the last frame, between rows at 0.5 and 1.2 s
    assert notes == [
        "line 1: byte order mark (BOM) ignored",
        "line 1: columns ignored: note",
        "2 of 4 ratings lie outside the video, which ends at 1.00 s",
    ]
    path.write_text("time_s,valence,arousal\n0,0,0\n250,.1,.1\n500,.2,.2\n")
    with pytest.raises(UserError, match=r"a.csv: 2 of 3 ratings lie outside .*times seconds"):
        per_frame(path, times_s)
    path.write_text("time_s,valence,arousal\n0,,\n.5,-5,0\n")
    with pytest.raises(UserError, match=r"a.csv: rates none of the video's frames \(0 to 0.96 s\)"):
        per_frame(path, times_s)


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
    ways = read_records(found.videos)
    assert [(way["detector"], way["face"], way["videos"]) for way in ways] == [
        ("another", "largest", 2)
    ]


def test_ratings_of_other_forms_are_those_that_prepare_reads(tmp_path, capsys):
    mine = write_rated_videos(tmp_path / "mine", {"one": "train", "two": "validation"})
    shutil.rmtree(mine / "annotations")
    labels = tmp_path / "labels"
    for dimension, half in (("valence", 1), ("arousal", -1), ("dominance", 0.5)):
        for video in ("one", "two"):
            path = labels / dimension / f"{video}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = "".join(f"{500 + i * 250},{3 + half * i / 2},1\n" for i in range(5))
            path.write_text("timestamp,value,segment_id\n" + rows)
    (labels / "partition.csv").write_text("Id,Proposal\none,train\ntwo,devel\n")
    options = LabelOptions(dict.fromkeys(RATED, (1.0, 5.0)), delay_s=0.5)
    root = tmp_path / "root"
    make_corpus(mine, root, face="largest", detector=everywhere, labels=(labels, options))
    annotation = read_annotation(root / ANNOTATIONS / "Train_Set" / "one.txt")
    assert annotation.valid.sum() == 26
    # A rating of 4 at 1 s, half a second late; on a scale from 1 to 5.
    np.testing.assert_allclose(annotation.values[[0, 25]], [[0, 0], [1, -1]], atol=1e-6)
    # What else was rated goes along, to where `prepare` looks for it.
    assert "rated beside valence and arousal: dominance" in capsys.readouterr().out
    one, two = (check_video(video, root) for video in scan(root).videos)
    assert list(one.extra) == list(two.extra) == [dimension_target("dominance")]
    _, values = read_extra(one.extra[dimension_target("dominance")], "dominance")
    np.testing.assert_allclose(values[[0, 25], 0], [0, 0.5], atol=1e-6)
    assert np.isnan(values[26:]).all()


def test_one_rating_of_a_clip_is_that_of_each_frame(tmp_path):
    mine = write_rated_videos(tmp_path / "mine", {"one": "train", "two": "validation"})
    table = tmp_path / "clips.csv"
    table.write_text("file,split,valence,arousal\none.mp4,train,0.5,-1\ntwo.mp4,dev,0,0\n")
    (one, two), notes = find_videos(mine, (table, LabelOptions()))
    assert (one.split, two.split) == ("train", "validation")
    rated, _ = rated_frames(one, probe(one.media))
    assert rated.values.tolist() == [[0.5, -1]] * FRAMES
    assert notes == []
    table.write_text("file,split,valence,arousal\none.mp4,train,0.5,-1\ntwo.mp4,test,0,0\n")
    with pytest.raises(UserError, match=r"clips.csv: no validation video \(--splits FILE"):
        find_videos(mine, (table, LabelOptions()))


def test_the_same_command_adds_what_is_new_and_leaves_the_rest(tmp_path, capsys):
    mine = write_rated_videos(tmp_path / "mine", {"one": "train", "two": "validation"})
    root = tmp_path / "root"
    make_corpus(mine, root, face="largest", detector=everywhere)
    before = os.stat(root / "cropped_aligned" / "one" / "00030.jpg").st_mtime_ns
    write_rated_videos(mine, {"three": "train"})
    capsys.readouterr()
    make_corpus(mine, root, face="largest", detector=everywhere)
    printed = capsys.readouterr().out
    assert "one (train): 30 frames, faces cut before, 26 annotated" in printed
    assert "three (train): 30 frames" in printed
    assert os.stat(root / "cropped_aligned" / "one" / "00030.jpg").st_mtime_ns == before
    assert not list(root.glob(".faces-*"))


def test_mended_ratings_and_other_videos_of_the_same_name_are_taken(tmp_path, capsys):
    mine = write_rated_videos(tmp_path / "mine", {"one": "train", "two": "validation"})
    root, searched = tmp_path / "root", []

    def detector(image: np.ndarray, *_: object) -> list[Face]:
        searched.append(image.shape)
        return everywhere(image)

    make_corpus(mine, root, face="largest", detector=detector)
    assert len(searched) == 2 * FRAMES
    (mine / "annotations/train/one.csv").write_text("time_s,valence,arousal\n0,1,1\n.2,1,1\n")
    write_video(mine / "videos/phone/two.mp4", frames=18, fps=25)
    make_corpus(mine, root, face="largest", detector=detector)
    assert len(searched) == 2 * FRAMES + 18
    annotations = root / ANNOTATIONS
    one = read_annotation(annotations / "Train_Set/one.txt")
    assert one.valid.sum() == 6
    assert (one.values[one.valid] == 1).all()
    assert len(read_annotation(annotations / "Validation_Set/two.txt").values) == 18
    # A video that changes sides is not on both.
    (mine / "annotations/train/one.csv").rename(mine / "annotations/validation/one.csv")
    write_rated_videos(mine, {"three": "train"})
    make_corpus(mine, root, face="largest", detector=detector)
    assert {p.name for p in (annotations / "Train_Set").iterdir()} == {"three.txt"}
    assert {p.name for p in (annotations / "Validation_Set").iterdir()} == {"one.txt", "two.txt"}


def test_files_that_take_no_part_are_named(tmp_path):
    mine = write_rated_videos(tmp_path / "mine", {"one": "train", "two": "validation"})
    (mine / "annotations/train/one.csv").rename(mine / "annotations/train/one.CSV")
    assert find_videos(mine)[1] == []
    write_video(mine / "videos" / "spare.mov", frames=2)
    (mine / "annotations/test").mkdir()
    (mine / "annotations/test/spare.csv").write_text("time_s,valence,arousal\n0,0,0\n")
    (mine / "transcripts").mkdir()
    (mine / "transcripts/One.srt").write_text("")
    videos, notes = find_videos(mine)
    assert [v.name for v in videos] == ["one", "two"]
    assert [n.split(",")[0] for n in notes] == [
        "1 videos without ratings are left out",
        "1 files are no ratings (expected MINE/annotations/{train",
        "1 transcripts belong to no video",
    ]
    for note, name in zip(notes, ("spare.mov", "spare.csv", "One.srt")):
        assert note.endswith(name)


def test_a_video_without_any_face_is_kept_without_crops(tmp_path, capsys):
    mine = write_rated_videos(tmp_path / "mine", {"one": "train", "two": "validation"})
    make_corpus(mine, tmp_path / "root", face="largest", detector=lambda *_: [])
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
    (mine / "annotations/train/lost.csv").write_text("time_s,valence,arousal\n0,0,0\n")
    with pytest.raises(UserError, match=r"lost.csv: no video .*lost.mp4 \(.mov, …\)$"):
        find_videos(mine)
    (mine / "annotations/train/lost.csv").rename(mine / "annotations/train/One.csv")
    with pytest.raises(UserError, match=r"One.csv: no video .*; is it that of one.mp4\?"):
        find_videos(mine)
    (mine / "annotations/train/One.csv").rename(mine / "annotations/train/lost.csv")
    (mine / "annotations/train/lost.csv").rename(mine / "annotations/train/two.csv")
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
    # The last one: nothing is written, and no face looked for, before all are known to be usable.
    (mine / "annotations/validation/two.csv").write_text("time_s,valence,arousal\n0,0,0\n1,2,0\n")
    with pytest.raises(UserError, match=r"two.csv: line 3: 2 is outside"):
        make_corpus(mine, tmp_path / "root", face="largest", detector=never)
    assert not (tmp_path / "root").exists()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("place", ["mine", "link", "mine/../mine", "corpus"])
def test_a_corpus_replaces_nothing_of_the_users(place, tmp_path, capsys):
    mine = write_rated_videos(tmp_path / "mine", {"one": "train", "two": "validation"})
    for name in ("one", "two"):  # as `--out mine` would name them
        (mine / "videos/phone" / f"{name}.mp4").rename(mine / "videos" / f"{name}.mp4")
    (tmp_path / "link").symlink_to(mine)
    corpus = tmp_path / "corpus"
    write_annotation(corpus / ANNOTATIONS / "Validation_Set" / "one.txt", np.zeros((3, 2)))
    (corpus / "cropped_aligned" / "two").mkdir(parents=True)
    (corpus / "cropped_aligned" / "two" / "00001.jpg").write_bytes(b"a face")
    before = contents(tmp_path)
    assert main(["corpus", "--from", str(mine), "--out", str(tmp_path / place)]) == 2
    error = capsys.readouterr().err
    assert "which this command reads" in error or "is there already" in error
    assert error.count("\n") == 1
    assert contents(tmp_path) == before


def test_ratings_that_were_mended_in_the_corpus_stay(tmp_path, capsys):
    mine = write_rated_videos(tmp_path / "mine", {"one": "train", "two": "validation"})
    root = tmp_path / "root"
    make_corpus(mine, root, face="largest", detector=everywhere)
    mended = root / ANNOTATIONS / "Train_Set" / "one.txt"
    write_annotation(mended, np.zeros((FRAMES, 2)))
    before = contents(root)
    with pytest.raises(UserError, match=r"one.txt: was changed after `corpus` wrote it"):
        make_corpus(mine, root, face="largest", detector=never)
    assert contents(root) == before
