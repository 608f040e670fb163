"""Windows taken on the devices are those read from the store."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from maven_jax.data import loading
from maven_jax.data.pipeline import WindowSource
from maven_jax.data.resident import ResidentWindows, device_bytes, make_layout
from maven_jax.data.windows import make_windows
from maven_jax.errors import UserError
from maven_jax.runtime.sharding import make_mesh
from maven_jax.store.reader import Store
from tests.support.processes import xla_flags
from tests.support.root import ROOT
from tests.support.stores import write_small_store

KINDS = {
    "sliding": dict(kind="sliding", length=40, hop=25, step_s=None),
    "short": dict(kind="sliding", length=400, hop=25, step_s=None),
    "segment": dict(kind="segment", length=50, hop=50, step_s=None),
    "dense": dict(kind="dense", length=6, hop=3, step_s=0.3),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return write_small_store(
        # Videos of more than the 64 records that are read at a time.
        tmp_path_factory.mktemp("store") / "s",
        videos=5,
        frames=130,
        chunk_frames=2,
        unobserved=0.2,
    )


def assert_same_batches(store, data: int, model: int, kind: str, single) -> None:
    windows = make_windows(store.videos("train"), **KINDS[kind])
    modalities = ("visual", "text", "audio")
    mesh = make_mesh(data, model)
    resident = ResidentWindows(store, windows, modalities, single, mesh)
    source = WindowSource(store, windows, modalities, single)
    take = jax.jit(resident.take)
    order = np.random.default_rng(0).permutation(len(windows))
    order = np.resize(order, -(-len(order) // 8) * 8)[:48]  # whole batches
    for start in range(0, len(order), 8):
        numbers = order[start : start + 8]
        with jax.set_mesh(mesh):
            batch = take(resident.arrays, numbers)
        expected = source.read(numbers)
        taken = {name: getattr(batch, name) for name in expected}
        jax.tree.map(np.testing.assert_array_equal, taken, expected)
        jax.tree.map(lambda a, b: np.testing.assert_equal(a.dtype, b.dtype), taken, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_windows_are_those_of_the_store(store, kind):
    assert_same_batches(store, 1, 1, kind, {})


@pytest.mark.parametrize("piece_bytes", [1, 3000, 2**14])
def test_windows_are_those_of_the_store_when_it_is_read_in_pieces(store, piece_bytes, monkeypatch):
    monkeypatch.setattr(loading, "PIECE_BYTES", piece_bytes)
    monkeypatch.setattr(loading, "_RECORDS", 3)
    assert_same_batches(store, 1, 1, "sliding", {"audio": 1.0})


def test_every_frame_is_loaded_and_counted_once(store, monkeypatch):
    monkeypatch.setattr(loading, "PIECE_BYTES", 1000)
    entries, counted = store.videos("train"), []
    total = sum(e.num_frames for e in entries)
    arguments = ({0: entries}, total + 5, ["visual"], make_mesh(1, 1), counted.append)
    visual = np.asarray(loading.load_frames(store, *arguments)["visual"])
    expected = [store.read(e, 0, e.num_frames).features["visual"] for e in entries]
    np.testing.assert_array_equal(visual, np.concatenate([*expected, np.zeros((5, 8))]))
    assert sum(counted) == total
    assert len(counted) > 5


def test_damage_is_named_while_pieces_are_read(store, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "PIECE_BYTES", 5000)
    shutil.copytree(store.path, tmp_path / "s")
    shard = sorted((tmp_path / "s").glob("*train*record*"))[0]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 40] = bytes(40)
    shard.write_bytes(content)
    damaged = Store(tmp_path / "s")
    windows = make_windows(damaged.videos("train"), **KINDS["sliding"])
    with pytest.raises(UserError, match="damaged, cannot read"):
        ResidentWindows(damaged, windows, ("visual",), {}, make_mesh(1, 1))


def test_mean_vectors_are_those_of_the_store(store):
    assert_same_batches(store, 1, 1, "segment", {"audio": 1.0, "text": None})


PROGRAM = """
import sys
from maven_jax.data import loading
from maven_jax.store.reader import Store
from tests.data.test_resident import assert_same_batches
store = Store(sys.argv[1])
for data, model in ((8, 1), (4, 2), (1, 8)):
    assert_same_batches(store, data, model, "sliding", {"audio": 1.0})
loading.PIECE_BYTES = 2**14  # several pieces at each position
assert_same_batches(store, 4, 2, "dense", {})
"""


def test_windows_are_those_of_the_store_on_any_mesh(store):
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(store.path)],
        check=True,
        timeout=600,
        env=os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": xla_flags(8)},
    )


def test_videos_are_spread_evenly_and_whole(store):
    windows = make_windows(store.videos("train"), **KINDS["sliding"])
    layout = make_layout(windows, 2)
    assert sorted(v for shard in layout.shards for v in shard) == list(range(5))
    lengths = [e.num_frames for e in windows.entries]
    filled = [sum(lengths[v] for v in shard) for shard in layout.shards]
    assert layout.frames == max(filled)
    assert max(filled) - min(filled) <= max(lengths)


def test_the_memory_is_known_beforehand(store):
    windows = make_windows(store.videos("train"), **KINDS["segment"])
    for single in ({}, {"audio": None}):
        resident = ResidentWindows(store, windows, ("visual", "audio"), single, make_mesh(1, 1))
        arrays = resident.arrays
        held = (arrays.features, arrays.masks, arrays.targets, arrays.target_mask)
        expected = sum(x.nbytes for x in jax.tree.leaves(held))
        assert device_bytes(store, resident.layout, ("visual", "audio"), single) == expected
