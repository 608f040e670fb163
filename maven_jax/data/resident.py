"""A split's features on the devices, from which windows are taken inside the training step.

Frames lie in the memory of the devices as they are stored (float16, or uint8 for pixels), whole
videos on one position of the mesh's data axis. The host only says which windows come next. Batches
hold what `pipeline.WindowSource` reads, value by value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, UInt8

from maven_jax.data.pipeline import WindowSource
from maven_jax.data.windows import Windows
from maven_jax.errors import UserError
from maven_jax.progress import meter
from maven_jax.store.reader import Store
from maven_jax.store.schema import VideoEntry
from maven_jax.types import Batch

# Beside the features: targets, their mask.
_FRAME_BYTES = 4 * 2 + 1
# Of what a device has free, this share may be features; the rest is for training.
_SHARE = 0.6


@no_type_check
@struct.dataclass
class Resident:
    """A split on the devices; `d` positions along data, each with `f` frames and `w` windows.

    Attributes:
        features: modality -> (d f, c) frames, or (d w, c) mean vectors of windows for modalities
            that are given as one vector.
        masks: modality -> (d f,) or (d w,), False where nothing was observed.
        targets: (d f, 2).
        target_mask: (d f,).
        first: (n,) row of each window's first frame.
        count: (n,) frames of each window.
        step: (n,) rows from one of a window's frames to the next.
        mean: (n,) row of each window's mean vectors.
    """

    features: dict[str, Float[Array, "f _"] | UInt8[Array, "f _"]]
    masks: dict[str, Bool[Array, "f"]]
    targets: Float[Array, "f 2"]
    target_mask: Bool[Array, "f"]
    first: Int[Array, "n"]
    count: Int[Array, "n"]
    step: Int[Array, "n"]
    mean: Int[Array, "n"]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which position of the data axis holds which videos.

    Attributes:
        shards: for each position, indices of the windows' entries.
        frames: rows that each position has room for.
        windows: mean vectors that each position has room for.
    """

    shards: tuple[tuple[int, ...], ...]
    frames: int
    windows: int


def make_layout(windows: Windows, positions: int) -> Layout:
    """Deals whole videos out, the longest first, each to the position with the fewest frames."""
    lengths = np.array([entry.num_frames for entry in windows.entries])
    shards: list[list[int]] = [[] for _ in range(positions)]
    filled = np.zeros(positions, np.int64)
    for video in np.argsort(-lengths, kind="stable"):
        place = int(filled.argmin())
        shards[place].append(int(video))
        filled[place] += lengths[video]
    per_video = np.bincount(windows.video, minlength=len(lengths))
    most = max(sum(int(per_video[v]) for v in shard) for shard in shards)
    return Layout(tuple(tuple(sorted(s)) for s in shards), int(filled.max()), most)


def device_bytes(
    store: Store, layout: Layout, modalities: Sequence[str], single: Mapping[str, Any]
) -> int:
    """Memory that each device needs for the features of its position."""
    frame = _FRAME_BYTES + sum(
        store.modalities[m].frame_bytes + 1 for m in modalities if m not in single
    )
    vector = sum(store.modalities[m].frame_bytes + 1 for m in modalities if m in single)
    return layout.frames * frame + layout.windows * vector


