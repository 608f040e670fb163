"""`maven-jax inspect` says what the store holds."""

import json
from pathlib import Path

import numpy as np
import pytest

from maven_jax.__main__ import main
from maven_jax.commands import inspect_store
from maven_jax.store.reader import Store
from maven_jax.store.schema import Frames, ModalitySpec
from maven_jax.store.writer import PlannedVideo, StoreWriter


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """Three videos: one half unannotated, one without sound, one dropped; a constant feature."""
    path: Path = tmp_path_factory.mktemp("inspect") / "store"
    videos = [("a", "train", 30), ("b", "train", 10), ("lost", "train", 5), ("c", "test", 20)]
    writer = StoreWriter(
        path,
        videos=[PlannedVideo(v, split, n, v) for v, split, n in videos],
        modalities={
            "face": ModalitySpec("face", 2, {"encoder": "swin", "untrained": True}),
            "sound": ModalitySpec("sound", 3, {"encoder": "hubert", "sha256": "ab" * 32}),
        },
        chunk_frames=8,
        provenance={"by": "test"},
    )
    for name, split, n in videos:
        if name == "lost":
            writer.drop(name, "its file is empty")
            continue
        features = np.arange(n)[:, None] * np.array([[1.0, 0.0, -1.0]])
        features[0, 2] = np.nan
        annotated = np.full(n, split != "test") & (np.arange(n) % 2 == 0)
        with writer.video(name, 20.0, n / 20, mask_nonfinite=True) as out:
            out.append(
                Frames(
                    time_s=np.arange(n) / 20,
                    targets=np.tile(np.array([0.5, -0.5], np.float32), (n, 1)),
                    target_mask=annotated,
                    segment_id=(np.arange(n) // 7 - 1).astype(np.int32),
                    features={"face": features[:, :2], "sound": features},
                    masks={"face": np.ones(n, bool), "sound": np.full(n, name != "b")},
                )
            )
    return writer.finish(allow_missing=1)


def test_summary_counts_what_is_there(store):
    summary = inspect_store.summarize(store)
    train, test = summary["splits"]["train"], summary["splits"]["test"]
    assert (train["videos"], train["frames"], train["records"], train["shards"]) == (2, 40, 6, 1)
    assert train["hours"] == pytest.approx(40 / 20 / 3600)
    assert train["annotated"] == 0.5
    assert train["observed"] == {"face": 1.0, "sound": 29 / 40}
    assert train["bytes"] == sum(f.stat().st_size for f in store.path.glob("*-train.*"))
    assert test["annotated"] == 0
    assert summary["modalities"]["face"]["untrained"] is True
    assert summary["statistics"]["targets"]["mean"] == [0.5, -0.5]
    assert summary["statistics"]["sound"]["constant"] == 1
    assert summary["dropped"] == [{"video": "lost", "reason": "its file is empty"}]


def test_problems_are_named(store):
    text = "\n".join(inspect_store.problems(store))
    for line in [
        "encoders with random weights: face;",
        "validation: no videos",
        "train: sound is never observed in b",
        "train: 1 frames of sound held NaN or infinity: masked",
        "sound: 1 of 3 never change",
        "1 videos could not be stored",
    ]:
        assert line in text
    assert "is annotated" not in text


def test_command_prints_tables_and_json(store, capsys):
    assert main(["inspect", str(store.path)]) == 0
    printed = capsys.readouterr().out
    for word in [
        "hubert",
        "abababababab",
        "untrained",
        "72.5%",
        "dropped: lost (its file is empty)",
    ]:
        assert word in printed
    assert main(["inspect", str(store.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == inspect_store.summarize(store)


def test_command_shows_a_video(store, capsys):
    assert main(["inspect", str(store.path), "--video", "a", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["split"], shown["frames"], shown["annotated"]) == ("train", 30, 15)
    assert (shown["first_time_s"], shown["last_time_s"]) == (0, 29 / 20)
    assert shown["segments"] == 4
    assert shown["observed"] == {"face": 30, "sound": 29}
    assert shown["range"] == {
        "valence": [0.5, 0.5],
        "arousal": [-0.5, -0.5],
        "face": [0, 29],
        "sound": [-29, 29],
    }
    assert main(["inspect", str(store.path), "--video", "c"]) == 0
    assert "valence range" not in capsys.readouterr().out


def test_the_kind_of_stored_values_is_shown(tmp_path, capsys):
    writer = StoreWriter(
        tmp_path / "s",
        videos=[PlannedVideo("a", "train", 3, "a")],
        modalities={
            "crops": ModalitySpec("crops", 2, {}, "uint8"),
            "sound": ModalitySpec("sound", 1, {}),
        },
        provenance={},
    )
    with writer.video("a", 25.0, 0.12) as out:
        out.append(
            Frames(
                time_s=np.arange(3) / 25,
                targets=np.zeros((3, 2), np.float32),
                target_mask=np.ones(3, bool),
                segment_id=np.full(3, -1, np.int32),
                features={
                    "crops": np.array([[0, 255], [9, 8], [7, 6]], np.uint8),
                    "sound": np.ones((3, 1), np.float32),
                },
                masks={"crops": np.ones(3, bool), "sound": np.ones(3, bool)},
            )
        )
    path = str(writer.finish().path)
    assert main(["inspect", path, "--json"]) == 0
    modalities = json.loads(capsys.readouterr().out)["modalities"]
    assert {m: s["dtype"] for m, s in modalities.items()} == {"crops": "uint8", "sound": "float16"}
    assert main(["inspect", path]) == 0
    printed = capsys.readouterr().out
    assert printed.count("uint8") == printed.count("float16") == 1
    assert main(["inspect", path, "--video", "a", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["range"]["crops"] == [0, 255]


def test_mistakes_end_in_one_line(store, capsys, tmp_path):
    assert main(["inspect", str(tmp_path)]) == 2
    assert main(["inspect", str(store.path), "--video", "x"]) == 2
    assert main(["inspect", str(store.path), "--video", "lost"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "not a feature store" in lines[0]
    assert "no video 'x'" in lines[1]
    assert "dropped, its file is empty" in lines[2]
