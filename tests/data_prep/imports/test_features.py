"""Features made elsewhere: how their rows become frames of a store."""

import os
from pathlib import Path

import numpy as np
import pytest

from data_prep.imports import features as import_features
from data_prep.imports.files import FeatureRows
from maven_jax.errors import UserError
from maven_jax.store.reader import Store
from maven_jax.store.schema import Frames


def save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)
    return path


def save_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def annotate(root: Path, split: str, video: str, time_s: np.ndarray, targets=None) -> Path:
    targets = np.full((len(time_s), 2), 0.25) if targets is None else targets
    lines = [f"{t!r},{v!r},{a!r}" for t, (v, a) in zip(time_s.tolist(), targets.tolist())]
    return save_text(
        root / "annotations" / split / f"{video}.csv",
        "\n".join(["time_s,valence,arousal", *lines]) + "\n",
    )


def read_all(store: Store, video: str) -> Frames:
    (entry,) = [e for s in store.splits for e in store.videos(s) if e.video == video]
    return store.read(entry, 0, entry.num_frames)


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path, Path]:
    """Features, annotations (of one video "a", 40 frames at 10 Hz) and the store to be made."""
    annotate(tmp_path / "root", "train", "a", np.arange(40) / 10)
    return tmp_path / "features", tmp_path / "root", tmp_path / "store"


def test_several_modalities_of_any_names_and_rates(tmp_path):
    features, root, out = tmp_path / "f", tmp_path / "r", tmp_path / "s"
    rng = np.random.default_rng(0)
    faces, heart = {}, {}
    for split, video, n in [("train", "p 1", 250), ("validation", "p-2", 40), ("test", "p.3", 7)]:
        time_s = 0.5 + np.arange(n) / 25
        faces[video] = rng.normal(size=(n, 6)).astype(np.float32)
        save(features / "face" / f"{video}.npy", faces[video])
        # A straight line, so that what interpolation gives is known at any time.
        heart[video] = time_s
        at = np.arange(0, 30, 0.1)
        rows = "".join(f"{2 * t - 1:.6f},{t:.6f},{-t:.6f}\n" for t in at)
        save_text(features / "ECG2" / f"{video}.csv", "rate,time_s,minus\n" + rows)
        save(features / "eeg" / f"{video}.npy", np.arange(0, 30, 0.004)[:, None] * [1.0, 3.0])
        if split == "test":
            lines = "time_s\n" + "".join(f"{t!r}\n" for t in time_s.tolist())
            save_text(root / "annotations" / split / f"{video}.csv", lines)
        else:
            annotate(root, split, video, time_s, rng.uniform(-1, 1, (n, 2)))
    save_text(features / "eeg" / "rate.txt", "250\n")
    store = import_features.run(features, root, out, chunk_frames=30)
    assert {m: s.dim for m, s in store.modalities.items()} == {"ECG2": 2, "eeg": 2, "face": 6}
    assert store.splits == ("train", "validation", "test")
    assert not store.untrained
    assert store.modalities["eeg"].spec["rate_hz"] == 250
    for video, expected in faces.items():
        frames = read_all(store, video)
        t = 0.5 + np.arange(len(expected)) / 25
        np.testing.assert_array_equal(frames.time_s, t)
        np.testing.assert_array_equal(frames.features["face"], expected.astype(np.float16))
        np.testing.assert_allclose(
            frames.features["ECG2"], np.stack([2 * t - 1, -t], 1), rtol=1e-3, atol=1e-3
        )
        np.testing.assert_allclose(frames.features["eeg"], t[:, None] * [1, 3], rtol=1e-3)
        assert all(mask.all() for mask in frames.masks.values())
        assert (frames.segment_id == -1).all()
    entry = store.videos("train")[0]
    assert entry.fps == pytest.approx(25)
    assert entry.duration_s == pytest.approx(0.5 + 250 / 25)
    assert store.videos("test")[0].num_annotated == 0


