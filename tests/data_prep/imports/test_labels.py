"""Ratings as MuSe, AVEC, RECOLA, OMG and tables of clips have them, in small."""

import numpy as np
import pytest

from data_prep.imports.labels import LabelOptions, read_labels
from data_prep.imports.raters import combined, parse_scale
from maven_jax.__main__ import main
from maven_jax.errors import UserError
from maven_jax.store.reader import Store


def save(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def tracks(path, **options):
    return {t.video: t for t in read_labels(path, LabelOptions(**options))[0]}


def test_muse_has_a_file_for_each_dimension_and_milliseconds(tmp_path):
    for dimension, sign in (("valence", 1), ("arousal", -1), ("trustworthiness", 1)):
        rows = "".join(f"{250 * i},{sign * i / 10},1\n" for i in range(4))
        save(tmp_path / "labels" / dimension / "7.csv", "timestamp,value,segment_id\n" + rows)
    save(tmp_path / "metadata" / "partition.csv", "Id,Proposal\n7,devel\n")
    videos, problems = read_labels(tmp_path / "labels", LabelOptions())
    (track,) = videos
    assert (track.video, track.split) == ("7", "validation")
    assert track.time_s.tolist() == [0, 0.25, 0.5, 0.75]
    np.testing.assert_allclose(track.values, [[0, 0], [0.1, -0.1], [0.2, -0.2], [0.3, -0.3]])
    np.testing.assert_allclose(track.extra["trustworthiness"], [0, 0.1, 0.2, 0.3])
    assert problems == []


def test_avec_names_splits_by_files_and_has_semicolons(tmp_path):
    for name in ("Train_DE_01", "Devel_DE_02"):
        text = (
            f"name;timestamp;arousal;valence;liking\n'{name}';0.0;0.5;-0.5;0\n'{name}';0.1;1;0;0\n"
        )
        save(tmp_path / f"{name}.csv", text)
    videos, problems = read_labels(tmp_path, LabelOptions(delay_s=0.1))
    assert [(t.video, t.split) for t in videos] == [
        ("Train_DE_01", "train"),
        ("Devel_DE_02", "validation"),
    ]
    assert videos[0].time_s.tolist() == [0]
    assert videos[0].values.tolist() == [[0, 1]]
    assert videos[0].extra["liking"].tolist() == [0]
    assert problems == []


def test_ratings_of_an_extra_dimension_on_another_scale_cost_that_dimension_alone(tmp_path):
    path = save(tmp_path / "x.csv", "time,valence,arousal,dominance\n0,0,0,3\n1,0,0,4\n")
    (track,), (problem,) = read_labels(path, LabelOptions(splits="train"))
    assert track.extra == {}
    assert "dominance is left out: dominance 3 is outside [-1, 1]; give --scale dominance=" in str(
        problem
    )
    scale = parse_scale(["dominance=1,5"])
    (track,), _ = read_labels(path, LabelOptions(scale, splits="train"))
    assert track.extra["dominance"].tolist() == [0, 0.5]


def test_recola_has_a_column_for_each_rater(tmp_path):
    rows = "0;0.1;0.2;-0.9\n0.04;0.2;0.4;-0.9\n0.08;0.3;0.6;-0.9\n"
    for dimension in ("arousal", "valence"):
        save(tmp_path / dimension / "P16.csv", f"time;FM1 ;FM2 ;FF1 \n{rows}")
    with pytest.raises(UserError, match=r"not one usable rating: .*P16.* --splits FILE.csv"):
        tracks(tmp_path)
    mean = tracks(tmp_path, splits="train")["P16"].values[:, 0]
    np.testing.assert_allclose(mean, [-0.2, -0.1, 0], atol=1e-9)
    weighted = tracks(tmp_path, splits="train", raters="ewe")["P16"].values[:, 0]
    np.testing.assert_allclose(weighted, [0.15, 0.3, 0.45])  # the third agrees with nobody


def test_the_estimator_weighs_raters_by_their_agreement():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)) * [0.1, 0.5, 1] + rng.normal(size=(200, 1))
    weights = [np.corrcoef(r, x.mean(axis=1))[0, 1] for r in x.T]
    np.testing.assert_allclose(combined(x, "ewe"), x @ weights / np.sum(weights))
    x[:, 1] = np.nan
    np.testing.assert_allclose(combined(x, "mean"), (x[:, 0] + x[:, 2]) / 2)


