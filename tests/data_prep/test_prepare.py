"""Corpus to store: every frame at its place and time, whatever happens on the way."""

import dataclasses
import errno
import hashlib
import inspect
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

from data_prep import encode as encode_module
from data_prep import prepare
from data_prep.corpus.check import check
from data_prep.corpus.layout import scan
from data_prep.encode import FrameCount, encode_corpus, encode_videos
from maven_jax import recipes
from maven_jax.__main__ import main
from maven_jax.errors import UserError
from maven_jax.features.device import Clock
from maven_jax.features.reader import BLOCK_FRAMES, KINDS, MODALITIES, Encoders, open_encoders
from maven_jax.features.visual import RawCrops
from maven_jax.store.plan import Plan
from maven_jax.store.reader import Store
from maven_jax.store.writer import PlannedVideo, StoreWriter
from tests.support import corpora

SECONDS = 1.6


def files(folder: Path) -> dict[str, str]:
    """Relative path → sha256 of every file."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def by_name(store: Store):
    """Video → all its frames."""
    return {v.video: store.read(v, 0, v.num_frames) for s in store.splits for v in store.videos(s)}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Four videos of 40 frames; one in test, one that is a plain sequence of crops and words."""
    return corpora.write_tiny_corpus(
        tmp_path_factory.mktemp("corpus"), seconds=SECONDS, missing_crops=(0, 3, 4, 39)
    )