def test_annotations_as_in_the_challenge(tmp_path):
    features, root = tmp_path / "f", tmp_path / "r"
    base = root / "annotations" / "VA_Estimation_Challenge"
    save_text(base / "Train_Set" / "a.txt", "valence,arousal\n0.5,-0.5\n-5,-5\n0.25,0\n")
    save_text(base / "Validation_Set" / "b_left.txt", "valence,arousal\n" + "1,-1\n" * 6)
    save_text(
        base / "VA_test_template.txt",
        "image_location,valence,arousal\n" + "".join(f"c/{i:05d}.jpg,,\n" for i in range(1, 5)),
    )
    for video, n in (("a", 3), ("b_left", 6), ("c", 4)):
        save(features / "m" / f"{video}.npy", np.full((n, 2), n, np.int64))
    with pytest.raises(UserError, match=r"3 unusable.*frame times are not known; --fps gives them"):
        import_features.run(features, root, tmp_path / "s")
    store = import_features.run(features, root, tmp_path / "s", fps=20)
    frames = read_all(store, "a")
    assert frames.time_s.tolist() == [0, 0.05, 0.1]
    assert frames.target_mask.tolist() == [True, False, True]
    assert frames.targets.tolist() == [[0.5, -0.5], [0, 0], [0.25, 0]]
    assert frames.features["m"].tolist() == [[3, 3]] * 3
    assert len(read_all(store, "c")) == 4
    assert store.statistics["targets"].mean.tolist() == [0.375, -0.25]


def test_empty_cells_and_minus_five_are_not_annotated(folders):
    features, root, out = folders
    save_text(
        root / "annotations" / "train" / "a.csv",
        "valence, time_s ,arousal,note\n0.5,1,0.5,x\n,2,0.5,\n0.5,3.5,-5,\n-5.0,4,-5.0,\n",
    )
    save(features / "m" / "a.npy", np.ones((4, 1)))
    frames = read_all(import_features.run(features, root, out), "a")
    assert frames.time_s.tolist() == [1, 2, 3.5, 4]
    assert frames.target_mask.tolist() == [True, False, False, False]
    assert frames.targets.tolist() == [[0.5, 0.5], [0, 0], [0, 0], [0, 0]]


@pytest.mark.parametrize(("rows", "seen"), [(35, 35), (39, 39), (40, 40), (41, 40), (45, 40)])
def test_small_differences_of_length_are_repaired_at_the_end(folders, capsys, rows, seen):
    features, root, out = folders
    save(features / "m" / "a.npy", np.arange(1.0, rows + 1)[:, None])
    frames = read_all(import_features.run(features, root, out), "a")
    assert frames.masks["m"].tolist() == [i < seen for i in range(40)]
    assert frames.features["m"][:, 0].tolist() == [i + 1 if i < seen else 0 for i in range(40)]
    printed = capsys.readouterr().out
    assert (f"m/a.npy: {rows} rows for 40 frames: the last {abs(40 - rows)}" in printed) == (
        rows != 40
    )


def test_one_percent_is_a_small_difference(tmp_path):
    features, root = tmp_path / "f", tmp_path / "r"
    annotate(root, "train", "a", np.arange(2000) / 10)
    file = save(features / "m" / "a.npy", np.ones((2021, 1)))
    with pytest.raises(UserError, match="2021 rows for 2000 frames"):
        import_features.run(features, root, tmp_path / "s")
    save(file, np.ones((1980, 1)))
    assert import_features.run(features, root, tmp_path / "s").videos("train")[0].observed == {
        "m": 1980
    }


@pytest.mark.parametrize("rows", [34, 46])
def test_other_lengths_need_a_rate(folders, rows):
    features, root, out = folders
    save(features / "m" / "a.npy", np.arange(0.0, rows)[:, None])
    with pytest.raises(UserError, match=rf"m/a.npy: {rows} rows for 40 frames: needs --rate m=HZ"):
        import_features.run(features, root, out)
    assert not out.exists()
    store = import_features.run(features, root, out, rates={"m": rows / 4})
    frames = read_all(store, "a")
    expected = np.arange(40) / 10 * rows / 4
    inside = expected <= rows - 1
    np.testing.assert_array_equal(frames.masks["m"], inside)
    np.testing.assert_allclose(frames.features["m"][inside, 0], expected[inside], rtol=1e-3)


