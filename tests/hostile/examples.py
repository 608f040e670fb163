"""Small healthy inputs of every kind, made once in a process."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from data_prep.corpus.extra_targets import EXTRA_DIMENSIONS
from data_prep.prepare import prepare
from maven_jax import recipes
from maven_jax.challenge.calibrate import Tried, calibrate
from maven_jax.convert.huggingface import random_encoder
from maven_jax.convert.native import save_encoder
from maven_jax.encoders.mini_xception import MiniXceptionConfig
from maven_jax.runs.evaluate import evaluate
from maven_jax.runs.export import export
from maven_jax.training.train import train
from tests.support import corpora
from tests.support.recipes_for_tests import small_recipe
from tests.support.reference_efficientnet import EfficientNet, onnx_bytes
from tests.support.reference_maven import ReleasedMlp
from tests.support.reference_mini_xception import SIZES, write_keras
from tests.support.released import light, with_random_weights
from tests.support.stores import write_small_store

_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", *"abcdefghijklmnopqrst"]


@cache
def _once(make: Callable[[Path], None]) -> Path:
    """A folder that is made once and only read; it goes with the process's scratch folder."""
    folder = Path(tempfile.mkdtemp())
    make(folder)
    return folder


def _copy(source: Path, folder: Path) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True)


def make_clip(folder: Path) -> None:
    options = {"g": "4"}
    corpora.write_video(folder / "clip.mp4", frames=20, fps=25, sound_s=0.8, options=options)


def make_sound(folder: Path) -> None:
    corpora.write_wav(folder / "sound.wav", 0.5)


def make_transcripts(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "a.txt").write_text("[0.00s - 0.50s] a good day\n[0.60s - 1.00s] then rain\n")
    (folder / "a.srt").write_text(
        "1\n00:00:00,000 --> 00:00:00,500\na good <i>day</i>\n\n"
        "2\n00:00:00,600 --> 00:00:01,000\nthen rain\n"
    )
    (folder / "a.vtt").write_text(
        "WEBVTT\n\nNOTE made by hand\n\n00:00.000 --> 00:00.500 align:start\na good day\n\n"
        "00:00.600 --> 00:01.000\n<00:00:00.700><c> then</c><00:00:00.800><c> rain</c>\n"
    )
    words = [{"word": "a", "start": 0.0, "end": 0.2}, {"word": "day", "start": 0.2, "end": 0.5}]
    segments = [
        {"start": 0.0, "end": 0.5, "text": "a day", "words": words},
        {"start": 0.6, "end": 1.0, "text": "then rain"},
    ]
    (folder / "a.json").write_text(json.dumps({"text": "a day then rain", "segments": segments}))
    services = {
        "deepgram": {"channels": [{"alternatives": [{"words": words}]}]},
        "google": [
            {"alternatives": [{"words": [{"word": "a", "startTime": "0s", "endTime": "0.2s"}]}]}
        ],
        "amazon": {
            "items": [
                {"start_time": "0.0", "end_time": "0.2", "alternatives": [{"content": "a"}]},
                {"type": "punctuation", "alternatives": [{"content": "."}]},
            ]
        },
    }
    for name, results in services.items():
        (folder / f"{name}.json").write_text(json.dumps({"results": results}))
    (folder / "a.TextGrid").write_text(
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n1\n<exists>\n1\n'
        '"IntervalTier"\n"words"\n0\n1\n2\n0\n0.5\n"day"\n0.5\n1\n""\n'
    )


def make_ratings(folder: Path) -> None:
    values = corpora.smooth_values(12, 1)
    corpora.write_annotation(folder / "frames.txt", values)
    rows = "".join(f"{i / 4},{v:.3f},{a:.3f}\n" for i, (v, a) in enumerate(values))
    (folder / "timed.csv").write_text("time_s,valence,arousal\n" + rows)


