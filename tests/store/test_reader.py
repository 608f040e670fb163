"""The store's reader: what was written comes back, and only what is asked for is read."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource

from maven_jax.errors import UserError
from maven_jax.store.reader import Store
from maven_jax.store.schema import Frames, ModalitySpec
from maven_jax.store.writer import PlannedVideo, StoreWriter
from tests.support.stores import write_small_store

DIMS = {"visual": 5, "word_2": 3}


def random_frames(n: int, seed: int) -> Frames:
    rng = np.random.default_rng(seed)
    return Frames(
        time_s=np.cumsum(rng.uniform(0.01, 0.1, n)),
        targets=rng.uniform(-1, 1, (n, 2)).astype(np.float32),
        target_mask=rng.uniform(size=n) < 0.8,
        segment_id=rng.integers(-1, 5, n).astype(np.int32),
        features={m: (100 + rng.normal(size=(n, c))).astype(np.float32) for m, c in DIMS.items()},
        masks={m: rng.uniform(size=n) < 0.7 for m in DIMS},
    )


def cut(frames: Frames, start: int, stop: int) -> Frames:
    return Frames(
        frames.time_s[start:stop],
        frames.targets[start:stop],
        frames.target_mask[start:stop],
        frames.segment_id[start:stop],
        {m: f[start:stop] for m, f in frames.features.items()},
        {m: f[start:stop] for m, f in frames.masks.items()},
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Store, dict[str, Frames]]:
    """A store of chunks of 16 frames, written in blocks that do not fit the chunks."""
    lengths = {"a": 16, "b": 75, "c": 1, "d": 64, "e": 33}
    content = {name: random_frames(n, seed) for seed, (name, n) in enumerate(lengths.items())}
    split = {name: "train" if name in "abd" else "test" for name in lengths}
    writer = StoreWriter(
        tmp_path_factory.mktemp("store") / "s",
        videos=[PlannedVideo(v, split[v], n, v.upper()) for v, n in lengths.items()],
        modalities={m: ModalitySpec(m, c, {}) for m, c in DIMS.items()},
        chunk_frames=16,
        shard_bytes=2000,
        provenance={"by": "test"},
    )
    rng = np.random.default_rng(0)
    for name, frames in content.items():
        with writer.video(name, 12.5, float(frames.time_s[-1])) as out:
            at = 0
            while at < len(frames):
                step = int(rng.integers(1, 30))
                out.append(cut(frames, at, at + step))
                at += step
    return writer.finish(), content


def test_every_window_comes_back_as_it_was_written(written):
    store, content = written
    rng = np.random.default_rng(1)
    assert store.splits == ("train", "test")
    assert [e.video for e in store.videos("train")] == ["a", "b", "d"]
    for split in store.splits:
        assert len(store.shards(split)) > 1 or split == "test"
        for entry in store.videos(split):
            n = entry.num_frames
            windows = [(0, n), (n - 1, n), (0, 1)]
            windows += [sorted(rng.integers(0, n + 1, 2)) for _ in range(20)]
            for start, stop in [(int(a), int(b)) for a, b in windows if a < b]:
                read = store.read(entry, start, stop)
                expected = cut(content[entry.video], start, stop)
                np.testing.assert_array_equal(read.time_s, expected.time_s)
                np.testing.assert_array_equal(read.target_mask, expected.target_mask)
                np.testing.assert_array_equal(
                    read.targets, np.where(expected.target_mask[:, None], expected.targets, 0)
                )
                np.testing.assert_array_equal(read.segment_id, expected.segment_id)
                assert list(read.features) == list(DIMS)
                for m in DIMS:
                    seen = expected.masks[m]
                    np.testing.assert_array_equal(read.masks[m], seen)
                    np.testing.assert_array_equal(
                        read.features[m],
                        np.where(seen[:, None], expected.features[m], 0).astype(np.float16),
                    )


def test_index_describes_the_videos(written):
    store, content = written
    for split in store.splits:
        for entry in store.videos(split):
            frames = content[entry.video]
            assert (entry.split, entry.stem, entry.fps) == (split, entry.video.upper(), 12.5)
            assert entry.num_frames == len(frames)
            assert entry.num_annotated == frames.target_mask.sum()
            assert entry.observed == {m: frames.masks[m].sum() for m in DIMS}


def test_statistics_are_those_of_observed_training_frames(written):
    store, content = written
    train = [content[e.video] for e in store.videos("train")]
    for m in DIMS:
        rows = np.concatenate([f.features[m][f.masks[m]] for f in train])
        rows = rows.astype(np.float16).astype(np.float64)
        assert store.statistics[m].count == len(rows)
        np.testing.assert_allclose(store.statistics[m].mean, rows.mean(0), rtol=1e-13)
        np.testing.assert_allclose(store.statistics[m].std, rows.std(0), rtol=1e-11)
    rows = np.concatenate([f.targets[f.target_mask] for f in train]).astype(np.float64)
    assert store.statistics["targets"].count == len(rows)
    np.testing.assert_allclose(store.statistics["targets"].mean, rows.mean(0), atol=1e-14)
    np.testing.assert_allclose(store.statistics["targets"].std, rows.std(0), rtol=1e-13)


def test_a_window_reads_only_the_records_it_overlaps(written, monkeypatch):
    store, _ = written
    entry = next(e for e in store.videos("train") if e.video == "b")
    fetched = []
    original = ArrayRecordDataSource.__getitems__

    def counting(self, keys):
        fetched.append(list(keys))
        return original(self, keys)

    monkeypatch.setattr(ArrayRecordDataSource, "__getitems__", counting)
    store.read(entry, 15, 33, modalities=["visual"])
    store.read(entry, 16, 32)
    store.read(entry, 74, 75)
    first = entry.first_record
    assert fetched == [[first, first + 1, first + 2], [first + 1], [first + 4]]


def test_modalities_can_be_left_out(written):
    store, _ = written
    entry = store.videos("train")[1]
    both, one = store.read(entry, 3, 40), store.read(entry, 3, 40, modalities=("word_2",))
    assert list(one.features) == list(one.masks) == ["word_2"]
    np.testing.assert_array_equal(one.features["word_2"], both.features["word_2"])
    assert list(store.read(entry, 3, 40, modalities=()).features) == []


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (0, 76), (75, 76), (9, 9), (9, 8)])
def test_frames_outside_the_video_are_refused(written, start, stop):
    store, _ = written
    with pytest.raises(ValueError, match="0 to 75"):
        store.read(store.videos("train")[1], start, stop)


def test_unknown_names_are_refused(written):
    store, _ = written
    with pytest.raises(UserError, match="has no split 'dev'; known: train, test"):
        store.videos("dev")
    with pytest.raises(UserError, match="has no modality 'text'; known: visual, word_2"):
        store.read(store.videos("train")[0], 0, 1, modalities=["text"])


def test_pickles_after_reading(written):
    store, content = written
    entry = store.videos("test")[1]
    store.read(entry, 0, 20)
    packed = pickle.dumps(store)
    assert len(packed) < 20_000
    copy = pickle.loads(packed)
    assert copy.fingerprint == store.fingerprint
    assert copy._sources == {}  # open files do not travel to workers
    np.testing.assert_array_equal(copy.read(entry, 5, 20).time_s, content["e"].time_s[5:20])


def test_tfds_opens_it_without_tensorflow(tmp_path):
    write_small_store(tmp_path / "emotions" / "2.0.0", videos=2, frames=120)
    code = """