def test_a_rate_decides_even_if_the_lengths_agree(folders):
    features, root, out = folders
    save(features / "m" / "a.npy", np.arange(0.0, 40)[:, None])
    save_text(features / "m" / "rate.txt", "10")
    store = import_features.run(features, root, out, rates={"m": 20.0})
    frames = read_all(store, "a")
    np.testing.assert_allclose(frames.features["m"][:20, 0], np.arange(0, 40, 2))
    assert frames.masks["m"].tolist() == [i < 20 for i in range(40)]


def test_interpolation_stays_within_its_rows():
    rows = FeatureRows(np.array([[0.0], [10], [20], [30], [130]]), np.array([1.0, 2, 3, 4, 14]))
    times = np.array([0.9, 1, 1.25, 3.999, 4, 4.5, 13.9, 14, 14.1])
    values, mask = rows.at(slice(0, 9), times)
    assert mask.tolist() == [False, True, True, True, True, False, False, True, False]
    np.testing.assert_allclose(values[mask, 0], [0, 2.5, 29.99, 30, 130])


def test_a_frame_on_a_row_takes_nothing_from_its_neighbour():
    values = np.arange(12.0)[:, None]
    values[7] = np.nan
    rows = FeatureRows(values, np.arange(12) / 10)
    # Sums of 0.1: the eighth is 0.7999999999999999, just before its row.
    found, mask = rows.at(slice(0, 10), np.cumsum(np.full(10, 0.1)))
    assert mask.all()
    np.testing.assert_allclose(found[:, 0], [1, 2, 3, 4, 5, 6, np.nan, 8, 9, 10])


def test_a_row_of_nan_is_not_interpolated(folders):
    features, root, out = folders
    values = np.arange(0.0, 21)[:, None] * [1, 1]
    values[5, 1] = np.nan
    values[9] = np.inf
    save(features / "m" / "a.npy", values)
    store = import_features.run(features, root, out, rates={"m": 5.0})
    (entry,) = store.videos("train")
    frames = read_all(store, "a")
    # Row i lies on frame 2 i; its neighbours depend on it too.
    assert (~frames.masks["m"]).nonzero()[0].tolist() == [9, 10, 11, 17, 18, 19]
    assert entry.nonfinite == {"m": 6}
    assert frames.features["m"][8].tolist() == [4, 4]
    assert frames.features["m"][12].tolist() == [6, 6]


def test_nan_rows_are_masked_and_counted(folders, capsys):
    features, root, out = folders
    values = np.ones((40, 3))
    values[[4, 7], 1] = np.nan
    save(features / "m" / "a.npy", values)
    store = import_features.run(features, root, out)
    assert (~read_all(store, "a").masks["m"]).nonzero()[0].tolist() == [4, 7]
    assert store.videos("train")[0].nonfinite == {"m": 2}
    assert "38 of 40 frames observed (95.0%), 2 masked for NaN" in capsys.readouterr().out


def test_blocks_have_no_seams(tmp_path, monkeypatch):
    features, root = tmp_path / "f", tmp_path / "r"
    rng = np.random.default_rng(0)
    annotate(root, "train", "a", np.cumsum(rng.uniform(0.02, 0.2, 300)))
    save(features / "x" / "a.npy", rng.normal(size=(297, 2)))
    at = np.cumsum(rng.uniform(0.05, 0.2, 250))
    lines = [f"{t},{v}" for t, v in zip(at, rng.normal(size=250))]
    save_text(features / "y" / "a.csv", "\n".join(["time,v", *lines]))
    whole = import_features.run(features, root, tmp_path / "whole")
    monkeypatch.setattr(import_features, "BLOCK_FRAMES", 37)
    assert import_features.run(features, root, tmp_path / "cut").fingerprint == whole.fingerprint
    one, two = (read_all(s, "a") for s in (whole, Store(tmp_path / "cut")))
    for m in ("x", "y"):
        np.testing.assert_array_equal(one.features[m], two.features[m])


