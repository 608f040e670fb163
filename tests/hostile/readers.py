"""Reads healthy or hostile examples as the product does; what is refused raises.

A reader returns what has to be the same again unless something is said of the change, None where
nobody can know: a digit in a CSV, a bit of a picture that its decoder does not notice. Compared are
checkpoints, bundles, stores and encoders of ours (all have digests), rows that vanish (annotations,
ratings, evaluations, metrics), crops that libjpeg warns of, and samples that are no sound.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np

from data_prep.corpus import extra_targets
from data_prep.imports.files import Reading
from data_prep.imports.files import read_features as read_table_of_features
from data_prep.imports.grid import read_timed
from maven_jax.__main__ import main
from maven_jax.convert.huggingface import load_encoder
from maven_jax.convert.tensor_files import read_file
from maven_jax.data.folds import read_groups
from maven_jax.features.model_files import read_preprocessor, read_tokenizer
from maven_jax.media.annotations import read_annotation
from maven_jax.media.crops import Crops
from maven_jax.media.pictures import pictures
from maven_jax.media.recording import open_recording
from maven_jax.media.sound import open_audio
from maven_jax.media.transcripts import parse_transcript
from maven_jax.progress import say
from maven_jax.runs.metrics import MetricWriter, read_metrics
from maven_jax.runs.trained_model import open_model
from maven_jax.runtime.seal import SEAL, seal
from maven_jax.store.reader import Store
from tests.support.reference_mini_xception import SIZES


class RefusedError(Exception):
    """A command ended with exit code 2."""


def command(*words: object) -> None:
    """Runs `maven-jax WORDS`."""
    code = main([str(word) for word in words])
    if code == 2:
        raise RefusedError
    assert code == 0, f"exit code {code}"


def digest(tree: Any) -> str:
    """Tells whether arrays are the same."""
    sha256 = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(tree):
        array = np.asarray(leaf)
        sha256.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        sha256.update(array.tobytes())
    return sha256.hexdigest()


# Media and words


def read_fold_groups(folder: Path) -> None:
    groups = read_groups(folder / "groups.csv")
    assert all(video and group for video, group in groups.items())


def read_recording(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        recording = open_recording(path, crops=None, fps=None)
        if recording.info is not None:
            numbers = [number for number, _ in pictures(path, recording.info)]
            assert numbers == sorted(set(numbers))
            assert len(numbers) <= recording.num_frames
        if recording.audio is not None:
            sound = open_audio(path)
            assert all(np.isfinite(block).all() for block in sound.blocks(16000))
            for note in sound.notes():
                say(note)


def read_samples(folder: Path) -> Any:
    """As above; samples that are no sound may not become silence without a word."""
    read_recording(folder)
    data = (folder / "sound.wav").read_bytes()
    if data[20:22] != b"\3\0" or data[36:40] != b"data" or len(data) != 32044:
        return True
    return bool(np.isfinite(np.frombuffer(data[44:], "<f4")).all())


def read_transcripts(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        transcript = parse_transcript(path)
        for segment in transcript.segments:
            assert 0 <= segment.start_s <= segment.end_s < 1e9
            segment.text.encode()
        for fix in transcript.fixes:
            say(fix.message)


def _lines(path: Path) -> int:
    """Lines with a value, in any encoding."""
    return sum(any(48 <= c < 58 for c in line) for line in path.read_bytes().split(b"\n"))


def read_ratings(folder: Path) -> Any:
    """Whether as many rows are read as there are lines."""
    annotation = read_annotation(folder / "frames.txt")
    rows, fixes = read_timed(folder / "timed.csv", "train")
    for fix in (*annotation.fixes, *fixes):
        say(fix.message)
    assert np.isfinite(annotation.values).all()
    assert np.isfinite(rows).all()
    lost = _lines(folder / "frames.txt") - len(annotation.values)
    return lost, _lines(folder / "timed.csv") - len(rows)


def read_crops(folder: Path) -> Any:
    """Pictures that libjpeg warns of may not be shown without a word."""
    crops = Crops(folder)
    crops.check_names()
    for frame in range(crops.num_frames):
        crops.load(frame)
    for note in (*crops.notes(), *crops.others, *crops.outside):
        say(note)
    before = os.fstat(2).st_size
    for path in sorted(folder.glob("*.jpg")):
        data = b"" if path.is_symlink() or not path.is_file() else path.read_bytes()
        if data:
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    warned = os.fstat(2).st_size - before
    os.ftruncate(2, before)
    return not warned


# Corpora, features, stores


def read_corpus(folder: Path) -> Any:
    words = ("--check-only", "--workers", 1, "--allow-missing", 1)
    command("prepare", "--root", folder, *words)
    return {p.name: _lines(p) for p in folder.glob("annotations/*/*_Set/*.txt") if p.is_file()}


def read_own_videos(folder: Path) -> None:
    command("corpus", "--from", folder / "mine", "--out", folder / "corpus")


def read_tables(folder: Path) -> None:
    for name in extra_targets.KINDS:
        values = extra_targets.read_extra(folder / f"{name}.txt", name)[1]
        assert ((values >= -1) | np.isnan(values)).all()
    for path in (p for name in ("*.parquet", "*.mat", "*.arff") for p in sorted(folder.glob(name))):
        assert len(read_table_of_features(path, Reading()).rows.values)


def read_features(folder: Path) -> None:
    root, out = folder / "corpus", folder / "store"
    command(
        *("prepare", "--features", folder / "features", "--root", root, "--out", out),
        *("--fps", 25, "--allow-missing", 1),
    )
    frames = _frames(Store(out))
    assert all(np.isfinite(x).all() for video in frames for x in video.features.values())


def _frames(store: Store) -> list[Any]:
    return [store.read(v, 0, v.num_frames) for split in store.splits for v in store.videos(split)]


def read_store(folder: Path) -> Any:
    store = Store(folder)
    frames = digest([(f.time_s, f.targets, f.features, f.masks) for f in _frames(store)])
    command("inspect", folder, "--json")
    command("inspect", folder, "--video", store.videos("train")[0].video)
    return frames


# Networks


def read_published(folder: Path) -> None:
    loaded = load_encoder(folder)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(loaded.variables))
    read_preprocessor(loaded)
    read_tokenizer(loaded)


def read_converted(folder: Path) -> Any:
    return digest(load_encoder(folder).variables)


def read_state(folder: Path) -> None:
    path = folder / "network.pth"
    tensors = read_file(path)
    assert all(np.isfinite(tensors.read(name)).all() for name in tensors.shapes)
    command("convert", "--model", "maven-mlp", "--input", path, "--out", folder / "out")


def read_packed(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        tensors = read_file(path)
        assert all(np.isfinite(tensors.read(name)).all() for name in tensors.shapes)


def read_keras_file(folder: Path) -> None:
    loaded = load_encoder(folder / "network.hdf5", kind="mini_xception", sizes=SIZES)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(loaded.variables))


def read_faces_network(folder: Path) -> None:
    for path in (folder / "network.pt", folder / "network.onnx"):
        loaded = load_encoder(path, kind="efficientnet", head=True)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(loaded.variables))


# Runs


def read_model(folder: Path) -> Any:
    model = open_model(folder)
    model.tuned()
    weights = model.weights
    return model.step, digest((weights.params, weights.model_state, weights.statistics))


def read_forged(folder: Path) -> None:
    model = open_model(folder)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(model.weights.params))
    model.tuned()
    model.say_label()


def reseal(folder: Path) -> None:
    """All seals below a folder made again, over what is there now."""
    for path in sorted(folder.rglob(SEAL)):
        if path.is_file() and not path.is_symlink():
            files = [p for p in path.parent.rglob("*") if not p.is_symlink() or p.exists()]
            if all(p.is_dir() or (p.is_file() and p.stat().st_size < 1 << 30) for p in files):
                seal(path.parent)


def read_scores(folder: Path) -> None:
    command("compare", folder / "a", folder / "b")


def read_evaluations(folder: Path) -> None:
    command("ensemble", folder / "a", folder / "b", "--out", folder / "out")
    rows = [
        len((folder / place / "eval/validation/validation_00.csv").read_bytes().splitlines())
        for place in ("a", "b", "out")
    ]
    assert rows[0] == rows[1] == rows[2], "rows vanished"


def read_evaluate(folder: Path) -> None:
    workdir, store = folder / "run", folder / "store"
    command("evaluate", "--workdir", workdir, "--store", store)
    scores = json.loads((workdir / "eval/validation.json").read_text())
    assert scores["ccc"] == scores["ccc"]


def read_rows(folder: Path) -> Any:
    rows = read_metrics(folder)
    path = folder / "metrics.jsonl"
    lost = path.read_bytes().count(b"\n") - len(rows) if path.exists() else 0
    MetricWriter(folder, 10**9).close()
    return lost


def read_submission(folder: Path) -> None:
    rows, annotations = folder / "template.txt", folder / "annotations"
    command(
        *("submit", "--check", folder / "mine.txt", "--template", rows),
        *("--annotations", annotations),
    )


def read_prediction(folder: Path) -> None:
    command(
        *("predict", folder / "clip.mp4", "--checkpoint", folder / "bundle"),
        *("--transcript", folder / "words.srt", "--out", folder / "out", "--json"),
        *("--workers", 1),
    )
    assert "NaN" not in (folder / "out/clip.json").read_text()
