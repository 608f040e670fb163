"""A split's features on the devices, from which the training step takes its windows.

Frames lie in device memory as they are stored (float16, or uint8 for pixels), each video whole at
one position of the mesh's data axis. The host only says which windows come next. Batches hold
exactly the values that `pipeline.WindowSource` reads.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, UInt8

from maven_jax.data.loading import load_frames, local_positions, on_devices
from maven_jax.data.pipeline import WindowSource
from maven_jax.data.windows import Windows
from maven_jax.errors import UserError
from maven_jax.progress import meter
from maven_jax.store.reader import Store
from maven_jax.store.schema import TARGETS, mask_field
from maven_jax.types import Batch

# Of a frame's targets and their mask.
_TARGET_BYTES = 4 * 2 + 1
# Windows whose mean vectors a thread takes in one go.
_WINDOWS = 16
# The share of a device's free memory that features may take; the rest is for training.
_FEATURES_SHARE = 0.6


@no_type_check
@struct.dataclass
class ResidentArrays:
    """A split on the devices: `d` positions along data, each with `f` frames and `w` windows.

    Attributes:
        features: modality -> (d f, c) frames; for modalities that are one vector per window,
            (d w, c) mean vectors.
        masks: modality -> (d f,) or (d w,), False where nothing was observed.
        targets: (d f, 2).
        target_mask: (d f,).
        extra_targets: name -> (d f, w).
        extra_masks: name -> (d f,).
        first: (n,) row of each window's first frame.
        count: (n,) frames of each window.
        step: (n,) distance in rows between neighbouring frames of a window.
        vector: (n,) row of each window's mean vectors.
    """

    features: dict[str, Float[Array, "f _"] | UInt8[Array, "f _"]]
    masks: dict[str, Bool[Array, "f"]]
    targets: Float[Array, "f 2"]
    target_mask: Bool[Array, "f"]
    extra_targets: dict[str, Float[Array, "f _"]]
    extra_masks: dict[str, Bool[Array, "f"]]
    first: Int[Array, "n"]
    count: Int[Array, "n"]
    step: Int[Array, "n"]
    vector: Int[Array, "n"]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which position of the data axis holds which videos.

    Attributes:
        shards: for each position, the indices of its videos in `Windows.entries`.
        frames: rows of frames at each position, padding included.
        windows: rows of mean vectors at each position, padding included.
    """

    shards: tuple[tuple[int, ...], ...]
    frames: int
    windows: int


def make_layout(windows: Windows, positions: int) -> Layout:
    """Assigns whole videos, longest first, each to the position with the fewest frames so far."""
    lengths = np.array([entry.num_frames for entry in windows.entries])
    shards: list[list[int]] = [[] for _ in range(positions)]
    frames = np.zeros(positions, np.int64)
    for video in np.argsort(-lengths, kind="stable"):
        position = int(frames.argmin())
        shards[position].append(int(video))
        frames[position] += lengths[video]
    per_video = np.bincount(windows.video, minlength=len(lengths))
    most_windows = max(sum(int(per_video[v]) for v in shard) for shard in shards)
    return Layout(tuple(tuple(sorted(s)) for s in shards), int(frames.max()), most_windows)


def device_bytes(
    store: Store,
    layout: Layout,
    modalities: Sequence[str],
    single: Mapping[str, Any],
    extra_targets: Sequence[str] = (),
) -> int:
    """Bytes that each device needs for the features of its position."""
    framed = [*(m for m in modalities if m not in single), *extra_targets]
    frame = _TARGET_BYTES + sum(store.stored[m].frame_bytes + 1 for m in framed)
    vector = sum(store.modalities[m].frame_bytes + 1 for m in modalities if m in single)
    return layout.frames * frame + layout.windows * vector