def test_a_missing_modality_is_masked_and_reported(folders, capsys):
    features, root, out = folders
    annotate(root, "train", "b", np.arange(12) / 10)
    annotate(root, "train", "c", np.arange(12) / 10)
    for m, video, n in [("x", "a", 40), ("y", "a", 40), ("y", "b", 12), ("y", "stray", 5)]:
        save(features / m / f"{video}.npy", np.ones((n, 2)))
    with pytest.raises(UserError, match=r"1 unusable.*no features of video 'c'"):
        import_features.run(features, root, out)
    store = import_features.run(features, root, out, allow_missing=1)
    assert [v.observed for v in store.videos("train")] == [{"x": 40, "y": 40}, {"x": 0, "y": 12}]
    assert [video for video, _ in store.dropped] == ["c"]
    printed = capsys.readouterr().out
    assert "x: no x features of 'b': masked in the whole video" in printed
    assert "y/stray.npy: no annotation" in printed


def test_a_bad_file_costs_one_video_and_can_be_mended(folders):
    features, root, out = folders
    annotate(root, "train", "b", np.arange(3) / 10)
    save(features / "m" / "a.npy", np.ones((40, 1)))
    file = save_text(features / "m" / "b.csv", "time_s,v\n0,1\n0.1,x\n0.2,3\n")
    with pytest.raises(UserError, match=r"1 unusable.*b.csv: line 3: not numbers"):
        import_features.run(features, root, out)
    save_text(file, "time_s,v\n0,1\n0.1,\n0.2,3\n")
    store = import_features.run(features, root, out)
    assert read_all(store, "b").masks["m"].tolist() == [True, False, True]
    whole = import_features.run(features, root, out.with_name("whole"))
    assert whole.fingerprint == store.fingerprint


def write_pickle(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (write_pickle, "a.npy: not a NumPy array of numbers: .*Python objects"),
        (lambda p: save(p, np.array([["x"]])), "holds <U1, not an array of numbers"),
        (lambda p: save(p, np.ones(40)), r"expected shape \(rows, features\), found \(40,\)"),
        (lambda p: save(p, np.ones((0, 3))), r"found \(0, 3\)"),
        (lambda p: save_text(p, "hello"), "a.npy: not a NumPy array of numbers"),
        (lambda p: save_text(p, ""), "a.npy: not a NumPy array of numbers"),
        (
            lambda p: save(p, np.ones((40, 3))).write_bytes(p.read_bytes()[:200]),
            "a.npy: not a NumPy array of numbers",
        ),
        (lambda p: save_text(p.with_suffix(".csv"), "0.1,2\n1,2\n"), "line 1: no header"),
        (lambda p: save_text(p.with_suffix(".csv"), "frame,v\n7,2\n"), "from 0 or from 1"),
        (lambda p: save_text(p.with_suffix(".csv"), "time_s\n1\n"), "no feature beside the time"),
    ],
)
def test_files_that_hold_no_features_are_named(folders, content, message):
    features, root, out = folders
    annotate(root, "train", "good", np.arange(5) / 10)
    save(features / "m" / "good.npy", np.ones((5, 3)))
    content(features / "m" / "a.npy")
    with pytest.raises(UserError, match=message) as error:
        import_features.run(features, root, out)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time_s,v\n0,1\n0,1\n", "line 3: time 0 s is not later"),
        ("time_s,v\n0,1\nnan,1\n", "line 3: time nan s is not later"),
        ("time_s,v\n0,1\n1,1,1\n", "line 3: 3 columns instead of 2"),
        ("time_s,v\n", "no rows behind the header"),
    ],
)
def test_faults_in_csv_features_are_named(folders, text, message):
    features, root, out = folders
    save_text(features / "m" / "a.csv", text)
    with pytest.raises(UserError, match=f"a.csv: .*{message}|a.csv: {message}"):
        import_features.run(features, root, out)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("valence,arousal\n0,0\n", "line 1: expected time_s,valence,arousal"),
        ("time_s,valence\n0,0\n", "line 1: expected time_s,valence,arousal"),
        ("time_s,valence,arousal\n", "no frames behind the header"),
        ("", "the file is empty"),
        ("time_s;valence;arousal\n0;0;0\n", "is it separated by semicolons"),
        ("time_s,valence,arousal\n0,0,0\n\n1,0,0\n", "line 3: a blank line"),
        ("time_s,valence,arousal\n0,0,0\n1,0\n", "line 3: 2 columns instead of 3"),
        ("time_s,valence,arousal\n0,0,0\n1,x,0\n", "line 3: 'x' is not a number"),
        ("time_s,valence,arousal\n0,0,0\n1,nan,0\n", "line 3: 'nan' is not a number"),
        ("time_s,valence,arousal\n0,0,0\n,0,0\n", "line 3: '' is not a number"),
        ("time_s,valence,arousal\n1,0,0\n1,0,0\n", "line 3: time 1 s is not later"),
        ("time_s,valence,arousal\n1,0,1.1\n", r"line 2: 1.1 is outside \[-1, 1\]"),
    ],
)
def test_faults_in_annotations_are_named(folders, text, message):
    features, root, out = folders
    save(features / "m" / "a.npy", np.ones((40, 1)))
    save_text(root / "annotations" / "train" / "a.csv", text)
    with pytest.raises(UserError, match=f"annotations/train/a.csv: .*{message}"):
        import_features.run(features, root, out)