def make_groups(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    rows = "".join(f"video_{i},person {i % 3}\n" for i in range(9))
    (folder / "groups.csv").write_text("video,group\n" + rows)


def make_crops(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    import cv2

    for frame in range(3):
        coarse = rng.integers(0, 256, (14, 14, 3), np.uint8)
        picture = cv2.resize(coarse, (112, 112), interpolation=cv2.INTER_LINEAR)
        cv2.imwrite(str(folder / f"{frame + 1:05d}.jpg"), picture)


def make_corpus(folder: Path) -> None:
    videos = {"one": "train", "two": "validation", "three": "test"}
    corpora.write_tiny_corpus(folder, videos, seconds=1.0, fps=10)


def make_own_videos(folder: Path) -> None:
    corpora.write_rated_videos(folder / "mine", {"one": "train", "two": "validation"})
    (folder / "mine/transcripts").mkdir()
    (folder / "mine/transcripts/one.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nwell\n")


def make_tables(folder: Path) -> None:
    """Features in other containers, and annotations of extra targets."""
    import h5py
    import pyarrow as pa
    import pyarrow.parquet
    import scipy.io

    folder.mkdir(exist_ok=True)
    values, times = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) / 10
    columns = {"timestamp": times, "a": values[:, 0], "b": values[:, 1], "name": ["x"] * 20}
    pyarrow.parquet.write_table(pa.table(columns), folder / "a.parquet")
    scipy.io.savemat(folder / "b.mat", {"time": times, "x": values}, do_compression=True)
    with h5py.File(folder / "c.mat", "w", userblock_size=512) as file:
        file["time"], file["x"] = times[None], values.T
    head = "@relation r\n@attribute frameTime numeric\n@attribute a real\n@data\n"
    rows = "".join(f"{t},{v}\n" for t, v in zip(times, values[:, 0]))
    (folder / "d.arff").write_text(head + rows)
    (folder / "expr.txt").write_text("Sad,Calm,Happy\n" + "0\n1\n-1\n2\n" * 5)
    (folder / "au.txt").write_text("AU1,AU2\n" + "0,1\n1,1\n-1,-1\n" * 5)
    for name in EXTRA_DIMENSIONS:
        (folder / f"{name}.txt").write_text(f"{name}\n" + "0.25\n-1\n-5\n" * 5)


def make_features(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for video, split in (("one", "train"), ("two", "validation")):
        rows = np.column_stack([np.arange(50) / 25, corpora.smooth_values(50, 0)])
        path = folder / "corpus/annotations" / split / f"{video}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{t},{v},{a}\n" for t, v, a in rows)
        path.write_text("time_s,valence,arousal\n" + text)
        (folder / "features/face").mkdir(parents=True, exist_ok=True)
        (folder / "features/eeg").mkdir(parents=True, exist_ok=True)
        np.save(folder / f"features/face/{video}.npy", rng.normal(size=(50, 4)).astype("f4"))
        lines = [",".join(f"{v:.3f}" for v in (i / 10, *rng.normal(size=3))) for i in range(21)]
        (folder / f"features/eeg/{video}.csv").write_text("time_s,a,b,c\n" + "\n".join(lines))
    (folder / "features/face/rate.txt").write_text("25\n")


def make_store(folder: Path) -> None:
    write_small_store(folder, videos=3, frames=60, modalities={"visual": 8, "audio": 6})


def make_published(folder: Path) -> None:
    config = transformers.BertConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        vocab_size=30,
        max_position_embeddings=64,
    )
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(_WORDS))
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    sizes = {"do_resize": True, "size": {"height": 8, "width": 8}, "image_mean": [0.5, 0.5, 0.5]}
    (folder / "preprocessor_config.json").write_text(json.dumps(sizes))


def make_converted(folder: Path) -> None:
    model = recipes.load("rjca:tiny", group="encoders").audio.model.to_dict()
    made = random_encoder("audio_resnet18", model, 3)
    sha256 = "12" * 32
    save_encoder(
        folder, "audio_resnet18", model, made.params, made.state, source="x", sha256=sha256
    )