def test_omg_has_a_row_for_each_utterance(tmp_path):
    head = "link,start,end,video,utterance,arousal,valence,EmotionMaxVote\n"
    save(tmp_path / "omg_TrainVideos.csv", head + "u,0,2,ab,utterance_1.mp4,0.5,-0.5,1\n")
    save(tmp_path / "omg_ValidationVideos.csv", head + "u,2,4,cd,utterance_2.mp4,1,0.25,1\n")
    videos = tracks(tmp_path, scale=parse_scale(["arousal=0,1"]))
    assert {v: t.split for v, t in videos.items()} == {
        "ab_utterance_1": "train",
        "cd_utterance_2": "validation",
    }
    assert videos["ab_utterance_1"].time_s is None
    assert videos["cd_utterance_2"].values.tolist() == [[0.25, 1]]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("time,valence,arousal\n0,2,0\n", {}, r"line 2: valence 2 is outside \[-1, 1\]; give --sc"),
        ("time,valence,arousal\n0,6,3\n", {"scale": parse_scale(["1,5"])}, "is the --scale right"),
        ("time,valence,arousal\n0,0,0\n40,0,0\n80,0,0\n", {}, "40 s apart: .*--time-unit ms"),
        ("time,valence,arousal\n0,0,0\n0,0,0\n", {}, "line 3: the time is not later"),
        ("time,valence,arousal\n0,x,0\n", {}, "line 2: not numbers: 'x' in column 'valence'"),
        ("time,joy\n0,0\n", {}, "no column valence or arousal in time, joy"),
        ("file,V,A\na.wav,0,0\na.wav,0,0\n", {"splits": "train"}, "line 3: 'a': the same clip"),
        ("file,V,A\na.wav,0,0\n", {}, "line 2: 'a': no telling which split"),
    ],
)
def test_faults_are_named(tmp_path, text, options, message):
    path = save(tmp_path / "x.csv", text)
    with pytest.raises(UserError, match=message):
        read_labels(path, LabelOptions(**options))


@pytest.mark.parametrize(
    "text",
    [
        "Time,Valence,Arousal\n0,0.5,-0.25\n0.5,1,0\n",
        "Time;Valence;Arousal\n0,0;0,5;-0,25\n0,5;1;0\n",
        "sep=;\ntime;valence;arousal\n0;0.5;-0.25\n0.5;1;0\n",
        "jstime,valence,arousal\n0,0.5,-0.25\n500,1,0\n",
        "time,valence_1,valence_2,arousal_1,arousal_2\n0,0.25,0.75,-0.5,0\n0.5,1,1,0,0\n",
        "time,valence,arousal\n00:00:00.0,0.5,-0.25\n00:00:00.5,1,0\n",
    ],
)
def test_a_table_of_one_s_own_may_be_written_in_many_ways(tmp_path, text):
    (track,) = tracks(save(tmp_path / "x.csv", text), splits="train").values()
    assert track.time_s.tolist() == [0, 0.5]
    assert track.values.tolist() == [[0.5, -0.25], [1, 0]]


def test_one_label_per_clip_from_a_table_to_a_store(tmp_path, capsys):
    head = "FileName,EmoAct,EmoVal,EmoDom,Split_Set\n"
    table = save(tmp_path / "l.csv", head + "a.wav,1,7,4,Train\nb.wav,4,4,4,Development\n")
    for name, rows in (("a", 1), ("b", 1)):
        (tmp_path / "f" / "m").mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "f" / "m" / f"{name}.npy", np.full((rows, 2), 0.5))
    command = ["prepare", "--features", str(tmp_path / "f"), "--labels", str(table), "--out"]
    assert main([*command, str(tmp_path / "s"), "--scale", "1,7"]) == 0
    store = Store(tmp_path / "s")
    (entry,) = store.videos("train")
    assert store.read(entry, 0, 1).targets.tolist() == [[1, -1]]
    assert store.provenance["labels"]["scale"] == {
        d: [1, 7] for d in ("valence", "arousal", "dominance")
    }
    assert store.read(entry, 0, 1, ("dominance",)).features["dominance"].tolist() == [[0]]
    # Features over time need a rate for the label, which then is repeated.
    np.save(tmp_path / "f" / "m" / "b.npy", np.full((5, 2), 0.5))
    assert main([*command, str(tmp_path / "t"), "--scale=1,7"]) == 2
    assert "m/b.npy: one rating for several rows; --fps says" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "t"), "--scale=1,7", "--fps=10"]) == 0
    (entry,) = Store(tmp_path / "t").videos("validation")
    frames = Store(tmp_path / "t").read(entry, 0, 5)
    assert frames.time_s.tolist() == [0, 0.1, 0.2, 0.3, 0.4]
    assert frames.targets.tolist() == [[0, 0]] * 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels=x", "--root=y"], "--features needs either --root ROOT or --labels PATH"),
        (["--root=y", "--scale=1,5"], "--scale goes with --labels"),
        (["--labels=x", "--scale=5,1"], "--scale 5,1: expected LOW,HIGH"),
        (["--labels=x", "--time-unit=h"], "--time-unit h: expected one of s, ms, us, min"),
        (["--root=y", "--time-unit=ms"], "--time-unit ms: goes with --labels; else NAME=UNIT"),
        (["--root=y", "--face=best"], "--face best: expected NAME=VALUE"),
    ],
)
def test_wrong_options_end_in_one_line(tmp_path, capsys, arguments, message):
    code = main(["prepare", f"--features={tmp_path}", f"--out={tmp_path / 's'}", *arguments])
    assert code == 2
    assert message in capsys.readouterr().err