def test_widths_that_differ_are_named(folders):
    features, root, out = folders
    for video in ("b", "c"):
        annotate(root, "train", video, np.arange(5) / 10)
        save(features / "m" / f"{video}.npy", np.ones((5, 3)))
    save(features / "m" / "a.npy", np.ones((40, 2)))
    with pytest.raises(UserError, match=r"m/a.npy: 2 features a row, the others have 3"):
        import_features.run(features, root, out)
    store = import_features.run(features, root, out, allow_missing=1)
    assert [v.video for v in store.videos("train")] == ["b", "c"]


def test_a_video_in_two_splits_is_refused(folders):
    features, root, out = folders
    annotate(root, "validation", "a", np.arange(40) / 10)
    save(features / "m" / "a.npy", np.ones((40, 2)))
    with pytest.raises(UserError, match=r"video 'a' is also in annotations/train/a.csv"):
        import_features.run(features, root, out)


def test_folders_that_are_not_as_expected(folders, tmp_path):
    features, root, out = folders
    with pytest.raises(UserError, match="no such folder"):
        import_features.run(features, root, out)
    features.mkdir()
    with pytest.raises(UserError, match="no folder in it"):
        import_features.run(features, root, out)
    (features / "m").mkdir()
    with pytest.raises(UserError, match=r"no file of .npy, .csv"):
        import_features.run(features, root, out)
    save(features / "m" / "a.npy", np.ones((40, 2)))
    with pytest.raises(UserError, match="--rate k: no such modality"):
        import_features.run(features, root, out, rates={"k": 1.0})
    with pytest.raises(UserError, match="--rate m: -1 is not a rate"):
        import_features.run(features, root, out, rates={"m": -1.0})
    with pytest.raises(UserError, match="no annotations"):
        import_features.run(features, features, out)
    save_text(features / "m" / "a.csv", "time_s,v\n")
    with pytest.raises(UserError, match=r"the same features are in a.csv too"):
        import_features.run(features, root, out)
    (features / "m" / "a.csv").unlink()
    save(features / "targets" / "a.npy", np.ones((40, 2)))
    with pytest.raises(UserError, match="'targets': this name is taken"):
        import_features.run(features, root, out)
    (root / "annotations" / "VA_Estimation_Challenge").mkdir()
    (features / "targets" / "a.npy").rename(features / "m" / "b.npy")
    (features / "targets").rmdir()
    with pytest.raises(UserError, match="side by side"):
        import_features.run(features, root, out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.full((40, 2), 1e9), "float32"),
        (np.linspace(1e-8, 3e-8, 80).reshape(40, 2), "float32"),
        (1000 + np.linspace(0, 1, 80).reshape(40, 2), "float32"),
        (np.linspace(-3, 3, 80).reshape(40, 2), "float16"),
        (np.full((40, 2), 500.0), "float16"),
    ],
)
def test_values_are_stored_as_float32_where_float16_does_not_hold_them(
    folders, capsys, values, dtype
):
    features, root, out = folders
    save(features / "m" / "a.npy", values)
    store = import_features.run(features, root, out)
    assert store.modalities["m"].dtype == dtype
    assert read_all(store, "a").features["m"].tolist() == values.astype(dtype).tolist()
    assert ("float16 does not hold" in capsys.readouterr().out) == (dtype == "float32")


