"""What a run writes down as it goes: rows that are read back, and a disk that takes no more."""

from __future__ import annotations

import json
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event

from maven_jax.errors import UserError, explain
from maven_jax.runs.metrics import MetricWriter, read_metrics


def events_in(folder) -> list[Event]:
    """The events of a TensorBoard file: length, its checksum, bytes, their checksum."""
    (path,) = folder.glob("events*")
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        found.append(Event.FromString(data[at + 12 : at + 12 + length]))
        at += 12 + length + 4
    return found


def test_rows_and_events_hold_what_was_written(tmp_path):
    writer = MetricWriter(tmp_path, 0)
    writer.write(1, "train", {"loss": 0.5, "rate": 0.25, "note": "text"})
    writer.write(2, "validation", {"ccc": 0.75})
    writer.close()
    assert read_metrics(tmp_path) == [
        {"step": 1, "kind": "train", "loss": 0.5, "rate": 0.25, "note": "text"},
        {"step": 2, "kind": "validation", "ccc": 0.75},
    ]
    events = events_in(tmp_path / "tensorboard")
    assert events[0].file_version == "brain.Event:2"
    assert events[1].session_log.status == 1
    scalars = [(e.step, v.tag, v.simple_value) for e in events for v in e.summary.value]
    assert scalars == [
        (1, "train/loss", 0.5),
        (1, "train/rate", 0.25),
        (2, "validation/ccc", 0.75),
    ]


def fill(place) -> None:
    """Writes until the disk takes no more."""
    with (place / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


def write_for_long(writer: MetricWriter) -> None:
    for step in range(10_000):
        writer.write(step, "train", {"loss": 0.5})


def test_a_full_disk_is_one_line_that_says_what_to_do(small_disk):
    writer = MetricWriter(small_disk, 0)
    fill(small_disk)
    with pytest.raises(UserError, match="the disk is full: the metrics could not be written"):
        write_for_long(writer)
    with pytest.raises(UserError, match="the disk is full"):
        writer.close()


def test_a_full_disk_does_not_cover_the_crash_that_is_under_way(small_disk):
    writer = MetricWriter(small_disk, 0)
    fill(small_disk)
    try:
        raise KeyError("the crash")
    except KeyError:
        writer.close()


def test_any_writer_that_meets_a_full_disk_ends_in_one_line(small_disk):
    fill(small_disk)
    with pytest.raises(OSError, match="No space left") as caught:
        (small_disk / "more").write_bytes(bytes(4096))
    line = explain(caught.value)
    assert line == "the disk is full: make room, then give the same command again"
    caught.value.filename = "features/store.json"
    assert explain(caught.value) == f"features/store.json: {line}"
    assert explain(UserError("config.model: no such key")) == "config.model: no such key"
    assert explain(KeyError("x")) is None


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b"3", b'{"step": "1"}', b'{"step": 1}', b"\xff\xfe", b"", b"[" * 5000]
)
def test_a_damaged_row_is_named_and_takes_no_other_with_it(line, tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    rows = [json.dumps({"step": step, "kind": "train"}).encode() for step in range(1, 10)]
    damaged = b"\n".join([*rows[:3], line, *rows[4:]]) + b"\n" + b'{"step": 10, "ki'
    path.write_bytes(damaged)
    writer = MetricWriter(tmp_path, 8)
    assert "metrics.jsonl: damaged, without line 4;" in capsys.readouterr().out
    writer.close()
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3, 5, 6, 7, 8]
    assert (tmp_path / "damaged" / "metrics.jsonl").read_bytes() == damaged


def test_numbers_that_do_not_exist_are_null(tmp_path):
    writer = MetricWriter(tmp_path, 0)
    writer.write(1, "validation", {"pcc": float("nan"), "rmse": float("inf"), "ccc": 0.5})
    writer.close()
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    (row,) = read_metrics(tmp_path)
    assert (row["pcc"], row["rmse"], row["ccc"]) == (None, None, 0.5)