@pytest.fixture(scope="module")
def store(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "store"
    assert main(["prepare", "--root", str(root), "--out", str(out), "--encoders", "tiny"]) == 0
    return Store(out)


def test_every_frame_is_there_at_its_own_time(root, store):
    checks = {c.video.name: c for c in check(scan(root)).checks}
    frames = by_name(store)
    assert set(frames) == set(checks) == set(corpora.SPLITS)
    assert [v.video for v in store.videos("train")] == ["train_a", "train_b"]
    for name, found in frames.items():
        assert len(found) == checks[name].num_frames == 40
        np.testing.assert_array_equal(found.time_s, checks[name].times_s)
        labelled = found.target_mask.tolist()
        assert labelled == [name != "test_a" and i != 5 for i in range(40)]
        assert np.abs(found.targets).max() <= 1


def test_masks_lack_exactly_what_was_not_observed(store):
    for found in by_name(store).values():
        assert np.flatnonzero(~found.masks["visual"]).tolist() == [0, 3, 4, 39]
        assert (found.features["visual"][[0, 3, 4, 39]] == 0).all()
        spoken = found.time_s < 0.9
        np.testing.assert_array_equal(found.masks["text"], spoken)
        np.testing.assert_array_equal(found.segment_id, np.where(spoken, 0, -1))
        # Sound lasts as long as the picture; its first and last feature are half a window inside.
        assert found.masks["audio"][2:-2].all()
        for name, values in found.features.items():
            assert np.isfinite(values).all()
            assert np.abs(values[found.masks[name]]).sum(1).min() > 0


def test_the_store_says_where_its_features_come_from(store):
    assert store.untrained
    assert list(store.modalities) == ["visual", "audio", "text"]
    for name, modality in store.modalities.items():
        assert modality.spec["untrained"]
        assert len(modality.spec["sha256"]) == 64
        assert modality.spec["preprocessing"]
        assert modality.spec["versions"]["jax"]
        assert store.statistics[name].count > 0
    assert store.provenance["encoders"]["audio"]["source"] == "random"


def test_a_second_run_encodes_nothing_and_changes_nothing(root, store, capsys):
    before = files(store.path)
    argv = ["prepare", "--root", str(root), "--out", str(store.path), "--encoders", "tiny"]
    assert main(argv) == 0
    assert "160 of 160 frames are in the store already" in capsys.readouterr().out
    assert files(store.path) == before


def test_how_long_it_will_take_is_said_before_it_begins(root, store, tmp_path, capsys, monkeypatch):
    encoders = Encoders(RawCrops(resize=8, workers=1), None, None)
    checks = check(scan(root)).checks
    plan = [PlannedVideo(c.video.name, c.video.split, c.num_frames, c.video.stem) for c in checks]
    writer = StoreWriter(tmp_path, videos=plan, modalities=encoders.specs(), provenance={})
    assert encode_module.trial_rate(checks, encoders, writer) is None
    monkeypatch.setattr(encode_module, "_TRIAL_FRAMES", 3)
    rate = encode_module.trial_rate(checks, encoders, writer)
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith(f"encode: about {rate:,.1f} frames/s in a trial of 3 frames: ")
    assert said.endswith("for the 160 frames of 4 videos")


def test_what_ends_the_writing_ends_the_reading_ahead(root, monkeypatch):
    """Neither the video at hand nor the next one, begun already, is read any further."""
    frames = 8 * BLOCK_FRAMES
    long = dict(num_frames=frames, times_s=np.arange(frames) / 25)
    checks = [
        dataclasses.replace(c, video=dataclasses.replace(c.video, annotation=None), **long)
        for c in check(scan(root)).checks
    ]

    class FullDisk(StoreWriter):
        def __init__(self) -> None:
            self.plan = Plan("full", 1, {}, {}, {})

        def is_done(self, name: str) -> bool:
            return False

        def video(self, *_: object, **__: object):
            raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(encode_module, "_cores_to_spare", lambda: True)
    with pytest.raises(UserError, match="no space left; the same command continues") as caught:
        encode_videos(checks, Encoders(None, None, None), FullDisk(), Clock(), FrameCount())
    assert caught.tb  # which refers to both videos: nothing has stopped for want of reference
    assert not [t.name for t in threading.enumerate() if t.name.startswith("encode ")]


def impulses(root, name, times_s, at_s, frame):
    """A video with a click at `at_s`, a white crop at `frame` and one word around `at_s`."""
    ticks = [round(t * 1000) for t in times_s]
    corpora.write_video(
        root / "videos" / f"{name}.mp4", frames=len(ticks), fps=1000, times=ticks, sound_s=None
    )
    # Silence elsewhere: its features are all alike, so that a change is the click's.
    samples = np.zeros(round((times_s[-1] + 0.2) * 16000))
    click = round(at_s * 16000)
    samples[click - 80 : click + 80] = 0.9 * np.hanning(160) * np.sin(np.arange(160))
    path = root / "audio" / f"{name}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, 16000, subtype="PCM_16")
    for i in range(len(ticks)):
        crop = root / "cropped_aligned" / name / f"{i + 1:05d}.jpg"
        crop.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(crop), np.full((112, 112, 3), 255 if i == frame else 60, np.uint8))
    (root / "transcripts").mkdir(exist_ok=True)
    line = f"[{at_s - 0.1:.3f}s - {at_s + 0.1:.3f}s] love\n"
    (root / "transcripts" / f"{name}.txt").write_text(line)
    values = corpora.smooth_values(len(ticks), 0)
    folder = root / corpora.ANNOTATIONS / corpora.FOLDERS["train"]
    corpora.write_annotation(folder / f"{name}.txt", values)