def room() -> int | None:
    """Bytes that features may take on each of this process's devices; None if it cannot be told."""
    devices = jax.local_devices()
    statistics = [device.memory_stats() for device in devices]
    if all(s and "bytes_limit" in s for s in statistics):
        return int(_SHARE * min(s["bytes_limit"] - s["bytes_in_use"] for s in statistics))
    try:
        with open("/proc/meminfo") as lines:
            free = next(line for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    return int(_SHARE * int(free.split()[1]) * 1024 / len(devices))


class ResidentWindows:
    """Puts a split on the devices and takes batches from it inside jitted functions.

    Args:
        store: the feature store.
        windows: which frames; see `make_windows`.
        modalities: which to hold, in this order.
        single_vector: see `WindowSource`.
        mesh: the device mesh.

    Attributes:
        arrays: the `Resident`; to be given to the function that calls `take`.
    """

    def __init__(
        self,
        store: Store,
        windows: Windows,
        modalities: tuple[str, ...],
        single_vector: Mapping[str, float | None],
        mesh: Mesh,
    ):
        self._store, self._windows, self._mesh = store, windows, mesh
        self._modalities = modalities
        self._single = {m: s for m, s in single_vector.items() if m in modalities}
        self._source = WindowSource(store, windows, modalities, single_vector)
        self.layout = make_layout(windows, mesh.shape["data"])
        self.arrays = self._load()

    def _load(self) -> Resident:
        layout, windows = self.layout, self._windows
        origin = np.zeros(len(windows.entries), np.int64)
        mean = np.zeros(len(windows), np.int64)
        for place, shard in enumerate(layout.shards):
            row, vector = place * layout.frames, place * layout.windows
            for video in shard:
                origin[video] = row
                row += windows.entries[video].num_frames
                own = np.flatnonzero(windows.video == video)
                mean[own] = vector + np.arange(len(own))
                vector += len(own)
        if len(layout.shards) * max(layout.frames, layout.windows) > np.iinfo(np.int32).max:
            raise UserError("config.data.resident: more frames than 32 bits can count; stream them")
        span = windows.stop - windows.start
        table = dict(
            first=origin[windows.video] + windows.start,
            count=-(-span // windows.step),
            step=windows.step,
            mean=mean,
        )
        replicated = NamedSharding(self._mesh, P())
        sharded = self._load_shards()
        placed: dict[str, Any] = {
            k: jax.make_array_from_callback(
                v.shape, replicated, partial(lambda x, i: x[i], v.astype(np.int32))
            )
            for k, v in table.items()
        }
        return Resident(**sharded, **placed)

    def _load_shards(self) -> dict[str, Any]:
        """Reads this process's positions, one after the other, and puts each where it belongs."""
        layout, data = self.layout, self._mesh.shape["data"]
        sharding = NamedSharding(self._mesh, P("data"))
        axis = self._mesh.axis_names.index("data")
        parts: dict[int, list[jax.Array]] = {}
        treedef = None
        here = set(jax.local_devices())
        by_place = np.moveaxis(self._mesh.devices, axis, 0).reshape(data, -1)
        places = [
            (place, [d for d in devices if d in here]) for place, devices in enumerate(by_place)
        ]
        mine = [(place, devices) for place, devices in places if devices]
        total = sum(self._windows.entries[v].num_frames for p, _ in mine for v in layout.shards[p])
        with meter("loading features onto the devices", total, "frames") as m:
            for place, devices in mine:
                leaves, treedef = jax.tree.flatten(self._read_shard(place, m.advance))
                for i, leaf in enumerate(leaves):
                    parts.setdefault(i, []).extend(jax.device_put(leaf, d) for d in devices)
        assert treedef is not None
        whole = [
            jax.make_array_from_single_device_arrays(
                (data * pieces[0].shape[0], *pieces[0].shape[1:]), sharding, pieces
            )
            for _, pieces in sorted(parts.items())
        ]
        return jax.tree.unflatten(treedef, whole)

    def _read_shard(self, place: int, advance: Callable[[int], None]) -> dict[str, Any]:
        """The arrays of one position of the data axis."""
        layout, specs = self.layout, self._store.modalities
        rows = {m: layout.windows if m in self._single else layout.frames for m in self._modalities}
        shard: dict[str, Any] = {
            "features": {m: np.zeros((n, specs[m].dim), specs[m].dtype) for m, n in rows.items()},
            "masks": {m: np.zeros(n, bool) for m, n in rows.items()},
            "targets": np.zeros((layout.frames, 2), np.float32),
            "target_mask": np.zeros(layout.frames, bool),
        }
        row = vector = 0
        for video in layout.shards[place]:
            entry = self._windows.entries[video]
            self._read_video(entry, row, shard)
            row += entry.num_frames
            if self._single:
                own = np.flatnonzero(self._windows.video == video)
                for window in own:
                    item = self._source[int(window)]
                    for m in self._single:
                        shard["features"][m][vector] = item["features"][m][0]
                        shard["masks"][m][vector] = item["modality_masks"][m][0]
                    vector += 1
            advance(entry.num_frames)
        return shard

    def _read_video(self, entry: VideoEntry, row: int, shard: dict[str, Any]) -> None:
        framed = [m for m in self._modalities if m not in self._single]
        # In pieces: a video of an hour and wide features would otherwise be in memory twice.
        block = 64 * self._store.chunk_frames
        for start in range(0, entry.num_frames, block):
            stop = min(start + block, entry.num_frames)
            frames, there = (
                self._store.read(entry, start, stop, framed),
                slice(row + start, row + stop),
            )
            for m in framed:
                shard["features"][m][there] = frames.features[m]
                shard["masks"][m][there] = frames.masks[m]
            shard["targets"][there] = frames.targets
            shard["target_mask"][there] = frames.target_mask

    def take(self, arrays: Resident, windows: Int[Array, "b"]) -> Batch:
        """The batch of some windows, for use inside jit; its rows lie over the data axis.

        Every position of the data axis takes what it has of all rows, zeros elsewhere; the sum over
        positions, in which one term at most is not zero, leaves each position its own rows.
        """
        length = self._windows.length
        positions = self._mesh.shape["data"]
        first, count = arrays.first[windows], arrays.count[windows]
        offsets = jnp.arange(length, dtype=jnp.int32)
        inside = offsets < count[:, None]  # (b, t)
        rows = first[:, None] + offsets * arrays.step[windows][:, None]
        vectors = arrays.mean[windows][:, None]  # (b, 1)

        def take_rows(values: Array, wanted: Array, valid: Array) -> Array:
            """(f, …) rows of this position -> (b / d, t, …)."""
            local = wanted - jax.lax.axis_index("data") * values.shape[0]
            mine = valid & (local >= 0) & (local < values.shape[0])
            found = values[jnp.where(mine, local, 0)]
            found = jnp.where(mine.reshape(*mine.shape, *(1,) * (found.ndim - 2)), found, 0)
            if positions == 1:
                return found
            return jax.lax.psum_scatter(found, "data", scatter_dimension=0, tiled=True)

        def gather(values: Array, wanted: Array, valid: Array) -> Array:
            stored = values.dtype
            values = values.astype(jnp.uint8) if stored == jnp.bool_ else values
            out = jax.shard_map(
                take_rows,
                mesh=self._mesh,
                in_specs=(P("data"), P(), P()),
                out_specs=P("data"),
                check_vma=False,
            )(values, wanted, valid)
            return out.astype(stored)

        seen = jnp.ones_like(vectors, bool)
        where = {
            m: (vectors, seen) if m in self._single else (rows, inside) for m in self._modalities
        }
        return Batch(
            features={m: gather(arrays.features[m], *where[m]) for m in self._modalities},
            modality_masks={m: gather(arrays.masks[m], *where[m]) for m in self._modalities},
            frame_mask=jax.lax.with_sharding_constraint(
                inside, NamedSharding(self._mesh, P("data"))
            ),
            targets=gather(arrays.targets, rows, inside),
            target_mask=gather(arrays.target_mask, rows, inside),
            window=jax.lax.with_sharding_constraint(
                windows.astype(jnp.int32), NamedSharding(self._mesh, P("data"))
            ),
        )
