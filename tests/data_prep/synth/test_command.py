"""The synthetic corpus as a whole: layout, bytes, restart, and what is refused."""

import csv
import hashlib
import json
import shutil
import wave

import av
import cv2
import numpy as np
import pytest

from data_prep.synth import command as synth
from data_prep.synth.curves import generator
from data_prep.synth.streams import write_streams
from data_prep.synth.voice import draw_timbre
from data_prep.synth.words import IRONY, LEXICON
from maven_jax.__main__ import main as command
from maven_jax.errors import UserError
from maven_jax.media.annotations import read_annotation

CHALLENGE = "annotations/VA_Estimation_Challenge"
PARAMETERS = {"videos": 12, "seconds": 4, "seed": 3}


def tree(root):
    """Relative path -> sha256 of every file."""
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("synth") / "corpus"
    synth.write_corpus(root, **PARAMETERS, workers=1)
    return root


@pytest.fixture(scope="module")
def planted(corpus):
    return json.loads((corpus / "truth/planted.json").read_text())


def tracks_of(planted, *splits):
    return [(e, t) for e in planted["media"] if e["split"] in splits for t in e["tracks"]]


def annotation(corpus, entry, track):
    folder = {"train": "Train_Set", "validation": "Validation_Set"}[entry["split"]]
    lines = (corpus / CHALLENGE / folder / f"{track['name']}.txt").read_text().splitlines()
    assert lines[0] == "valence,arousal"
    return np.array([[float(x) for x in line.split(",")] for line in lines[1:]])


def test_every_kind_of_blemish_is_there(planted):
    assert all(planted["blemishes"].values()), planted["blemishes"]


def test_splits_share_no_person(planted):
    people = {}
    for entry, track in tracks_of(planted, "train", "validation", "test"):
        people.setdefault(entry["split"], set()).add(track["person"])
    assert set(people) == {"train", "validation", "test"}
    assert sum(map(len, people.values())) == len(set().union(*people.values()))


def test_videos_are_h264_with_aac_at_the_planted_rates(corpus, planted):
    rates = set()
    for entry in planted["media"]:
        with av.open(str(corpus / entry["media"])) as file:
            assert file.streams.video[0].codec_context.name == "h264"
            times = [float(f.pts * f.time_base) for f in file.decode(video=0)]
            assert len(times) == entry["num_frames"]
            codecs = [s.codec_context.name for s in file.streams.audio]
            assert codecs == (["aac"] if entry["sound"] else [])
        steps = np.diff(times)
        assert steps.min() > 0
        if entry["variable_rate"]:
            assert steps.max() > 1.2 * steps.min()
            rates.add(None)
        else:
            np.testing.assert_allclose(steps, 1 / entry["fps"], atol=1e-4)
            rates.add(entry["fps"])
    assert rates == {30.0, 25.0, 12.5, None}


def test_sound_of_mp4_and_wav_agree(corpus, planted):
    entry = next(e for e in planted["media"] if e["wav_hz"] == 16000)
    with wave.open(str(corpus / "audio" / f"{entry['stem']}.wav")) as file:
        assert file.getframerate() == 16000
        wav = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
    assert wav.size == 16000 * PARAMETERS["seconds"]
    with av.open(str(corpus / entry["media"])) as file:
        aac = np.concatenate([f.to_ndarray()[0] for f in file.decode(audio=0)])[: wav.size]
    assert np.corrcoef(wav, aac)[0, 1] > 0.9


def test_crops_are_missing_exactly_where_planted(corpus, planted):
    missing = 0
    for entry, track in tracks_of(planted, "train", "validation", "test"):
        there = {int(p.stem) for p in (corpus / "cropped_aligned" / track["name"]).iterdir()}
        expected = set(range(1, entry["num_frames"] + 1))
        for first, last in track["faceless"]:
            expected -= set(range(first + 1, last + 2))
        assert there == expected
        missing += entry["num_frames"] - len(there)
    assert missing > 0
    crop = cv2.imread(str(next((corpus / "cropped_aligned").rglob("*.jpg"))))
    assert crop.shape == (112, 112, 3)