def make_state(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    state = light(with_random_weights(ReleasedMlp()).state_dict())
    torch.save({"state_dict": state, "epoch": 3}, folder / "network.pth")


def make_packed(folder: Path) -> None:
    """Small weights in the archives that they come in."""
    folder.mkdir(exist_ok=True)
    arrays: dict[str, Any] = {
        name: np.ones((4, 3), np.float32) for name in ("a.weight", "b.weight")
    }
    np.savez(folder / "network.npz", **arrays)
    file = io.BytesIO()
    torch.save({"net": arrays, "args": argparse.Namespace(lr=1)}, file)
    (folder / "network.pth.gz").write_bytes(gzip.compress(file.getvalue()))
    with zipfile.ZipFile(folder / "network.zip", "w") as archive:
        archive.writestr("inner/network.pth", file.getvalue())


def make_keras(folder: Path) -> None:
    """The HDF5 file of a small mini-Xception."""
    folder.mkdir(exist_ok=True)
    write_keras(folder / "network.hdf5", MiniXceptionConfig(**SIZES))


def make_faces_network(folder: Path) -> None:
    """A whole pickled module, and an export of it."""
    folder.mkdir(exist_ok=True)
    model = with_random_weights(EfficientNet((8, 12, 16, 20, 24, 28, 32), (1,) * 7, 8, True)).eval()
    torch.save(model, folder / "network.pt")
    (folder / "network.onnx").write_bytes(onnx_bytes(model))


def _train(folder: Path) -> None:
    _copy(_once(_stored), folder / "store")
    config = small_recipe(
        folder / "store",
        "quickstart:concat",
        data__modalities=("visual", "audio"),
        train__num_epochs=2.0,
        eval__batch_size=2,
    )
    train(config, folder / "run")
    evaluate(folder / "run", "validation")
    tried = Tried(("smoothing",), (), (0, 3))
    calibrate(folder / "run", tried, which="best", split=None, store=None)


def _stored(folder: Path) -> None:
    shutil.rmtree(folder)
    make_store(folder)


def make_run(folder: Path) -> None:
    _copy(_once(_train) / "run", folder)


def make_run_and_store(folder: Path) -> None:
    _copy(_once(_train), folder)


def make_runs(folder: Path) -> None:
    for name in ("a", "b"):
        _copy(_once(_train) / "run" / "eval", folder / name / "eval")


def _export(folder: Path) -> None:
    export(_once(_train) / "run", folder / "bundle", platforms=("cpu",))


def make_bundle(folder: Path) -> None:
    _copy(_once(_export) / "bundle", folder)


def make_submission(folder: Path) -> None:
    rows = [f"{video}/{i + 1:05d}.jpg" for video in ("one", "two") for i in range(8)]
    header = "image_location,valence,arousal\n"
    folder.mkdir(exist_ok=True)
    (folder / "template.txt").write_text(header + "".join(f"{r},,\n" for r in rows))
    (folder / "mine.txt").write_text(header + "".join(f"{r},0.1,-0.2\n" for r in rows))
    for video in ("one", "two"):
        values = corpora.smooth_values(8, len(video))
        corpora.write_annotation(folder / "annotations" / f"{video}.txt", values)


def _predictor(folder: Path) -> None:
    """A bundle of a model on tiny encoders."""
    corpora.write_tiny_corpus(folder / "corpus", 2, seconds=1.0, fps=10)
    store = prepare(
        folder / "corpus", folder / "store", recipes.load("tiny", "encoders"), workers=1
    )
    config = small_recipe(
        store.path,
        "quickstart:concat",
        data__window={"kind": "sliding", "length": 10, "hop": 10, "step_s": None},
        train__num_epochs=1.0,
        eval__hop=10,
    )
    train(config, folder / "run")
    export(folder / "run", folder / "bundle", platforms=())


def make_prediction(folder: Path) -> None:
    _copy(_once(_predictor) / "bundle", folder / "bundle")
    corpora.write_video(folder / "clip.mp4", frames=10, fps=10, sound_s=1.0)
    (folder / "words.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\na good day\n")
