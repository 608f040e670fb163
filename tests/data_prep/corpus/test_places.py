"""Aff-Wild2 as its archives were unpacked."""

import shutil

import pytest

from data_prep.corpus.layout import scan
from maven_jax.errors import UserError
from tests.support.corpora import write_crops, write_tiny_corpus

USUAL = "annotations/VA_Estimation_Challenge"


@pytest.fixture
def corpus(tmp_path):
    return write_tiny_corpus(tmp_path / "corpus", {"a": "train", "b": "validation"}, seconds=0.2)


def move(root, before, after):
    (root / after).parent.mkdir(parents=True, exist_ok=True)
    (root / before).rename(root / after)


def is_whole(root):
    """Whether both videos have all their files."""
    videos = scan(root).videos
    return [v.split for v in videos] == ["train", "validation"] and all(
        v.annotation and v.crops and v.media for v in videos
    )


@pytest.mark.parametrize(
    "moves",
    [
        [(USUAL, "6th ABAW Annotations/VA_Estimation_Challenge")],
        [(USUAL, "annotations/VA_Set")],
        [(USUAL, "annotations/annotations/VA_Estimation_Challenge")],
        [(f"{USUAL}/Train_Set", f"{USUAL}/Training_Set")],
        [("cropped_aligned/b", "cropped_aligned_new_50_vids/b")],
        [("cropped_aligned", "x"), ("x", "cropped_aligned/cropped_aligned")],
        [("cropped_aligned", "cropped_images")],
        [("videos/batch1", "batch1"), ("videos", "batch2")],
        [("videos", "new_vids/new_vids")],
        [(n, f"Aff-Wild2/{n}") for n in ("annotations", "cropped_aligned", "videos", "audio")],
    ],
)
def test_parts_are_found_where_archives_bring_them(corpus, moves):
    assert is_whole(corpus)
    for before, after in moves:
        move(corpus, before, after)
    assert is_whole(corpus)
    assert all(problem.severity == "note" for problem in scan(corpus).problems)


def test_annotations_of_another_task_are_none_of_ours(corpus):
    other = corpus / "annotations" / "EXPR_Recognition_Challenge" / "Train_Set"
    other.mkdir(parents=True)
    (other / "a.txt").write_text("Neutral,Anger\n0\n")
    move(corpus, USUAL, "annotations/VA_Set")
    assert is_whole(corpus)


def test_several_years_are_named(corpus):
    shutil.copytree(corpus / USUAL, corpus / "5th ABAW" / "VA_Estimation_Challenge")
    assert is_whole(corpus)
    move(corpus, USUAL, "6th ABAW/VA_Estimation_Challenge")
    with pytest.raises(UserError, match=r"several years: 5th ABAW/VA_.*, 6th ABAW/VA_.*; rename"):
        scan(corpus)


def test_of_cropped_and_aligned_faces_the_aligned_ones_are_taken(corpus):
    write_crops(corpus / "cropped" / "a", [0])
    assert is_whole(corpus)
    assert scan(corpus).videos[0].crops == corpus / "cropped_aligned" / "a"


def test_a_video_in_two_folders_of_crops_is_named(corpus):
    write_crops(corpus / "cropped_aligned_new_50_vids" / "a", [0])
    problem = next(p for p in scan(corpus).problems if p.severity == "unusable")
    assert "the same name as" in problem.message


def test_what_is_there_is_named_where_a_part_is_missing(corpus):
    move(corpus, "cropped_aligned", "faces")
    with pytest.raises(UserError, match="no folder cropped_aligned; it has annotations, audio, fa"):
        scan(corpus)


@pytest.mark.parametrize("suffix", [".ts", ".wmv", ".MTS"])
def test_videos_and_sound_of_other_containers_count(corpus, suffix):
    for name in ("a", "b"):
        video = (corpus / "videos").rglob(f"{name}.mp4")
        next(video).rename(corpus / "videos" / f"{name}{suffix}")
    (corpus / "audio" / "a.wav").rename(corpus / "audio" / "a.wma")
    assert is_whole(corpus)
    assert scan(corpus).videos[0].audio == corpus / "audio" / "a.wma"