def test_annotations_hold_the_truth_and_the_planted_faults(corpus, planted):
    lengths = set()
    for entry, track in tracks_of(planted, "train", "validation"):
        rows = annotation(corpus, entry, track)
        assert len(rows) == entry["num_frames"] + track["extra_lines"]
        lengths.add(np.sign(track["extra_lines"]))
        unlabelled = np.flatnonzero((rows == -5).any(axis=1))
        assert unlabelled.tolist() == track["unlabelled_rows"]
        rows = np.delete(rows, unlabelled, axis=0)
        assert np.abs(rows).max() <= 1
        with open(corpus / "truth" / f"{track['name']}.csv") as file:
            truth = [[float(r["valence"]), float(r["arousal"])] for r in csv.DictReader(file)]
        kept = np.setdiff1d(np.arange(len(truth)), unlabelled)[: len(rows)]
        np.testing.assert_allclose(rows[: len(kept)], np.array(truth)[kept], atol=6e-4)
    assert lengths == {-1, 0, 1}


def test_test_videos_have_a_template_and_no_annotation(corpus, planted):
    tests = {t["name"]: e["num_frames"] for e, t in tracks_of(planted, "test")}
    header, *rows = (corpus / CHALLENGE / "VA_test_template.txt").read_text().splitlines()
    assert header == "image_location,valence,arousal"
    places = [row.split(",")[0] for row in rows]
    assert places == [f"{n}/{i:05d}.jpg" for n in sorted(tests) for i in range(1, tests[n] + 1)]
    annotated = {p.stem for p in (corpus / CHALLENGE).glob("*_Set/*.txt")}
    assert annotated
    assert not annotated & set(tests)


def test_a_pair_shares_picture_sound_and_words(corpus, planted):
    entry = next(e for e in planted["media"] if len(e["tracks"]) == 2)
    stem = entry["stem"]
    assert [t["name"] for t in entry["tracks"]] == [f"{stem}_left", f"{stem}_right"]
    for folder in ("videos", "audio", "transcripts"):
        found = [p.stem for p in (corpus / folder).rglob("*") if p.stem.startswith(stem)]
        assert found in ([stem], [])
    first, second = (annotation(corpus, entry, t) for t in entry["tracks"])
    n = min(len(first), len(second))
    assert not np.allclose(first[:n], second[:n])


def test_transcripts_use_the_lexicon_and_mark_irony(corpus, planted):
    path = next(p for p in (corpus / "transcripts").glob("*.txt"))
    entry = next(e for e in planted["media"] if e["stem"] == path.stem)
    ironic = [tuple(x) for x in entry["irony"]]
    for line in path.read_text().splitlines():
        times, text = line[1:].split("] ")
        start_s, end_s = (float(x.removesuffix("s")) for x in times.split(" - "))
        assert 0 <= start_s < end_s <= PARAMETERS["seconds"]
        words = text.split()
        assert set(words) <= set(LEXICON)
        inside = any(a <= start_s < b for a, b in ironic)
        assert bool(set(words) & set(IRONY)) == inside


def test_same_parameters_same_bytes_whatever_the_workers_and_interruptions(corpus, tmp_path):
    """A run that lost videos half-way is completed to the bytes of an undisturbed one."""
    again = tmp_path / "again"
    synth.write_corpus(again, **PARAMETERS, workers=2)
    expected = tree(corpus)
    assert tree(again) == expected
    # What a kill leaves: no marks of the video, some of its files, and leftovers elsewhere.
    stem = json.loads((again / "truth/planted.json").read_text())["media"][0]["stem"]
    (again / "truth/planted.json").unlink()
    (again / "truth/planted" / f"{stem}.json").unlink()
    for crops in (again / "cropped_aligned").glob(f"{stem}*"):
        (crops / "99999.jpg").write_bytes(b"left by another life")
    (again / ".partial" / stem / "cropped_aligned").mkdir(parents=True)
    shutil.rmtree(again / "annotations" / "VA_Estimation_Challenge" / "Train_Set")
    (again / "annotations" / "VA_Estimation_Challenge" / "Train_Set").mkdir()
    for mark in (again / "truth/planted").iterdir():
        if json.loads(mark.read_text())["split"] == "train":
            mark.unlink()
    synth.write_corpus(again, **PARAMETERS, workers=1)
    assert tree(again) == expected