def free_bytes() -> int | None:
    """Bytes that features may take on each of this process's devices; None if that is unknown."""
    devices = jax.local_devices()
    statistics = [device.memory_stats() for device in devices]
    if all(s and "bytes_limit" in s for s in statistics):
        return int(_FEATURES_SHARE * min(s["bytes_limit"] - s["bytes_in_use"] for s in statistics))
    try:
        with open("/proc/meminfo") as lines:
            available = next(line for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    return int(_FEATURES_SHARE * int(available.split()[1]) * 1024 / len(devices))


class ResidentWindows:
    """Puts a split on the devices and takes batches from it inside jitted functions.

    Args:
        store: the feature store.
        windows: which frames; see `make_windows`.
        modalities: which to hold, in this order.
        single_vector: see `WindowSource`.
        mesh: the device mesh.
        extra_targets: those of the store that batches have.

    Attributes:
        layout: which videos lie where.
        arrays: the split; an argument of the jitted function that calls `take`.

    Raises:
        UserError: too many frames for 32-bit row numbers.
    """

    def __init__(
        self,
        store: Store,
        windows: Windows,
        modalities: tuple[str, ...],
        single_vector: Mapping[str, float | None],
        mesh: Mesh,
        extra_targets: Sequence[str] = (),
    ):
        self._extra = tuple(extra_targets)
        self._store, self._windows, self._mesh = store, windows, mesh
        self._modalities = modalities
        self._single = {m: s for m, s in single_vector.items() if m in modalities}
        self._vectors = WindowSource(store, windows, tuple(self._single), single_vector)
        self.layout = make_layout(windows, mesh.shape["data"])
        self.arrays = self._load()

    def _load(self) -> ResidentArrays:
        layout, windows = self.layout, self._windows
        first_row = np.zeros(len(windows.entries), np.int64)
        vector = np.zeros(len(windows), np.int64)
        for position, shard in enumerate(layout.shards):
            row, vector_row = position * layout.frames, position * layout.windows
            for video in shard:
                first_row[video] = row
                row += windows.entries[video].num_frames
                own = np.flatnonzero(windows.video == video)
                vector[own] = vector_row + np.arange(len(own))
                vector_row += len(own)
        if len(layout.shards) * max(layout.frames, layout.windows) > np.iinfo(np.int32).max:
            raise UserError("config.data.resident: more frames than 32 bits can count; stream them")
        span = windows.stop - windows.start
        table = dict(
            first=first_row[windows.video] + windows.start,
            count=-(-span // windows.step),
            step=windows.step,
            vector=vector,
        )
        replicated = NamedSharding(self._mesh, P())
        split = self._load_shards()
        index: dict[str, Any] = {
            k: jax.make_array_from_callback(
                v.shape, replicated, partial(lambda x, i: x[i], v.astype(np.int32))
            )
            for k, v in table.items()
        }
        return ResidentArrays(**split, **index)

    def _load_shards(self) -> dict[str, Any]:
        """The positions of this process's devices, read onto these."""
        windows, layout = self._windows, self.layout
        framed = [m for m in self._modalities if m not in self._single]
        framed += self._extra
        fields = [TARGETS, "target_mask", *framed, *map(mask_field, framed)]
        videos = {
            position: [windows.entries[v] for v in layout.shards[position]]
            for position in local_positions(self._mesh)
        }
        total = sum(entry.num_frames for entries in videos.values() for entry in entries)
        with meter("loading features onto the devices", total, "frames") as m:
            loaded = load_frames(self._store, videos, layout.frames, fields, self._mesh, m.advance)
            if self._single:
                vectors = {position: self._mean_vectors(position) for position in videos}
                loaded |= on_devices(vectors, self._mesh)
        return {
            "features": {m: loaded[m] for m in self._modalities},
            "masks": {m: loaded[mask_field(m)] for m in self._modalities},
            "targets": loaded[TARGETS],
            "target_mask": loaded["target_mask"],
            "extra_targets": {n: loaded[n] for n in self._extra},
            "extra_masks": {n: loaded[mask_field(n)] for n in self._extra},
        }

    def _mean_vectors(self, position: int) -> dict[str, np.ndarray]:
        """Field -> a row for each window at a position, by video."""
        rows, specs = self.layout.windows, self._store.modalities
        arrays: dict[str, np.ndarray] = {}
        for m in self._single:
            arrays[m] = np.zeros((rows, specs[m].dim), specs[m].dtype)
            arrays[mask_field(m)] = np.zeros(rows, bool)
        own = [np.flatnonzero(self._windows.video == v) for v in self.layout.shards[position]]
        numbers = np.concatenate([np.zeros(0, int), *own])

        def read(begin: int) -> None:
            batch = self._vectors.read(numbers[begin : begin + _WINDOWS])
            to = slice(begin, begin + _WINDOWS)
            for m in self._single:
                arrays[m][: len(numbers)][to] = batch["features"][m][:, 0]
                arrays[mask_field(m)][: len(numbers)][to] = batch["modality_masks"][m][:, 0]

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(read, range(0, len(numbers), _WINDOWS)))
        return arrays

    def take(self, arrays: ResidentArrays, windows: Int[Array, "b"]) -> Batch:
        """The batch of some windows, split over the data axis; for use inside jit.

        Every position of the data axis takes the frames that it holds of the whole batch, and zeros
        for the others. Summed over the positions (one term at most is not zero) these are the
        batch, of which each position keeps its own rows.
        """
        length = self._windows.length
        positions = self._mesh.shape["data"]
        first, count = arrays.first[windows], arrays.count[windows]
        offsets = jnp.arange(length, dtype=jnp.int32)
        inside = offsets < count[:, None]  # (b, t)
        rows = first[:, None] + offsets * arrays.step[windows][:, None]
        vectors = arrays.vector[windows][:, None]  # (b, 1)

        def take_rows(values: Array, index: Array, valid: Array) -> Array:
            """(f, …) rows of this position -> (b / d, t, …)."""
            local = index - jax.lax.axis_index("data") * values.shape[0]
            mine = valid & (local >= 0) & (local < values.shape[0])
            taken = values[jnp.where(mine, local, 0)]
            taken = jnp.where(mine.reshape(*mine.shape, *(1,) * (taken.ndim - 2)), taken, 0)
            if positions == 1:
                return taken
            return jax.lax.psum_scatter(taken, "data", scatter_dimension=0, tiled=True)

        def gather(values: Array, index: Array, valid: Array) -> Array:
            stored = values.dtype
            # Booleans cannot be summed.
            values = values.astype(jnp.uint8) if stored == jnp.bool_ else values
            out = jax.shard_map(
                take_rows,
                mesh=self._mesh,
                in_specs=(P("data"), P(), P()),
                out_specs=P("data"),
                check_vma=False,
            )(values, index, valid)
            return out.astype(stored)

        has_vector = jnp.ones_like(vectors, bool)
        index_of = {
            m: (vectors, has_vector) if m in self._single else (rows, inside)
            for m in self._modalities
        }
        return Batch(
            features={m: gather(arrays.features[m], *index_of[m]) for m in self._modalities},
            modality_masks={m: gather(arrays.masks[m], *index_of[m]) for m in self._modalities},
            frame_mask=jax.lax.with_sharding_constraint(
                inside, NamedSharding(self._mesh, P("data"))
            ),
            targets=gather(arrays.targets, rows, inside),
            target_mask=gather(arrays.target_mask, rows, inside),
            window=jax.lax.with_sharding_constraint(
                windows.astype(jnp.int32), NamedSharding(self._mesh, P("data"))
            ),
            extra_targets={n: gather(x, rows, inside) for n, x in arrays.extra_targets.items()},
            extra_masks={n: gather(x, rows, inside) for n, x in arrays.extra_masks.items()},
        )