def test_impulses_appear_at_their_frames_at_every_rate(tmp_path):
    rng = np.random.default_rng(1)
    clocks = {
        "fps12": np.arange(40) / 12.5,
        "fps25": np.arange(75) / 25,
        "fps30": np.arange(90) / 30,
        "variable": np.cumsum(rng.uniform(0.02, 0.08, 60)),
    }
    frames = {}
    for name, times in clocks.items():
        times = np.round(times - times[0], 3)
        frame = int(np.searchsorted(times, 1.93))
        frames[name] = frame
        impulses(tmp_path, name, times, at_s=float(times[frame]), frame=frame)
    (tmp_path / corpora.ANNOTATIONS / corpora.FOLDERS["validation"]).mkdir(parents=True)
    encoders = recipes.load("tiny", group="encoders")
    found = by_name(prepare.prepare(tmp_path, tmp_path / "store", encoders, workers=1))
    for name, frame in frames.items():
        video = found[name]
        for modality in ("visual", "audio"):
            values = video.features[modality].astype(np.float32)
            change = np.linalg.norm(values - np.median(values, axis=0), axis=1)
            change[~video.masks[modality]] = 0
            reach = 0 if modality == "visual" else 1
            assert abs(int(change.argmax()) - frame) <= reach, (name, modality)
        spoken = np.abs(video.time_s - video.time_s[frame]) < 0.0995
        inner = np.abs(video.time_s - video.time_s[frame]) < 0.1005
        assert (video.masks["text"][spoken]).all(), name
        assert not (video.masks["text"][~inner]).any(), name


