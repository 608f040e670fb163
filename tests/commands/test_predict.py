"""A whole `predict`: the same curve as evaluation of prepared features, and media of all kinds."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import maven_jax
from data_prep.prepare import prepare
from data_prep.synth.plan import plan_corpus
from data_prep.synth.scene import direct, draw_frame
from maven_jax import recipes
from maven_jax.__main__ import main
from maven_jax.errors import UserError
from maven_jax.evaluation.calibration import Adjustment, Calibration
from maven_jax.files import write_json
from maven_jax.runs.evaluate import evaluate
from maven_jax.training.train import train
from maven_jax.video.predictor import load
from tests.support import corpora
from tests.support.recipes_for_tests import small_recipe

FPS, FRAMES = 25, 60
FACELESS = (0, 7, 8)


def portraits(seed: int) -> list[np.ndarray]:
    """Pictures of 320 x 240 of a drawn face that moves; nobody is in those of `FACELESS`."""
    media = [m for m in plan_corpus(8, 0) if len(m.cast) == 1][seed]
    scene = direct(media, FRAMES / FPS, seed)
    shots = scene.shots(np.arange(FRAMES) / FPS)
    images = [draw_frame(scene, shots, i, np.zeros(1, bool))[:, :, ::-1] for i in range(FRAMES)]
    for i in FACELESS:
        images[i] = np.full_like(images[i], 90)
    return [np.ascontiguousarray(image) for image in images]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two videos of 60 frames with ratings and words, as users have them."""
    root = tmp_path_factory.mktemp("mine")
    names = {"one": "train", "two": "validation"}
    corpora.write_rated_videos(root, names)
    (root / "transcripts").mkdir()
    for seed, (name, split) in enumerate(names.items()):
        corpora.write_video(
            root / "videos" / "phone" / f"{name}.mp4",
            frames=FRAMES,
            fps=FPS,
            sound_s=FRAMES / FPS,
            images=portraits(seed),
        )
        rows = np.column_stack([np.arange(FRAMES) / FPS, corpora.smooth_values(FRAMES, seed)])
        ratings = "".join(f"{t},{v},{a}\n" for t, v, a in rows)
        path = root / "annotations" / split / f"{name}.csv"
        path.write_text("time_s,valence,arousal\n" + ratings)
        lines = [f"[{s:.2f}s - {s + 0.9:.2f}s] words at {s}\n" for s in range(2)]
        (root / "transcripts" / f"{name}.txt").write_text("".join(lines))
    return root