def test_columns_are_told_by_their_names(folders, capsys):
    features, root, out = folders
    at = np.arange(40) / 10
    for video in ("b", "c", "d"):
        annotate(root, "train", video, at)
    for video, names in (("a", "xyz"), ("b", "zxy"), ("c", "xyz"), ("d", "xyw")):
        rows = "".join(f"{t},{','.join(str(ord(n)) for n in names)}\n" for t in at)
        save_text(features / "m" / f"{video}.csv", f"time_s,{','.join(names)}\n{rows}")
    with pytest.raises(UserError, match=r"1 unusable.*m/d.csv: .*not those of most files: z miss"):
        import_features.run(features, root, out)
    store = import_features.run(features, root, out, allow_missing=1)
    for video in ("a", "b", "c"):
        assert set(map(tuple, read_all(store, video).features["m"].tolist())) == {(120, 121, 122)}
    assert store.modalities["m"].spec["columns"] == ["x", "y", "z"]
    assert "m/b.csv: columns in another order than most" in capsys.readouterr().out


def test_what_a_tracker_says_about_a_row_is_no_feature(folders, capsys):
    features, root, out = folders
    rows = "".join(f"{i + 1}, 0, {i / 10}, 0.98, {int(i != 4)}, {i}\n" for i in range(40))
    save_text(
        features / "m" / "a.csv", f"frame, face_id, time_s, confidence, success, AU01_r\n{rows}"
    )
    store = import_features.run(features, root, out)
    assert store.modalities["m"].spec["columns"] == ["AU01_r"]
    frames = read_all(store, "a")
    assert (~frames.masks["m"]).nonzero()[0].tolist() == [4]
    assert frames.features["m"][:, 0].tolist() == [i if i != 4 else 0 for i in range(40)]
    said = "columns of OpenFace are no features (confidence, face_id, frame, success): left out"
    assert said in capsys.readouterr().out


def test_several_rows_of_a_time_are_refused(folders):
    features, root, out = folders
    save_text(features / "m" / "a.csv", "time_s,face_id,v\n0,0,1\n0,1,2\n")
    with pytest.raises(UserError, match=r"line 3: .*of several rows of a time .* keep one"):
        import_features.run(features, root, out)


@pytest.mark.parametrize("rate", [5.0, 20.0])
def test_another_extent_than_the_frames_is_noted_with_numbers(folders, capsys, rate):
    features, root, out = folders
    save(features / "m" / "a.npy", np.ones((40, 1)))
    store = import_features.run(features, root, out, rates={"m": rate})
    note = f"m/a.npy: rows from 0.00 to {39 / rate:.2f} s, frames from 0.00 to 3.90 s: is their"
    assert note in capsys.readouterr().out
    assert store.videos("train")[0].notes[-1].startswith(note)
    import_features.run(features, root, out.with_name("right"), rates={"m": 10.0})
    assert "is their rate" not in capsys.readouterr().out


def test_features_of_another_time_are_refused(folders):
    features, root, out = folders
    save_text(features / "m" / "a.csv", "time_s,v\n100,1\n101,2\n")
    with pytest.raises(UserError, match=r"a.csv: rows from 100.00 to 101.00 s.*same recording"):
        import_features.run(features, root, out)


@pytest.mark.parametrize("suffix", [".npy", ".csv"])
def test_features_that_are_no_file_do_not_hang(folders, suffix):
    features, root, out = folders
    (features / "m").mkdir(parents=True)
    os.mkfifo(features / "m" / f"a{suffix}")
    with pytest.raises(UserError, match=f"m/a{suffix}: a pipe"):
        import_features.run(features, root, out)