def start(root, out, encoders="tiny"):
    command = [sys.executable, "-m", "maven_jax", "prepare", "--root", root, "--out", out]
    return subprocess.Popen(
        [*command, "--encoders", encoders, "--workers", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


@pytest.mark.multiprocess
def test_killed_in_the_middle_and_run_again_gives_the_same_bytes(root, store, tmp_path, capsys):
    out = tmp_path / "store"
    process = start(root, out)
    deadline = time.monotonic() + 300
    while not list(out.glob("index/video-*.json")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if process.returncode == -signal.SIGKILL:  # otherwise it was quicker than the signal
        assert not (out / "store.json").exists()
        with pytest.raises(UserError, match="not finished"):
            Store(out)
    again = ["prepare", "--root", str(root), "--out", str(out), "--encoders", "tiny"]
    assert main([*again, "--workers", "1"]) == 0
    assert "are in the store already" in capsys.readouterr().out
    assert files(out) == files(store.path)


def opened(root, tmp_path, modalities=("visual", "audio", "text")):
    """Checks, encoders and a new writer."""
    checks = check(scan(root)).usable
    encoders = open_encoders(recipes.load("tiny", group="encoders"), modalities, 1)
    planned = [
        PlannedVideo(c.video.name, c.video.split, c.num_frames, c.video.stem) for c in checks
    ]
    writer = StoreWriter(
        tmp_path / "store", videos=planned, modalities=encoders.specs(), provenance={}
    )
    return checks, encoders, writer


def test_a_file_that_breaks_while_encoding_costs_its_video_only(root, tmp_path, capsys):
    copy = tmp_path / "corpus"
    shutil.copytree(root, copy)
    checks, encoders, writer = opened(copy, tmp_path, ("audio",))
    sound = copy / "audio" / "train_a.wav"
    whole = sound.read_bytes()
    sound.write_bytes(whole[:20])
    failed = encode_corpus(checks, encoders, writer)
    assert list(failed) == ["train_a"]
    assert "train_a.wav" in failed["train_a"]
    assert "FAILED train_a" in capsys.readouterr().out
    with pytest.raises(UserError, match="train_a"):
        writer.finish()
    assert writer.finish(allow_missing=1).dropped[0][0] == "train_a"
    # Mended, only that one is encoded.
    sound.write_bytes(whole)
    assert encode_corpus(checks, encoders, writer) == {}
    assert "120 of 160 frames are in the store already" in capsys.readouterr().out
    assert {v.video for v in writer.finish().videos("train")} == {"train_a", "train_b"}


def test_parts_of_a_store_are_encoded_apart_and_joined(root, tmp_path, capsys):
    argv = ["prepare", "--root", str(root), "--encoders", "tiny", "--modalities", "text"]
    for part in ("1/2", "2/2"):
        assert main([*argv, "--out", str(tmp_path / "parts"), "--part", part]) == 0
        with pytest.raises(UserError, match="not finished"):
            Store(tmp_path / "parts")
    assert main([*argv, "--out", str(tmp_path / "parts")]) == 0
    assert main([*argv, "--out", str(tmp_path / "whole")]) == 0
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_a_corpus_without_transcripts_has_text_masked(root, tmp_path, capsys):
    copy = tmp_path / "corpus"
    shutil.copytree(root, copy)
    shutil.rmtree(copy / "transcripts")
    argv = ["prepare", "--root", str(copy), "--out", str(tmp_path / "store"), "--encoders", "tiny"]
    assert main([*argv, "--modalities", "text", "--limit-videos", "1"]) == 0
    assert "text: all videos have no transcript" in capsys.readouterr().out
    store = Store(tmp_path / "store")
    assert list(store.modalities) == ["text"]
    found = by_name(store)
    assert len(found) == 3
    assert not any(f.masks["text"].any() for f in found.values())


def test_unusable_videos_end_the_run_unless_allowed(root, tmp_path, capsys):
    copy = tmp_path / "corpus"
    shutil.copytree(root, copy)
    annotation = copy / corpora.ANNOTATIONS / "Train_Set" / "train_a.txt"
    annotation.write_text(annotation.read_text().replace("\n", "\nangry,", 1))
    argv = ["prepare", "--root", str(copy), "--encoders", "tiny", "--modalities", "text"]
    assert main([*argv, "--check-only"]) == 2
    said = capsys.readouterr()
    assert "train_a.txt: line 2" in said.out
    assert "train_a" in said.err
    assert len(said.err.strip().splitlines()) == 1
    out = str(tmp_path / "store")
    assert main([*argv, "--out", out]) == 2
    assert not (tmp_path / "store").exists()
    assert main([*argv, "--check-only", "--allow-missing", "1"]) == 0
    assert main([*argv, "--out", out, "--allow-missing", "1"]) == 0
    store = Store(out)
    assert [v.video for v in store.videos("train")] == ["train_b"]
    assert [video for video, _ in store.dropped] == ["train_a"]
    assert "line 2" in store.dropped[0][1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--root", "R"], "--out"),
        (["--root", "nowhere", "--out", "S", "--encoders", "tiny"], "nowhere"),
        (["--root", "R", "--out", "S", "--encoders", "tinny"], "tiny"),
        (["--root", "R", "--out", "S", "--allow-missing", "some"], "some"),
        (["--root", "R", "--out", "S", "--workers", "0"], "at least 1"),
        (["--root", "R", "--out", "S", "--part", "3/2"], "I/N"),
        (["--root", "R", "--out", "S", "--rate", "eeg=10"], "--features"),
        (["--root", "R", "--out", "S", "--features", "F", "--rate", "eeg"], "NAME=HZ"),
        (["--root", "R", "--out", "S", "--features", "F", "--part", "1/2"], "--part"),
        (["--root", "R", "--out", "S", "--encoders.visual.batchsize=3"], "batch_size"),
        (["--root", "R", "--out", "S", "--fast"], "--fast"),
        (["--out", "S"], "--root"),
    ],
)
def test_wrong_arguments_end_in_one_line(arguments, says, capsys):
    assert main(["prepare", *arguments]) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert len(said.err.strip().splitlines()) == 1


def test_unknown_modalities_and_recipe_keys_are_named(root, tmp_path):
    encoders = recipes.load("tiny", group="encoders")
    with pytest.raises(UserError, match="did you mean 'visual'"):
        prepare.prepare(root, tmp_path / "a", encoders, modalities=("visuals",), workers=1)
    with encoders.unlocked():
        encoders.text.batchsize = 3
    with pytest.raises(UserError, match="batchsize"):
        prepare.prepare(root, tmp_path / "b", encoders, modalities=("text",), workers=1)
    assert not (tmp_path / "b").exists()


RECIPES = {
    "tiny": ("swin", "hubert", "roberta"),
    "base": ("swin", "hubert", "roberta"),
    "rjca": ("r2plus1d", "tsav_resnet18"),
    "rjcma": ("iresnet50", "vggish", "bert"),
    "raw": ("crops", "log_mel", "bert"),
}


@pytest.mark.parametrize(
    "recipe",
    ["tiny", "base", "base:bfloat16", "rjca", "rjca:tiny", "rjca:bfloat16", "rjcma", "rjcma:tiny"]
    + ["raw", "raw:tiny"],
)
def test_recipes_have_every_key_that_their_encoder_needs_and_no_other(recipe):
    encoders = recipes.load(recipe, group="encoders")
    kinds = dict(zip(MODALITIES, RECIPES[recipe.partition(":")[0]]))
    assert set(encoders) - {"chunk_frames"} == set(kinds)
    for name, kind in kinds.items():
        section = set(encoders[name]) - {"kind"}
        assert encoders[name].kind == kind
        parameters = inspect.signature(KINDS[name][kind]).parameters
        needed = {n for n, p in parameters.items() if p.default is inspect.Parameter.empty}
        assert needed - {"workers"} <= section <= set(parameters)
        if "dtype" in section:
            assert encoders[name].dtype == ("bfloat16" if "bfloat16" in recipe else "float32")


@pytest.mark.parametrize("size", ["", ":tiny"])
@pytest.mark.parametrize(("name", "kind"), [(n, k) for n in MODALITIES for k in KINDS[n]])
def test_every_kind_has_a_section_with_its_keys(name, kind, size):
    section = recipes.load(f"sections/{name}:{kind}{size}", group="encoders")
    parameters = inspect.signature(KINDS[name][kind]).parameters
    needed = {n for n, p in parameters.items() if p.default is inspect.Parameter.empty}
    assert section.kind == kind
    assert needed - {"workers"} <= set(section) - {"kind"} <= set(parameters)


def test_a_kind_that_does_not_exist_is_named(root, tmp_path):
    encoders = recipes.load("tiny", group="encoders")
    encoders.visual.kind = "iresnet5"
    with pytest.raises(UserError, match="did you mean 'iresnet50'"):
        prepare.prepare(root, tmp_path / "a", encoders, modalities=("visual",), workers=1)
    del encoders.text.kind
    with pytest.raises(
        UserError, match=r"encoders\.text lacks kind, one of roberta, xlm-roberta, bert"
    ):
        prepare.prepare(root, tmp_path / "a", encoders, modalities=("text",), workers=1)


def test_bfloat16_stays_near_float32(root, store, tmp_path):
    encoders = recipes.load("tiny", group="encoders")
    for name in encoders:
        encoders[name].dtype = "bfloat16"
    made = prepare.prepare(root, tmp_path / "store", encoders, workers=1, limit_videos=1)
    assert made.modalities["visual"].spec["dtype"] == "bfloat16"
    for name in made.modalities:
        full = by_name(store)["train_a"].features[name].astype(np.float32)
        half = by_name(made)["train_a"].features[name].astype(np.float32)
        difference = np.sqrt(np.square(half - full).mean() / np.square(full).mean())
        assert 1e-5 < difference < 0.05, name


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("encoders", ["tiny", "rjca:tiny", "raw:tiny"])
def test_memory_does_not_grow_with_the_length_of_a_video(encoders, tmp_path):
    peaks = []
    for seconds in (60, 360):
        root = tmp_path / f"corpus{seconds}"
        corpora.write_tiny_corpus(root, {"one": "train"}, seconds=seconds)
        process = start(root, tmp_path / f"store{seconds}", encoders)
        said, _ = process.communicate()
        assert process.returncode == 0, said
        peaks.append(float(said.split("peak memory ")[1].split(" MiB")[0].replace(",", "")))
    print(f"peak memory of one minute and of six: {peaks} MiB")
    # Six minutes of features and pictures would be hundreds of MiB more.
    assert peaks[1] < peaks[0] + 64, peaks
