"""JSON that anybody may have written."""

from __future__ import annotations

import os
import tracemalloc

import pytest

from maven_jax import inputs
from maven_jax.errors import UserError
from maven_jax.inputs import read_json

BAD = {
    "empty": b"",
    "list": b"[]",
    "null": b"null",
    "number": b"3",
    "text": b"hello",
    "cut": b'{"a": 1',
    "latin": '{"a": "é"}'.encode("latin-1"),
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "binary": bytes(range(256)),
    "half a character": rb'{"a": "\ud800"}',
    "deep": b'{"a":' * 65 + b"1" + b"}" * 65,
    "very deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "digits": b'{"a": ' + b"1" * 5000 + b"}",
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_json_object_is_one_line(name, tmp_path):
    path = tmp_path / "record.json"
    path.write_bytes(BAD[name])
    with pytest.raises(UserError, match=r"record\.json: .*a record of ours") as caught:
        read_json(path, "a record of ours")
    assert "\n" not in str(caught.value)


def test_special_and_missing_files_are_one_line(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "pipe", "not a regular file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "nothing", "no such file"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        with pytest.raises(UserError, match=message):
            read_json(path, "a record of ours")


@pytest.mark.parametrize("item", [b"{},", b"[],", b'{"a":0},', b"0,"])
def test_a_file_that_would_fill_the_memory_is_refused(item, tmp_path):
    path = tmp_path / "bomb.json"
    path.write_bytes(b'{"a": [' + item * (inputs.JSON_BYTES // 2 // len(item)) + b"0]}")
    tracemalloc.start()
    with pytest.raises(UserError, match=r"bomb\.json: .* MiB"):
        read_json(path, "a record of ours")
    assert tracemalloc.get_traced_memory()[1] < 500 << 20
    tracemalloc.stop()
    os.truncate(path, inputs.JSON_BYTES + 1)
    with pytest.raises(UserError, match="bytes are too many"):
        read_json(path, "a record of ours")


def test_a_large_record_is_read(tmp_path):
    path = tmp_path / "record.json"
    path.write_bytes(b'{"a": [' + b'{"b": [0, 1]}, ' * 100_000 + b"0]}")
    assert len(read_json(path, "a record of ours")["a"]) == 100_001