@pytest.fixture(scope="module")
def corpus(videos, tmp_path_factory):
    """A corpus made of them, with the faces that the cascade finds; one has expressions too."""
    root = tmp_path_factory.mktemp("corpus")
    assert main(["corpus", "--from", str(videos), "--out", str(root)]) == 0
    for folder, header in (("dominance", "dominance"), ("EXPR", "Calm,Happy")):
        path = root / "annotations" / folder / "Train_Set" / "one.txt"
        path.parent.mkdir(parents=True)
        path.with_name("one.txt").write_text("\n".join([header, *"01" * (FRAMES // 2)]) + "\n")
        (path.parents[1] / "Validation_Set").mkdir()
    return root


@pytest.fixture(scope="module")
def workdir(corpus, tmp_path_factory):
    """A run on it, trained for a few steps and evaluated."""
    folder = tmp_path_factory.mktemp("run")
    encoders = recipes.load("tiny", group="encoders")
    for name in ("visual", "audio", "text"):
        encoders[name].batch_size = 16 if name != "audio" else 2
    encoders.visual.batch_buckets = encoders.audio.batch_buckets = 1
    encoders.text.length_buckets = 1
    store = prepare(corpus, folder / "store", encoders, workers=1)
    config = small_recipe(
        store.path,
        "quickstart:concat",
        data__window={"kind": "sliding", "length": 20, "hop": 20, "step_s": None},
        train__num_epochs=1.0,
        loss__extra_targets=("*",),
        eval__hop=7,
        eval__smooth_frames=(0, 0),
    )
    train(config, folder / "run")
    evaluate(folder / "run", "validation")
    return folder / "run"


@pytest.fixture(scope="module")
def predictor(workdir):
    return load(workdir, workers=1)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def curve_of(path: Path) -> np.ndarray:
    columns = ("time_s", "valence", "arousal")
    return np.array([[float(row[c] or "nan") for c in columns] for row in rows_of(path)])


@pytest.mark.parametrize("own_crops", [False, True])
def test_a_raw_video_gives_the_curve_of_its_prepared_features(
    predictor, workdir, videos, corpus, tmp_path, own_crops
):
    """Faces are found by the same search in training and here, or given as they were cut then."""
    found = predictor.predict(
        videos / "videos" / "phone" / "two.mp4",
        transcript=videos / "transcripts" / "two.txt",
        crops=corpus / "cropped_aligned" / "two" if own_crops else None,
    )
    found.to_csv(tmp_path / "two.csv")
    evaluated = curve_of(workdir / "eval" / "validation" / "two.csv")
    np.testing.assert_allclose(curve_of(tmp_path / "two.csv"), evaluated, atol=1e-4)
    assert np.ptp(evaluated[:, 1]) > 1e-2
    faceless = [i for i in range(FRAMES) if not found.observed["visual"][i]]
    assert set(FACELESS) <= set(faceless)
    assert len(faceless) < FRAMES / 4
    np.testing.assert_array_equal(found.face_found, found.observed["visual"])
    lost = np.isnan(found.boxes[20:]).any(axis=1)
    assert lost.all() if own_crops else lost.sum() <= 6  # a laugh that is drawn is a hard case
    assert "untrained encoders" in found.label
    assert found.words
    # So are the targets beside valence and arousal.
    names = ("expr_Calm", "expr_Happy", "dominance")
    shown, expected = (
        np.array([[float(row[n] or "nan") for n in names] for row in rows_of(path)])
        for path in (tmp_path / "two.csv", workdir / "eval" / "validation" / "two.csv")
    )
    np.testing.assert_allclose(shown, expected, atol=1e-4)
    np.testing.assert_allclose(shown[:, 0] + shown[:, 1], 1, atol=1e-5)
    assert np.ptp(shown, axis=0).min() > 1e-3
    assert found.to_json()["extra"]["expr"]["labels"] == ["Calm", "Happy"]


def test_another_detector_than_that_of_the_training_is_noted(predictor, workdir, videos, capsys):
    video = videos / "videos" / "phone" / "two.mp4"
    (detector,) = predictor.model.trained_on.face_detectors
    assert main(["inspect", str(workdir.with_name("store"))]) == 0
    printed = capsys.readouterr().out
    assert f"faces of 2 videos: largest by {detector}, smallest 0.12" in printed
    note = f"cascade (boxes only), those of the training by {detector}: --face-model"
    assert [n for n in predictor.predict(video, face_model="haar").notes if note in n]
    assert not [n for n in predictor.predict(video).notes if "those of the training" in n]


def test_a_contribution_is_what_is_lost_without_the_modality(predictor, videos, corpus, tmp_path):
    video = videos / "videos" / "phone" / "two.mp4"
    (tmp_path / "empty").mkdir()
    crops = corpus / "cropped_aligned" / "two"
    found = predictor.predict(video, crops=crops, contributions=True)
    faceless = predictor.predict(video, crops=tmp_path / "empty")
    assert not faceless.observed["visual"].any()
    lost = found.contributions["visual"]
    there = ~np.isnan(faceless.va).any(axis=1) & found.observed["visual"]
    assert there.sum() > FRAMES / 2
    np.testing.assert_allclose((found.va - lost)[there], faceless.va[there], atol=1e-5)
    assert np.abs(lost[there]).max() > 1e-3


def test_a_folder_of_crops_has_the_rows_that_its_names_say(predictor, corpus):
    crops = corpus / "cropped_aligned" / "two"
    found = predictor.predict(crops, fps=FPS)
    np.testing.assert_allclose(found.time_s, np.arange(FRAMES) / FPS)
    there = {int(path.stem) - 1 for path in crops.iterdir()}
    assert set(np.flatnonzero(found.observed["visual"])) == there
    assert set(found.modalities) == {"visual", ""}
    with pytest.raises(UserError, match="tells no times; give --fps"):
        predictor.predict(crops)


def test_a_bundle_predicts_what_its_run_does(predictor, workdir, tmp_path):
    corpora.write_wav(tmp_path / "sound.wav", 1.0)
    run = shutil.copytree(workdir, tmp_path / "run")
    how = Adjustment(0.2, 5, 1.5, 0.1), Adjustment(0.0, 7, 1.0, 0.0)
    tuned = Calibration(how, predictor.model.step, "validation", "abc")
    write_json(run / "calibration.json", tuned.to_json())
    words = ["--checkpoint", str(run), "--out", str(tmp_path / "bundle")]
    assert main(["export", *words, "--platforms", "none"]) == 0
    bundle = maven_jax.load(tmp_path / "bundle", workers=1)
    found = bundle.predict(tmp_path / "sound.wav", calibrated=True)
    wanted = predictor.predict(tmp_path / "sound.wav")
    np.testing.assert_allclose(found.va, wanted.va, atol=1e-6)
    expressions = (x.extra["expr"].values for x in (found, wanted))
    np.testing.assert_allclose(*expressions, atol=1e-6)
    assert bundle.model.outputs == ("valence", "arousal", "dominance", "expr_Calm", "expr_Happy")
    np.testing.assert_array_equal(found.calibrated, tuned(found.va, found.facts["fps"]))
    assert np.nanmax(np.abs(found.calibrated - found.va)) > 1e-3
    assert found.to_json()["calibration"] == tuned.to_json()
    assert found.label == wanted.label != ""


def test_what_is_missing_is_said_and_marked(predictor, tmp_path):
    video = tmp_path / "nobody.mp4"
    corpora.write_video(video, frames=FRAMES, fps=FPS, sound_s=FRAMES / FPS)
    found = predictor.predict(video, contributions=True)
    assert any("no face was found" in note for note in found.notes)
    assert any("no words" in note for note in found.notes)
    assert set(found.modalities[5:-5]) == {"audio"}  # no feature reaches the first and last frame
    assert not np.isnan(found.va[5:-5]).any()
    # The one is alone, the other missing: there is nothing to compare.
    assert all(np.isnan(values).all() for values in found.contributions.values())


def test_frames_that_show_nothing_have_no_value(predictor, tmp_path):
    corpora.write_video(tmp_path / "mute.mp4", frames=30, fps=25)
    found = predictor.predict(tmp_path / "mute.mp4", smooth=(3, 5))
    assert np.isnan(found.va).all()
    assert np.isnan(found.smoothed).all()
    assert any("30 frames show nothing" in note for note in found.notes)


def test_times_are_the_containers_also_of_a_variable_rate(predictor, tmp_path):
    ticks = np.cumsum(np.random.default_rng(0).integers(10, 90, 40))
    times = [int(t - ticks[0]) for t in ticks]
    corpora.write_video(tmp_path / "v.mkv", frames=40, fps=1000, times=times, sound_s=1.0)
    found = predictor.predict(tmp_path / "v.mkv")
    np.testing.assert_allclose(found.time_s, np.array(times) / 1000, atol=1e-3)
    assert found.observed["audio"].sum() < 40  # the sound ends before the pictures do


def test_sound_alone_has_rows_at_the_rate_asked_for(predictor, tmp_path):
    corpora.write_wav(tmp_path / "sound.wav", 2.0)
    found = predictor.predict(tmp_path / "sound.wav", fps=10)
    np.testing.assert_allclose(found.time_s, np.arange(20) / 10)
    assert set(found.modalities[1:-1]) == {"audio"}
    assert np.isnan(found.boxes).all()


def test_several_files_one_of_them_broken(workdir, videos, tmp_path, capfd):
    video = videos / "videos" / "phone" / "two.mp4"
    (tmp_path / "text.mp4").write_text("no video at all\n")
    out = tmp_path / "out"
    given = ["predict", str(video), str(tmp_path / "text.mp4"), "--checkpoint", str(workdir)]
    assert main([*given, "--out", str(out), "--json", "--smooth", "3,5"]) == 2
    said = capfd.readouterr()
    assert "text.mp4: cannot be opened (truncated, or not a media file)" in said.err
    assert "1 of 2 failed" in said.err
    assert "Traceback" not in said.err
    assert "MEANINGLESS NUMBERS: features of untrained encoders" in said.out
    assert sorted(p.name for p in out.iterdir() if p.is_file()) == [
        "two.csv",
        "two.json",
        "two.png",
        "two_circumplex.png",
    ]
    rows = rows_of(out / "two.csv")
    assert len(rows) == FRAMES
    assert "untrained" in rows[0]["label"]
    assert any(row["valence_smoothed"] != row["valence"] for row in rows)
    written = json.loads((out / "two.json").read_text())
    assert written["facts"]["real_time_factor"] > 0


def test_many_media_make_one_table_and_are_not_done_twice(workdir, videos, tmp_path, capfd):
    clips = [tmp_path / "one.mp4", tmp_path / "two.mp4", tmp_path / "broken.mp4"]
    for clip in clips[:2]:
        shutil.copyfile(videos / "videos" / "phone" / clip.name, clip)
    clips[2].write_text("no video at all\n")
    out = tmp_path / "out"
    words = [*map(str, clips), "--checkpoint", str(workdir), "--out", str(out)]
    words += ["--transcript", str(videos / "transcripts"), "--start", "0:01", "--end", "2"]
    words += ["--export", "elan", "--export", "boris", "--table", str(tmp_path / "all.csv")]
    assert main(["predict", *words, "--resume"]) == 2
    said = capfd.readouterr()
    assert "broken.mp4: no transcript of its name" in said.out
    assert "2 of 3 in one table" in said.out
    assert "1 of 3 failed: " in said.err
    assert {p.suffix for p in out.iterdir() if p.is_file()} == {".csv", ".png", ".eaf", ".boris"}
    rows = rows_of(tmp_path / "all.csv")
    assert [row["video"] for row in rows] == [str(clips[0])] * FPS + [str(clips[1])] * FPS
    assert [int(row["frame"]) for row in rows[:FPS]] == list(range(FPS, 2 * FPS))
    assert float(rows[0]["time_s"]) == pytest.approx(1)
    assert any("text" in row["modalities"] for row in rows)
    # What is whole is left alone; what was changed, or is asked for otherwise, is not.
    before = contents(out)
    (out / "one.eaf").unlink()
    table = (tmp_path / "all.csv").read_bytes()
    assert main(["predict", *words, "--resume"]) == 2
    said = capfd.readouterr().out
    assert f"{clips[1]}: is there already" in said
    assert f"{clips[0]}: is there already" not in said
    assert contents(out) == before
    assert (tmp_path / "all.csv").read_bytes() == table
    # The users' own file beside it fails that one alone, and only it.
    (out / "two.csv").write_text("mine")
    assert main(["predict", *words[:2], *words[3:], "--resume"]) == 2
    said = capfd.readouterr()
    assert "two.csv: was changed" in said.err
    assert "1 of 2 in one table" in said.out
    assert (out / "two.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "content", "more", "said"),
    [
        ("zero.mp4", b"", [], "zero bytes"),
        ("x.wav", b"RIFF", [], "cannot be opened"),
        ("none.mp4", None, [], "no such file"),
        ("x.mp4", b"x", ["--calibrated"], "nobody chose a calibration"),
        ("x.mp4", b"x", ["--smooth", "3"], "expected two numbers of frames"),
        ("x.mp4", b"x", ["--fps", "0"], "expected a number above 0"),
        ("x.mp4", b"x", ["--start", "soon"], "expected a time, as in 90 or 1:30"),
        ("x.mp4", b"x", ["--table", "all.xlsx"], "expected a name that ends in .csv or"),
    ],
)
def test_mistakes_end_in_one_line(workdir, tmp_path, capfd, name, content, more, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    given = ["predict", str(tmp_path / name), "--checkpoint", str(workdir)]
    assert main([*given, "--out", str(tmp_path / "out"), *more]) == 2
    error = capfd.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_other_encoders_than_those_of_training_are_refused(workdir, tmp_path, capfd):
    corpora.write_wav(tmp_path / "sound.wav", 1.0)
    given = ["predict", str(tmp_path / "sound.wav"), "--checkpoint", str(workdir)]
    assert main([*given, "--out", str(tmp_path / "o"), "--encoders.audio.seed=1"]) == 2
    assert "the encoder of audio is not the one of training: sha256" in capfd.readouterr().err


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that is not a record of outputs, by its path."""
    files = (p for p in folder.rglob("*") if p.is_file() and ".maven_jax" not in p.parts)
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["clip.mp4", "--out", "."], "clip.csv: is there already and not written by `predict`"),
        (["clip.mp4", "--out", "link"], "clip.csv: is there already"),
        (
            ["clip.mp4", "--out", "o", "--overlay", "clip.mp4", "--force"],
            "which this command reads",
        ),
        (
            ["clip.mp4", "--out", "o", "--overlay", "hard.mp4", "--force"],
            "which this command reads",
        ),
        (["other.mp4", "--out", ".", "--json", "--transcript", "other.json", "--force"], "reads"),
        (["config.mp4", "--out", "run", "--json", "--force"], "is part of"),
        (["clip.mp4", "--out", "o", "--overlay", "o/clip.csv"], "expected an MP4 of its own"),
        (["clip.mp4", "--out", "file"], "expected a folder"),
        (["clip.mp4", "--out", "n" * 300], "too long"),
        (["clip.mp4", "--out", "gs://bucket/o"], "mount the bucket"),
        (["n" * 244 + ".mp4", "--out", "o", "--json"], "too long"),
    ],
)
def test_nothing_of_the_users_is_replaced(
    words, said, workdir, videos, tmp_path, monkeypatch, capsys
):
    """All of these are refused before a frame is decoded, so the clips may be anything."""
    for name in ("clip.mp4", "other.mp4", "config.mp4", "file", "n" * 244 + ".mp4"):
        (tmp_path / name).write_bytes(b"a recording")
    (tmp_path / "hard.mp4").hardlink_to(tmp_path / "clip.mp4")
    (tmp_path / "clip.csv").write_text("time_s,valence\n0,1\n")
    (tmp_path / "other.json").write_text("[]")
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_bytes((workdir / "config.json").read_bytes())
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path)
    assert main(["predict", *words, "--checkpoint", "run"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert contents(tmp_path) == before


def test_clips_of_one_name_do_not_replace_each_other(workdir, tmp_path, capsys):
    sound = tmp_path / "a" / "cam.wav"
    corpora.write_wav(sound, seconds=1.0)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "cam.wav").write_bytes(sound.read_bytes())
    out = tmp_path / "out"
    words = ["--checkpoint", str(workdir), "--out", str(out), "--overlay", str(out / "o.mp4")]
    assert main(["predict", str(sound), *words]) == 0
    assert "cam.wav: no video, so no overlay" in capsys.readouterr().out
    assert main(["predict", str(sound), *words]) == 0  # its own results are renewed
    before = contents(out)
    assert main(["predict", str(tmp_path / "b" / "cam.wav"), *words]) == 2
    assert "written by `predict` for" in capsys.readouterr().err
    assert contents(out) == before
    assert main(["predict", str(tmp_path / "b" / "cam.wav"), *words, "--force"]) == 0


def test_what_cannot_be_read_is_masked_and_said(predictor, corpus, tmp_path):
    """A crop that is no JPEG shows no face, and notes name it, damaged sound and words beside."""
    crops = shutil.copytree(corpus / "cropped_aligned" / "two", tmp_path / "crops")
    (crops / "00021.jpg").write_bytes(b"\x89PNG\r\n")
    (crops / "00099.jpg").write_bytes(b"")
    video = corpus / "videos" / "two.mp4"
    (tmp_path / "late.txt").write_text("[50.0s - 51.0s] words elsewhere\n")
    found = predictor.predict(video, crops=crops, transcript=tmp_path / "late.txt", face=1)
    assert not found.face_found[20]
    assert found.face_confidence[20] == 0
    assert found.face_found[21]
    said = " / ".join(found.notes)
    assert "1 crop cannot be used (masked): 00021.jpg (not a JPEG, PNG" in said
    assert "crops lie behind the last frame: unused" in said
    assert "no words of the transcript lie within the recording" in said
    assert found.to_json()["notes"] == list(found.notes)


def test_two_faces_share_the_sound_and_the_words(predictor, videos, tmp_path):
    """Each is predicted as if it were alone, and sound and words are encoded once."""
    path = tmp_path / "two.mp4"
    images = [np.hstack(pair) for pair in zip(portraits(0)[10:40], portraits(1)[10:40])]
    corpora.write_video(path, frames=30, fps=FPS, sound_s=1.2, images=images)
    words = videos / "transcripts" / "two.txt"
    both = predictor.predict_faces(path, face="all", transcript=words)
    assert [found.track for found in both] == ["1", "2"]
    for found in both:
        alone = predictor.predict(path, face=found.track, transcript=words)
        np.testing.assert_allclose(found.va, alone.va, atol=1e-3)
        assert found.observed["audio"].sum() > 25
        assert found.observed["text"].any()
    assert np.abs(both[0].va - both[1].va).max() > 1e-3
    left = predictor.predict(path, face="left", transcript=words)
    assert np.nanmax(left.boxes[:, 0]) < 320