def test_another_seed_gives_another_corpus(tmp_path):
    for seed in (0, 1):
        synth.write_corpus(tmp_path / str(seed), videos=1, seconds=1, seed=seed, workers=1)
    crops = [sorted((tmp_path / s / "cropped_aligned").rglob("*.jpg"))[-1] for s in "01"]
    assert crops[0].read_bytes() != crops[1].read_bytes()


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"videos": 0}, "--videos"),
        ({"seconds": 0.5}, "--seconds"),
        ({"seconds": float("nan")}, "--seconds"),
        ({"seed": -1}, "--seed"),
        ({"workers": 0}, "--workers"),
    ],
)
def test_bad_arguments_are_named(tmp_path, change, names):
    with pytest.raises(UserError, match=names):
        synth.write_corpus(tmp_path / "x", **{**PARAMETERS, "workers": 1, **change})
    assert not (tmp_path / "x").exists()


def test_folders_with_other_content_are_refused(corpus, tmp_path, capsys):
    before = tree(corpus)
    with pytest.raises(UserError, match="seed 3, not seed 4"):
        synth.write_corpus(corpus, **{**PARAMETERS, "seed": 4}, workers=1)
    assert tree(corpus) == before
    (tmp_path / "thesis.tex").write_text("mine")
    assert command(["synth", "--out", str(tmp_path), "--videos", "1", "--seconds", "1"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "not a synthetic corpus" in error


def test_help_says_what_it_does(capsys):
    with pytest.raises(SystemExit, match="0"):
        command(["synth", "--help"])
    assert "Aff-Wild2" in capsys.readouterr().out


def test_the_truth_of_the_test_videos_is_there_to_score_by(corpus, planted):
    names = {track["name"] for _, track in tracks_of(planted, "test")}
    assert {path.stem for path in (corpus / synth.TEST_LABELS).iterdir()} == names
    for name in names:
        labels = read_annotation(corpus / synth.TEST_LABELS / f"{name}.txt")
        truth = np.loadtxt(corpus / f"truth/{name}.csv", delimiter=",", skiprows=1)
        np.testing.assert_allclose(labels.values, truth[:, 2:4], atol=1e-5)
        assert labels.valid.all()


def test_offsets_change_people_and_are_part_of_what_is_asked(tmp_path):
    apart, alike = (
        [draw_timbre(generator(0, "person", i), offsets).pitch_hz for i in range(200)]
        for offsets in (3.0, 1.0)
    )
    assert np.std(np.log(apart)) == pytest.approx(3 * np.std(np.log(alike)))
    small = {"videos": 1, "seconds": 1, "seed": 0, "workers": 1}
    synth.write_corpus(tmp_path / "c", **small, offsets=2.0)
    with pytest.raises(UserError, match=r"holds a corpus of offsets 2\.0, not offsets None"):
        synth.write_corpus(tmp_path / "c", **small)


def test_streams_are_late_noisy_predictions(tmp_path):
    command(
        ["synth", "--streams", "--out", str(tmp_path / "s"), "--videos", "8", "--seconds", "60"]
    )
    folders = sorted(p.name for p in (tmp_path / "s/annotations").iterdir())
    assert folders == ["test", "train", "validation"]
    lags = []
    for path in sorted((tmp_path / "s/annotations").rglob("*.csv")):
        truth = np.loadtxt(path, delimiter=",", skiprows=1)
        voice = np.loadtxt(tmp_path / "s/features/voice" / path.name, delimiter=",", skiprows=1)
        np.testing.assert_array_equal(truth[:, 0], voice[:, 0])
        assert np.diff(truth[:, 0]) == pytest.approx(0.1)
        scores = [
            np.corrcoef(voice[lag:, 2], truth[: len(truth) - lag, 2])[0, 1] for lag in range(30)
        ]
        assert 0.3 < max(scores) < 0.99
        lags.append(int(np.argmax(scores)) / 10)
    assert np.median(lags) == pytest.approx(1.2, abs=0.3)
    with pytest.raises(UserError, match="not empty"):
        write_streams(tmp_path / "s", videos=2, seconds=5, seed=0)