import sys
import tensorflow_datasets as tfds
root = sys.argv[1]
for builder in (
    tfds.builder_from_directory(root + "/emotions/2.0.0"),
    tfds.builder("emotions", data_dir=root),
):
    assert builder.info.full_name == "emotions/2.0.0", builder.info.full_name
    source = builder.as_data_source("train")
    assert len(source) == 4, len(source)
    record = source[3]
    assert record["video"] == b"train_01" and record["chunk"] == 1
    assert record["visual"].shape == (100, 8) and record["visual"].dtype == "float16"
    assert record["start_frame"] == 100 and record["num_frames"] == 27
    assert not record["visual_mask"][27:].any() and (record["visual"][27:] == 0).all()
assert len(tfds.data_source("emotions", split="validation", data_dir=root)) == 2
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_damaged_shards_are_named(tmp_path):
    store = write_small_store(
        tmp_path / "s", videos=1, frames=300, modalities={"x": 200}, splits=["train"]
    )
    entry = store.videos("train")[0]
    (shard,) = store.shards("train")
    file = tmp_path / "s" / shard["file"]
    good = file.read_bytes()
    whole = store.read(entry, 0, 300)
    errors = []
    for at in np.linspace(0, len(good) - 1, 25).astype(int):
        bad = bytearray(good)
        bad[at] ^= 0xFF
        file.write_bytes(bytes(bad))
        try:
            read = Store(tmp_path / "s").read(entry, 0, 300)
        except UserError as error:
            errors.append(str(error))
        else:  # that byte was padding
            np.testing.assert_array_equal(read.features["x"], whole.features["x"])
    assert len(errors) >= 10
    assert all(file.name in error and "\n" not in error for error in errors)
    for content in (good[:-1000], good[: len(good) // 2], b""):
        file.write_bytes(content)
        with pytest.raises(UserError, match=file.name):
            Store(tmp_path / "s")
    file.unlink()
    with pytest.raises(UserError, match=f"{file.name}: this shard of the store is missing"):
        Store(tmp_path / "s")


def test_windows_of_many_videos_are_read_as_if_one_by_one(written, monkeypatch):
    store, _ = written
    entries = {e.video: e for split in store.splits for e in store.videos(split)}
    spans = [
        (entries["b"], slice(3, 70, 5)),
        (entries["e"], slice(30, 33, 1)),
        (entries["a"], slice(0, 16, 1)),
        (entries["b"], slice(4, 71, 5)),  # shares all its records with the first
        (entries["e"], slice(0, 33, 32)),
    ]
    fetched: list[list[int]] = []
    fetch = store._fetch

    def counted(split, keys, records):
        fetched.append(list(keys))
        return fetch(split, keys, records)

    monkeypatch.setattr(store, "_fetch", counted)
    for limit in (2**28, 1):
        monkeypatch.setattr("maven_jax.store.reader.FETCH_BYTES", limit)
        fetched.clear()
        together = store.read_many(spans, ["word_2"])
        assert len(fetched) == (2 if limit > 1 else 9)
        assert all(len(set(keys)) == len(keys) for keys in fetched)
        for (entry, span), frames in zip(spans, together, strict=True):
            whole = store.read(entry, 0, entry.num_frames)
            for name in ("time_s", "targets", "target_mask", "segment_id"):
                np.testing.assert_array_equal(getattr(frames, name), getattr(whole, name)[span])
            for read, all_frames in (
                (frames.features, whole.features),
                (frames.masks, whole.masks),
            ):
                assert list(read) == ["word_2"]
                np.testing.assert_array_equal(read["word_2"], all_frames["word_2"][span])


def test_of_a_batch_from_several_shards_the_damaged_one_is_named(tmp_path):
    store = write_small_store(
        tmp_path / "s", videos=4, frames=80, modalities={"x": 200}, splits=["train"], shard_bytes=10
    )
    shards = [tmp_path / "s" / s["file"] for s in store.shards("train")]
    assert len(shards) == 4
    bad = bytearray(shards[2].read_bytes())
    bad[len(bad) // 2] ^= 0xFF
    shards[2].write_bytes(bytes(bad))
    broken = Store(tmp_path / "s")
    spans = [(entry, slice(10, 40, 1)) for entry in broken.videos("train")]
    with pytest.raises(UserError, match=f"^[^ ]*{shards[2].name}: damaged, .* 'train_02' "):
        broken.read_many(spans)
    del spans[2]
    assert len(broken.read_many(spans)) == 3


def test_a_shard_of_another_store_is_noticed(tmp_path):
    one = write_small_store(tmp_path / "one", videos=2, splits=["train"], shard_bytes=10)
    shards = [tmp_path / "one" / s["file"] for s in one.shards("train")]
    assert len(shards) == 2
    first, second = (s.read_bytes() for s in shards)
    assert len(first) == len(second)
    shards[0].write_bytes(second)
    with pytest.raises(UserError, match=f"{shards[0].name}: record 0 of split train is not chunk"):
        Store(tmp_path / "one").read(one.videos("train")[0], 0, 10)


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        Store(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="not a feature store"):
        Store(tmp_path / "empty")
    store = write_small_store(tmp_path / "s", videos=1, frames=50)
    file = tmp_path / "s" / "store.json"
    meta = json.loads(file.read_text())
    for content, message in [
        (json.dumps(meta | {"version": 99}), "store format 99"),
        (json.dumps({"format": "other"}), "not written by"),
        ("{", "cannot be read as JSON"),
    ]:
        file.write_text(content)
        with pytest.raises(UserError, match=message):
            Store(tmp_path / "s")
    file.unlink()
    with pytest.raises(UserError, match="not finished"):
        Store(tmp_path / "s")
    assert store.untrained is False


def test_the_index_knows_the_runs_of_segments_whatever_the_block_lengths(tmp_path):
    ids = np.repeat(np.array([-1, 0, 1, -1, 2], np.int32), [3, 120, 1, 76, 50])
    stores = []
    for name, blocks in (("a", [250]), ("b", [3, 100, 21, 126]), ("c", [1] * 250)):
        planned = PlannedVideo("v", "train", len(ids), "v")
        writer = StoreWriter(
            tmp_path / name,
            videos=[planned],
            modalities={m: ModalitySpec(m, c, {}) for m, c in DIMS.items()},
            provenance={},
        )
        frames = random_frames(len(ids), 0)
        frames.segment_id = ids
        with writer.video("v", 25.0, 10.0) as sink:
            for stop in np.cumsum(blocks):
                start = sink.num_frames
                sink.append(cut(frames, start, int(stop)))
        stores.append(writer.finish())
    for store in stores:
        (entry,) = store.videos("train")
        assert entry.segments == ((0, 3), (3, 123), (123, 124), (124, 200), (200, 250))


@pytest.mark.parametrize("chunk_frames", [1, 7, 16, 100])
def test_strided_frames_are_every_so_manieth_of_the_plain_ones(tmp_path, chunk_frames):
    store = write_small_store(
        tmp_path / "s", videos=1, frames=90, chunk_frames=chunk_frames, splits=["train"]
    )
    (entry,) = store.videos("train")
    whole = store.read(entry, 0, 90)
    rng = np.random.default_rng(0)
    cuts = [(0, 90, 1), (0, 90, 89), (3, 90, 32), (89, 90, 5), (0, 33, 32), (0, 32, 32)]
    cuts += [(int(a), int(b), int(rng.integers(1, 40))) for a, b in rng.integers(0, 91, (30, 2))]
    for start, stop, step in cuts:
        if start >= stop:
            continue
        read = store.read(entry, start, stop, ["audio", "visual"], step)
        at = slice(start, stop, step)
        for name in ("time_s", "targets", "target_mask", "segment_id"):
            np.testing.assert_array_equal(getattr(read, name), getattr(whole, name)[at])
        for m in ("audio", "visual"):
            np.testing.assert_array_equal(read.features[m], whole.features[m][at])
            np.testing.assert_array_equal(read.masks[m], whole.masks[m][at])


def test_a_strided_window_fetches_only_records_that_hold_its_frames(written, monkeypatch):
    store, _ = written
    entry = next(e for e in store.videos("train") if e.video == "b")
    fetched = []
    original = ArrayRecordDataSource.__getitems__

    def counting(self, keys):
        fetched.append([k - entry.first_record for k in keys])
        return original(self, keys)

    monkeypatch.setattr(ArrayRecordDataSource, "__getitems__", counting)
    store.read(entry, 0, 75, step=32)
    store.read(entry, 15, 75, step=32)
    store.read(entry, 15, 75, step=8)
    store.read(entry, 74, 75, step=32)
    assert fetched == [[0, 2, 4], [0, 2], [0, 1, 2, 3, 4], [4]]
    with pytest.raises(ValueError, match="by 0"):
        store.read(entry, 0, 75, step=0)


PIXELS = {
    "crops": ModalitySpec("crops", 12, {"encoder": "crops"}, "uint8"),
    "x": ModalitySpec("x", 2, {}),
}


def pixel_frames(n: int) -> Frames:
    frames = random_frames(n, 3)
    rng = np.random.default_rng(0)
    frames.features = {
        "crops": rng.integers(0, 256, (n, 12), np.uint8),
        "x": rng.normal(size=(n, 2)).astype(np.float32),
    }
    frames.masks = {"crops": rng.random(n) < 0.6, "x": np.ones(n, bool)}
    return frames


def pixel_writer(path, **changes) -> StoreWriter:
    planned = [PlannedVideo(v, "train", 50, v) for v in "ab"]
    settings = dict(videos=planned, modalities=PIXELS, chunk_frames=16, provenance={}) | changes
    return StoreWriter(path, **settings)


def write_pixels(path, videos="ab") -> StoreWriter:
    writer = pixel_writer(path)
    for video in videos:
        with writer.video(video, 25.0, 2.0) as out:
            frames = pixel_frames(50)
            out.append(cut(frames, 0, 21))
            out.append(cut(frames, 21, 50))
    return writer


def test_pixels_come_back_as_they_were_given(tmp_path):
    store = write_pixels(tmp_path / "s").finish()
    assert {m: s.dtype for m, s in store.modalities.items()} == {"crops": "uint8", "x": "float16"}
    expected = pixel_frames(50)
    entry = store.videos("train")[1]
    for frames, at in (
        (store.read(entry, 0, 50), slice(None)),
        (store.read(entry, 3, 50, step=20), slice(3, 50, 20)),
    ):
        seen = expected.masks["crops"][at]
        assert frames.features["crops"].dtype == np.uint8
        assert frames.features["x"].dtype == np.float16
        np.testing.assert_array_equal(
            frames.features["crops"], np.where(seen[:, None], expected.features["crops"][at], 0)
        )
        np.testing.assert_array_equal(frames.masks["crops"], seen)
    rows = np.tile(expected.features["crops"][expected.masks["crops"]], (2, 1)).astype(np.float64)
    np.testing.assert_allclose(store.statistics["crops"].mean, rows.mean(0), rtol=1e-13)
    np.testing.assert_allclose(store.statistics["crops"].std, rows.std(0), rtol=1e-12)
    record = tfds.builder_from_directory(store.path).as_data_source("train")[0]
    np.testing.assert_array_equal(record["crops"], store.read(entry, 0, 16).features["crops"])


def test_a_store_of_pixels_is_continued_to_the_same_bytes(tmp_path):
    write_pixels(tmp_path / "once").finish()
    write_pixels(tmp_path / "twice", "a")
    write_pixels(tmp_path / "twice", "b").finish()
    files = [
        {str(f.relative_to(tmp_path / n)): f.read_bytes() for f in (tmp_path / n).rglob("*.*")}
        for n in ("once", "twice")
    ]
    assert files[0] == files[1]
    assert len(files[0]) > 5


def test_what_is_given_has_to_be_of_the_stored_kind(tmp_path):
    writer = pixel_writer(tmp_path / "s")
    for name, dtype in (("crops", np.float32), ("x", np.uint8)):
        frames = pixel_frames(50)
        frames.features[name] = frames.features[name].astype(dtype)
        with (
            pytest.raises(ValueError, match=f"{name} is .* in the store, the block has"),
            writer.video("a", 25.0, 2.0) as out,
        ):
            out.append(frames)
    assert not writer.is_done("a")


def test_stores_and_plans_from_before_there_were_pixels_are_read_and_continued(tmp_path):
    store = write_small_store(tmp_path / "s", videos=1)
    for file in ("plan.json", "store.json"):  # float16 goes without saying
        assert "dtype" not in (tmp_path / "s" / file).read_text()
    assert {s.dtype for s in store.modalities.values()} == {"float16"}
    assert store.read(store.videos("train")[0], 0, 5).features["visual"].dtype == np.float16


def test_an_unknown_kind_of_values_is_refused(tmp_path):
    with pytest.raises(ValueError, match="float16, float32, uint8"):
        ModalitySpec("x", 3, {}, "int8")
    write_pixels(tmp_path / "s").finish()
    file = tmp_path / "s" / "store.json"
    file.write_text(file.read_text().replace('"uint8"', '"bfloat16"'))
    with pytest.raises(UserError, match=r"modality 'crops': dtype 'bfloat16'"):
        Store(tmp_path / "s")
