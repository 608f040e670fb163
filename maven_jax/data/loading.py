"""Frames of a store put onto the devices in pieces, while threads read the next ones."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from maven_jax.store.reader import Store
from maven_jax.store.schema import VideoEntry, record_arrays

# The size of a piece, and how many are read ahead. The host's memory for them is used again and
# again: new memory costs as much as the copy into it.
PIECE_BYTES, PIECES = 2**26, 4
# A thread reads so many records in one go.
_RECORDS = 16

Arrays = dict[str, jax.Array]
# Position of the mesh's data axis -> field -> rows on the host.
Host = Mapping[int, Mapping[str, np.ndarray]]


def load_frames(
    store: Store,
    videos: Mapping[int, Sequence[VideoEntry]],
    rows: int,
    fields: Sequence[str],
    mesh: Mesh,
    advance: Callable[[int], None],
) -> Arrays:
    """Arrays (d rows, …) by field: `rows` at each of the `d` positions of the mesh's data axis.

    Args:
        store: the feature store.
        videos: each position of this process -> its videos, whose frames fill its rows in this
            order; zeros follow.
        rows: at least as many as any position has frames.
        fields: of the records; see `record_arrays`.
        mesh: the device mesh.
        advance: is told how many more frames are on the devices.

    Raises:
        UserError: a shard of the store is damaged.
    """
    arrays = {f: record_arrays(store.chunk_frames, store.stored)[f] for f in fields}
    row_bytes = sum(dtype.itemsize * math.prod(shape[1:]) for dtype, shape in arrays.values())
    # The same in every process, as they put their pieces in one program.
    positions = -(-mesh.shape["data"] // jax.process_count())
    size = min(rows, max(1, PIECE_BYTES // (row_bytes * positions)))
    # The last piece is as large as the others, and begins within the one before.
    begins = [min(begin, rows - size) for begin in range(0, rows, size)]
    buffers = [
        {p: {f: np.empty((size, *s[1:]), d) for f, (d, s) in arrays.items()} for p in videos}
        for _ in range(min(PIECES, len(begins)))
    ]

    def begin_to_read(number: int) -> list[Future[None]]:
        return [
            pool.submit(store.read_into, [(entry, span)], [out])
            for p, buffer in buffers[number % len(buffers)].items()
            for entry, span, out in cut(
                videos[p], begins[number], buffer, _RECORDS * store.chunk_frames
            )
        ]

    loaded, put = {}, _putting(mesh)
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        reading = {number: begin_to_read(number) for number in range(len(buffers))}
        for number, begin in enumerate(begins):
            for job in reading.pop(number):
                job.result()
            piece = on_devices(buffers[number % len(buffers)], mesh)
            if len(begins) == 1:
                loaded = piece
            else:
                loaded = put(loaded or _zeros(piece, rows, mesh), piece, np.int32(begin))
            # Then the buffer is free; meanwhile threads read into the others.
            jax.block_until_ready(loaded)
            if number + len(buffers) < len(begins):
                reading[number + len(buffers)] = begin_to_read(number + len(buffers))
            before = begins[number - 1] + size if number else 0
            for of_position in videos.values():
                total = sum(video.num_frames for video in of_position)
                advance(min(begin + size, total) - min(before, total))
    finally:
        pool.shutdown(cancel_futures=True)
    return loaded


def cut(
    videos: Sequence[VideoEntry], begin: int, buffer: Mapping[str, np.ndarray], most: int
) -> Iterator[tuple[VideoEntry, slice, dict[str, np.ndarray]]]:
    """What to read into a buffer that holds the rows from `begin` on; its other rows become 0.

    Args:
        videos: whose frames follow each other in rows.
        begin: the buffer's first row.
        buffer: field -> (n, …).
        most: frames of a part; parts begin at its multiples, and so do not share records.

    Yields:
        A video, some of its frames, and the buffer's rows for them.
    """
    end = begin + len(next(iter(buffer.values())))
    first = 0  # row of the video's first frame
    for entry in videos:
        start, stop = max(begin - first, 0), min(end - first, entry.num_frames)
        while start < stop:
            until = min(stop, (start // most + 1) * most)
            rows = slice(first + start - begin, first + until - begin)
            yield entry, slice(start, until, 1), {f: x[rows] for f, x in buffer.items()}
            start = until
        first += entry.num_frames
    for array in buffer.values():
        array[max(first - begin, 0) :] = 0


def on_devices(host: Host, mesh: Mesh) -> Arrays:
    """Arrays (d n, …) split over the data axis, from the (n, …) of each position of this process.

    On a processor they may be views of the host's arrays.
    """
    sharding = NamedSharding(mesh, P("data"))
    loaded = {}
    for field, example in next(iter(host.values())).items():
        pieces = [
            jax.device_put(host[p][field], device)
            for p, devices in local_positions(mesh).items()
            for device in devices
        ]
        shape = (mesh.shape["data"] * len(example), *example.shape[1:])
        loaded[field] = jax.make_array_from_single_device_arrays(shape, sharding, pieces)
    return loaded


def local_positions(mesh: Mesh) -> dict[int, list[Any]]:
    """The positions of the data axis that lie in this process -> its devices there."""
    axis = mesh.axis_names.index("data")
    by_position = np.moveaxis(mesh.devices, axis, 0).reshape(mesh.shape["data"], -1)
    local = set(jax.local_devices())
    ours = {p: [d for d in devices if d in local] for p, devices in enumerate(by_position)}
    return {p: devices for p, devices in ours.items() if devices}


def _zeros(piece: Arrays, rows: int, mesh: Mesh) -> Arrays:
    """As a piece, but with `rows` at each position."""
    shapes = {f: (mesh.shape["data"] * rows, *x.shape[1:]) for f, x in piece.items()}
    return _making(mesh)(tuple((f, shape, piece[f].dtype) for f, shape in shapes.items()))


# Programs are made once for a mesh: to compile them takes longer than to load a small split.
@functools.cache
def _making(mesh: Mesh) -> Callable[..., Arrays]:
    """((field, shape, dtype), …) -> zeros, split over the data axis."""

    def make(fields: tuple[tuple[str, tuple[int, ...], np.dtype], ...]) -> Arrays:
        return {field: jnp.zeros(shape, dtype) for field, shape, dtype in fields}

    return jax.jit(make, static_argnums=0, out_shardings=NamedSharding(mesh, P("data")))


@functools.cache
def _putting(mesh: Mesh) -> Callable[[Arrays, Arrays, np.int32], Arrays]:
    """(arrays, piece, begin) -> the arrays, in their memory, with the piece from row `begin` on."""

    def put(arrays: Arrays, piece: Arrays, begin: jax.Array) -> Arrays:
        return jax.tree.map(
            lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, begin, 0), arrays, piece
        )

    data = P("data")
    mapped = jax.shard_map(
        put, mesh=mesh, in_specs=(data, data, P()), out_specs=data, check_vma=False
    )
    return jax.jit(mapped, donate_argnums=0)
