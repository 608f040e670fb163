"""Annotation files: what is accepted, what is refused and where the fault is said to be."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from maven_jax.errors import UserError
from maven_jax.media.annotations import read_annotation
from maven_jax.media.problems import InputError

HEADER = b"valence,arousal\n"


@pytest.fixture
def write(tmp_path):
    def write(data: bytes):
        path = tmp_path / "video.txt"
        path.write_bytes(data)
        return path

    return write


def test_values_and_not_annotated_frames(write):
    found = read_annotation(write(HEADER + b"0.25,-1\n-5,0.5\n.5,-5.0\n1.0,-0\n"))
    np.testing.assert_array_equal(found.valid, [True, False, False, True])
    np.testing.assert_array_equal(found.values, [[0.25, -1], [0, 0], [0, 0], [1, 0]])
    assert found.values.dtype == np.float32
    assert found.fixes == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\xef\xbb\xbf" + HEADER + b"0.1,0.2\n", ["BOM"]),
        ("valence,arousal\n0.1,0.2\n".encode("utf-16"), ["BOM"]),
        (HEADER.replace(b"\n", b"\r") + b"0.1,0.2\r", ["CR"]),
        (b"valence,arousal\r\n0.1,0.2\r\n", ["CRLF"]),
        (HEADER + b" 0.1 , 0.2 \n", ["spaces"]),
        (b"Valence, Arousal\n0.1,0.2\n\n  \n", []),
        (HEADER + b"0.1,0.2", []),
        (HEADER + b"1e-1,2E-1\n", []),
    ],
)
def test_harmless_differences_are_read_and_stated(write, data, said):
    found = read_annotation(write(data))
    np.testing.assert_allclose(found.values, [[0.1, 0.2]], rtol=1e-6)
    assert len(found.fixes) == len(said)
    assert all(word in fix.message for word, fix in zip(said, found.fixes))


@pytest.mark.parametrize(
    ("data", "place", "message"),
    [
        (HEADER + b"0.1,0.2\nhappy,0.1\n", "line 3", "'happy' is not a number"),
        (HEADER + b"0.1,nan\n", "line 2", "'nan' is not a number"),
        (HEADER + b"-inf,0.1\n", "line 2", "'-inf' is not a number"),
        (HEADER + b"0_1,0.1\n", "line 2", "'0_1' is not a number"),
        (HEADER + "٠,0.1\n".encode(), "line 2", "is not a number"),
        (HEADER + b"0.1,0.2\x00\n", "line 2", "is not a number"),
        (HEADER + b"0.1,\n", "line 2", "a value is missing"),
        (HEADER + b"0.1\n", "line 2", "1 column instead of 2"),
        (HEADER + b"0.1,0.2,0.3\n", "line 2", "3 columns instead of 2"),
        (HEADER + b"0.1;0.2\n", "line 2", "1 column instead of 2"),
        (HEADER + b"0.1,1.01\n", "line 2", "1.01 is outside [-1, 1]"),
        (HEADER + b"-4,0.1\n", "line 2", "-4 is outside [-1, 1]"),
        (HEADER + b"1e999,0.1\n", "line 2", "outside [-1, 1]"),
        (HEADER + b"0.1,0.2\n\n0.1,0.2\n", "line 3", "blank line"),
        (HEADER + b"0.1,0.2\nx,1\n0,0\ny,1\nz,2\n", "line 3", "(and 2 more lines)"),
        (b"", "", "empty"),
        (b"\n\n", "", "empty"),
        (HEADER, "line 1", "no frames"),
        (b"0.1,0.2\n0.3,0.4\n", "line 1", "the header valence,arousal is missing"),
        (b"arousal,valence\n0.3,0.4\n", "line 1", "swapped"),
        (b"v,a\n0.3,0.4\n", "line 1", "expected the header"),
        (HEADER + b"0.1,0.2\n\xff\xfe\n", "line 3", "0xff is not UTF-8"),
        ("valence,arousal\n0,0\n".encode("utf-16-le"), "", "iconv -f utf-16le -t utf-8"),
        (HEADER.decode().encode("utf-16")[:-1], "", "damaged UTF-16"),
    ],
)
def test_faults_are_named_by_line(write, data, place, message):
    with pytest.raises(InputError) as caught:
        read_annotation(write(data))
    error = caught.value
    assert isinstance(error, UserError)
    assert error.place == place
    assert message in error.message
    assert "video.txt" in str(error)
    assert "\n" not in str(error)


def test_missing_folder_and_oversized_files(tmp_path, write, monkeypatch):
    with pytest.raises(InputError, match="no such file"):
        read_annotation(tmp_path / "absent.txt")
    with pytest.raises(InputError, match="a folder"):
        read_annotation(tmp_path)
    monkeypatch.setattr("maven_jax.media.annotations.MAX_BYTES", 20)
    with pytest.raises(InputError, match="too many for an annotation"):
        read_annotation(write(HEADER + b"0.1,0.2\n"))


def test_errors_cross_process_borders(write):
    with pytest.raises(InputError) as caught:
        read_annotation(write(HEADER + b"x,1\n"))
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)
    assert copy.place == "line 2"
