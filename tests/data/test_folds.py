"""Folds: who is trained on, who is validated on, and by which statistics."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest

from maven_jax.data.folds import NUM_FOLDS, cut, fold_entries, fold_statistics, read_groups
from maven_jax.errors import UserError
from maven_jax.store.reader import Store
from maven_jax.store.schema import Frames, ModalitySpec
from maven_jax.store.writer import PlannedVideo, StoreWriter

# Sorted as a corpus is: the second face of a video need not stand beside the first.
TRAIN = ["a", "a1", "a_right", "b", "c_left", "c_right", "d", "e", "f", "g", "h", "i", "j"]
# The other face of a training video; the official split has none, somebody's corpus may.
VALIDATION = ["v", "g_left", "w"]


def stem_of(video: str) -> str:
    return video.removesuffix("_left").removesuffix("_right").split("-")[0]


def write(path, train=TRAIN, validation=VALIDATION) -> Store:
    videos = [(v, "train") for v in train] + [(v, "validation") for v in validation]
    writer = StoreWriter(
        path,
        videos=[PlannedVideo(v, s, 20 + 3 * i, stem_of(v)) for i, (v, s) in enumerate(videos)],
        modalities={"x": ModalitySpec("x", 3, {}), "y": ModalitySpec("y", 2, {})},
        chunk_frames=16,
        provenance={},
    )
    for i, (video, _) in enumerate(videos):
        rng = np.random.default_rng(i)
        n = 20 + 3 * i
        with writer.video(video, 25.0, n / 25) as out:
            out.append(
                Frames(
                    time_s=np.arange(n) / 25,
                    targets=rng.uniform(-1, 1, (n, 2)).astype(np.float32),
                    target_mask=rng.random(n) < 0.8,
                    segment_id=np.full(n, -1, np.int32),
                    features={
                        "x": (50 + i + rng.normal(size=(n, 3))).astype(np.float32),
                        "y": rng.normal(size=(n, 2)).astype(np.float32),
                    },
                    masks={"x": rng.random(n) < 0.7, "y": np.full(n, video != "b")},
                )
            )
    return writer.finish()


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return write(tmp_path_factory.mktemp("folds") / "s")


def names(entries) -> list[str]:
    return [e.video for e in entries]


def test_fold_0_is_the_official_split(store):
    assert fold_entries(store, 0) == {
        "train": store.videos("train"),
        "validation": store.videos("validation"),
    }


def test_every_video_is_held_out_once_and_trained_on_otherwise(store):
    everyone = sorted(TRAIN + VALIDATION)
    held_out = []
    for fold in range(NUM_FOLDS):
        parts = fold_entries(store, fold)
        train, validation = names(parts["train"]), names(parts["validation"])
        held_out += validation
        assert len(set(train)) == len(train)
        # Nobody is left out but the other face of someone held out in the other official split.
        absent = set(everyone) - set(train) - set(validation)
        assert absent == ({"g_left"} if "g" in validation and fold else set())
        assert not {stem_of(v) for v in validation} & {stem_of(v) for v in train} or fold == 0
    assert sorted(held_out) == everyone


def test_slices_are_runs_of_the_training_list_with_both_faces_of_a_video(store):
    slices = [names(fold_entries(store, k)["validation"]) for k in range(1, NUM_FOLDS)]
    assert slices == [["a", "a_right", "a1"], ["b", "c_left", "c_right"], *slices[2:]]
    assert list(itertools.chain(*slices)) == ["a", "a_right", *TRAIN[1:2], *TRAIN[3:]]
    assert all(2 <= len(s) <= 3 for s in slices)


@pytest.mark.parametrize("faces", [[5, 1, 1, 1, 1], [1, 1, 1, 1, 9], [1] * 5, [1, 7, 1, 1, 1, 3]])
def test_no_slice_is_empty_however_many_faces_a_video_has(faces, tmp_path):
    train = [f"{i}-{j}" for i, n in enumerate(faces) for j in range(n)]
    made = write(tmp_path / "s", train, ["v"])
    slices = [names(fold_entries(made, k)["validation"]) for k in range(1, NUM_FOLDS)]
    assert all(slices)
    assert list(itertools.chain(*slices)) == train


def test_statistics_of_a_fold_are_those_of_its_frames(store):
    for fold in range(NUM_FOLDS):
        train = fold_entries(store, fold)["train"]
        statistics = fold_statistics(store, train)
        assert set(statistics) == {"x", "y", "targets"}
        whole = [store.read(e, 0, e.num_frames) for e in train]
        for name, moments in statistics.items():
            rows = np.concatenate(
                [f.targets[f.target_mask] for f in whole]
                if name == "targets"
                else [f.features[name][f.masks[name]] for f in whole]
            ).astype(np.float64)
            assert moments.count == len(rows)
            np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-12, atol=1e-13)
            np.testing.assert_allclose(moments.std, rows.std(0), rtol=1e-11)


def test_statistics_of_the_official_fold_are_the_stores_bit_for_bit(store):
    statistics = fold_statistics(store, fold_entries(store, 0)["train"])
    for name, moments in store.statistics.items():
        assert moments.count == statistics[name].count
        np.testing.assert_array_equal(moments.mean, statistics[name].mean)
        np.testing.assert_array_equal(moments.std, statistics[name].std)


def test_a_store_without_the_sums_of_its_videos_opens_and_says_what_is_missing(store, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(store.path, copy)
    (one,) = [f for f in (copy / "index").iterdir() if '"video": "d"' in f.read_text()]
    one.write_text(one.read_text()[:-30])
    entries = fold_entries(Store(copy), 1)["train"]
    with pytest.raises(UserError, match=f"{one.name}: .* damaged") as caught:
        fold_statistics(Store(copy), entries)
    assert "\n" not in str(caught.value)
    shutil.rmtree(copy / "index")
    reopened = Store(copy)
    assert len(reopened.read(entries[0], 0, 5)) == 5
    with pytest.raises(UserError, match="`maven-jax prepare`") as caught:
        fold_statistics(reopened, entries)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fold", [-1, 6, True])
def test_a_fold_that_is_none_is_refused(store, fold):
    with pytest.raises(UserError, match=r"config\.data\.fold"):
        fold_entries(store, fold)


def test_what_cannot_be_cut_is_refused(tmp_path):
    few = write(tmp_path / "few", ["a", "b", "c", "d_left", "d_right"], ["v"])
    with pytest.raises(UserError, match="5 slices of 4"):
        fold_entries(few, 2)
    assert len(fold_entries(few, 0)["train"]) == 5
    unsplit = write(tmp_path / "unsplit", TRAIN, [])
    with pytest.raises(UserError, match="'validation'"):
        fold_entries(unsplit, 1)


def in_groups(tmp_path: Path, groups: dict[str, str]) -> str:
    file = tmp_path / "groups.csv"
    rows = [f"{group},{video},note" for video, group in groups.items()]
    file.write_text("\n".join(["group,video,other", *rows]))
    return str(file)


PERSON = {v: f"p{i % 4}" for i, v in enumerate(sorted({stem_of(v) for v in TRAIN + VALIDATION}))}
PEOPLE = {v: PERSON[stem_of(v)] for v in TRAIN + VALIDATION}


@pytest.mark.parametrize(
    ("folds", "groups", "count"), [(3, None, 3), (7, None, 7), (3, PEOPLE, 3), (None, PEOPLE, 4)]
)
def test_own_folds_hold_every_recording_and_group_out_once(store, tmp_path, folds, groups, count):
    file = None if groups is None else in_groups(tmp_path, groups)
    held_out = []
    for fold in range(count):
        parts = fold_entries(store, fold, folds, file)
        train, validation = names(parts["train"]), names(parts["validation"])
        held_out += validation
        assert sorted(train + validation) == sorted(TRAIN + VALIDATION)
        assert not {stem_of(v) for v in validation} & {stem_of(v) for v in train}
        if groups:
            assert not {groups[v] for v in validation} & {groups[v] for v in train}
    assert sorted(held_out) == sorted(TRAIN + VALIDATION)
    with pytest.raises(UserError, match=f"there are {count} folds"):
        fold_entries(store, count, folds, file)


def test_own_folds_are_about_equal_in_annotated_frames(store):
    made = cut(store, 4)
    frames = [sum(e.num_annotated for e in part) for part in made.parts]
    assert max(frames) - min(frames) <= max(e.num_annotated for e in made.videos)
    assert cut(Store(store.path), 4) == made


def test_groups_that_share_a_recording_stay_together(store, tmp_path):
    groups = PEOPLE | {"c_left": "guest", "g_left": "guest", "unheard_of": "p9"}
    made = cut(store, groups=in_groups(tmp_path, groups))
    (apart,) = [p for p in made.parts if "c_left" in names(p)]
    assert {"c_right", "g", "g_left"} <= set(names(apart))
    assert any("stay together" in n and "guest" in n for n in made.notes)
    assert any("unheard_of" in n for n in made.notes)
    assert len(made.parts) == 4 - len({PEOPLE["c_right"], PEOPLE["g"]}) + 1


def test_videos_that_nobody_annotated_take_no_part(tmp_path):
    made = write(tmp_path / "s", ["a", "b", "c"], ["v"])
    entries = [e for e in cut(made, 2).videos if e.video != "b"]
    made._videos["train"] = tuple(
        dataclasses.replace(e, num_annotated=0) if e.video == "b" else e
        for e in made.videos("train")
    )
    assert cut(made, 2).videos == tuple(entries)


def test_files_of_groups_that_cannot_be_used_are_refused(store, tmp_path):
    file = tmp_path / "groups.csv"
    for text, message in (
        ("video;group\na;p", "no column video, group"),
        ("video,group\na,p\na,q", "groups.csv:3: a is in group p already"),
        ("video,group\na,", "groups.csv:2: expected a video and its group"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            read_groups(file)
    with pytest.raises(UserError, match="no group for w;"):
        cut(store, groups=in_groups(tmp_path, {v: p for v, p in PEOPLE.items() if v != "w"}))
    with pytest.raises(UserError, match=r"5 folds of 4 groups .* cannot be cut"):
        cut(store, 5, in_groups(tmp_path, PEOPLE))
    with pytest.raises(UserError, match="2 folds of 1 groups"):
        cut(store, groups=in_groups(tmp_path, dict.fromkeys(PEOPLE, "p")))
