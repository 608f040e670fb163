"""Records without protobuf: what its own parser finds, and an error for whatever is damaged."""

from __future__ import annotations

import numpy as np
import pytest
from tensorflow_datasets.proto import tf_example_pb2

from maven_jax.store.records import decode

ARRAYS = {
    "visual": (np.dtype(np.float16), (40, 7)),
    "mask": (np.dtype(bool), (40,)),
    "time_s": (np.dtype(np.float64), (40,)),
}


def make(seed: int, video: str, chunk: int) -> tuple[bytes, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    example = tf_example_pb2.Example()
    fields = example.features.feature
    fields["video"].bytes_list.value.append(video.encode())
    for name, value in (("chunk", chunk), ("start_frame", 40 * chunk), ("num_frames", 40)):
        fields[name].int64_list.value.append(value)
    fields["weight"].float_list.value.append(0.5)  # of a kind that no store has
    arrays = {}
    for name, (dtype, shape) in ARRAYS.items():
        arrays[name] = rng.integers(0, 2, shape).astype(dtype)
        fields[name].bytes_list.value.append(arrays[name].tobytes())
    return example.SerializeToString(deterministic=True), arrays


@pytest.mark.parametrize(("video", "chunk"), [("a", 0), ("gräßlich " * 40, 127), ("", 2**40)])
def test_everything_is_found_whatever_the_lengths(video, chunk):
    record, arrays = make(0, video, chunk)
    fields = decode(record, ARRAYS)
    assert (fields["video"], fields["chunk"]) == (video, chunk)
    for name, array in arrays.items():
        assert fields[name].dtype == array.dtype
        np.testing.assert_array_equal(fields[name], array)
    assert set(decode(record, {"mask": ARRAYS["mask"]})) == {"video", "chunk", "num_frames", "mask"}


def test_arrays_are_views():
    record, _ = make(0, "a", 1)
    bytes_of = np.frombuffer(record, np.uint8)
    assert all(np.shares_memory(bytes_of, decode(record, ARRAYS)[name]) for name in ARRAYS)


def test_what_is_damaged_is_an_error():
    record, _ = make(1, "some video", 300)
    for stop in range(len(record)):
        with pytest.raises(ValueError, match="the record"):
            decode(record[:stop], ARRAYS)
    with pytest.raises(ValueError, match="not one Example"):
        decode(record + b"\n\0", ARRAYS)
    with pytest.raises(ValueError, match="no audio"):
        decode(record, ARRAYS | {"audio": ARRAYS["visual"]})
    with pytest.raises(ValueError, match="visual has 560 bytes, not 562"):
        decode(record, {"visual": (np.dtype(np.float16), (281,))})
    longer = bytearray(record)  # the content of one field runs over into the next
    longer[record.index(b"\x0a\x04mask\x12") + 7] += 1
    with pytest.raises(ValueError, match="cut off"):
        decode(bytes(longer), ARRAYS)
    dice = np.random.default_rng(0)
    for _ in range(500):  # any byte but those of values: an error, or nothing that matters
        broken = bytearray(record)
        broken[dice.integers(len(record))] ^= int(dice.integers(1, 256))
        try:
            fields = decode(bytes(broken), ARRAYS)
        except ValueError:
            continue
        assert {name: fields[name].shape for name in ARRAYS} == {
            n: s for n, (_, s) in ARRAYS.items()
        }
