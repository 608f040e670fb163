"""Changes that know a format: headers that lie, sizes beyond reason, pickles with a program."""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import zipfile
from pathlib import Path
from random import Random

import numpy as np

from tests.hostile.mutations import BYTES, JSON, NUMBERS, TEXT, Global, Mutator, changed_json

_FIELDS = {"<H": 2, "<I": 4, ">H": 2, ">I": 4}


def _put(data: bytes, at: int, layout: str, rng: Random) -> bytes:
    """A nasty number at a place."""
    size = _FIELDS[layout]
    value = rng.choice(NUMBERS) % (1 << (8 * size))
    return data[:at] + struct.pack(layout, value) + data[at + size :]


def wav_header(data: bytes, rng: Random) -> bytes:
    """RIFF's size, the format's or the data's fields."""
    at, layout = rng.choice(
        [(4, "<I"), (16, "<I"), (20, "<H"), (22, "<H"), (24, "<I"), (28, "<I"), (32, "<H")]
        + [(34, "<H"), (40, "<I")]
    )
    return _put(data, at, layout, rng)


def wav_samples(data: bytes, rng: Random) -> bytes:
    """Floating point samples, some of them no sound."""
    samples = np.zeros(8000, "<f4")
    samples[rng.randrange(8000) :][:200] = rng.choice([np.nan, np.inf, -np.inf, 1e38, 1e5])
    body = samples.tobytes()
    head = b"RIFF" + struct.pack("<I", 36 + len(body)) + b"WAVEfmt " + struct.pack("<I", 16)
    head += struct.pack("<HHIIHH", 3, 1, 16000, 64000, 4, 32)
    return head + b"data" + struct.pack("<I", len(body)) + body


def npy_header(data: bytes, rng: Random) -> bytes:
    """Another dtype, shape or order than the bytes have."""
    descr = rng.choice(["<f4", "<f8", "|O", "<U5", "<c16", "|b1", "<M8[s]", ">f2", "|V0", "x"])
    shape = rng.choice(
        ["(10, 4)", "(10**12, 4)", "(1000000000000, 4)", "(-1, 4)", "()", "(0, 4)", "(10, 0)"]
        + ["(2, 3, 4)", "(4,)", "((1,), 2)", "(1.5, 2)", "(50, 4)", "(50, 8)"]
    )
    order = rng.choice(["False", "True", "3", "__import__('os').mkdir('ran')"])
    text = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}".ljust(117) + "\n"
    return data[:8] + struct.pack("<H", len(text)) + text.encode() + data[128:]


def npy_objects(data: bytes, rng: Random) -> bytes:
    """An array of Python objects, which is a pickle; or one of no numbers."""
    array = rng.choice(
        [np.array([[1, Global("ran")]], object), np.array([["a", "b"]]), np.zeros((50, 4), "c16")]
        + [np.full((50, 4), v, "f4") for v in (np.nan, np.inf, 1e30, 1e-30)]
    )
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def safetensors_header(data: bytes, rng: Random) -> bytes:
    """The header's length, or what it says of names, dtypes, shapes and places."""
    if rng.random() < 0.2 or len(data) < 8:
        return rng.choice([0, 1, 2**40, 2**63, len(data)]).to_bytes(8, "little") + data[8:]
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    name = rng.choice([n for n in header if n != "__metadata__"])
    match rng.randrange(5):
        case 0:
            header[name]["shape"] = rng.choice([[10**18], [-1], [], [2**62, 4], [0], "x"])
        case 1:
            header[name]["dtype"] = rng.choice(["F64", "BF16", "I8", "BOOL", "F8_E4M3", "U64", "x"])
        case 2:
            header[name]["data_offsets"] = rng.choice([[0, 0], [0, 2**62], [-4, 0], [8, 4], []])
        case _:
            changed_json(header, rng)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def float_values(data: bytes, rng: Random) -> bytes:
    """NaN, infinity or a huge number where float32 stands, after any header."""
    at = max(len(data) - 4 * rng.randrange(1, max(len(data) // 8, 2)), 0)
    return data[:at] + struct.pack("<f", rng.choice([np.nan, np.inf, 3e38])) + data[at + 4 :]


def jpeg_size(data: bytes, rng: Random) -> bytes:
    """Height, width, or number of components in the header of the frame."""
    at = next((m.start() for m in re.finditer(rb"\xff[\xc0\xc2]", data)), 0)
    return _put(data, at + rng.choice([5, 5, 7, 7, 8]), ">H", rng)


def jpeg_data(data: bytes, rng: Random) -> bytes:
    """The coded picture behind an intact header."""
    start = data.find(b"\xff\xda") + 12
    return data[:start] + rng.choice(BYTES[:3])(data[start:], rng)


def boxes(data: bytes, rng: Random) -> bytes:
    """MP4: sizes, times and counts in the index (moov), or the pictures themselves (mdat)."""
    index = data.find(b"moov")
    if rng.random() < 0.7 and 0 <= index < len(data) - 16:
        names = [m.start() for m in re.finditer(rb"[a-z]{3}[a-z0-9]", data[index:])]
        at = index + rng.choice(names) + rng.choice([-4, 4, 8, 12, 16, 20])
        return _put(data, min(max(at, 0), len(data) - 4), ">I", rng)
    start = data.find(b"mdat") + 4
    end = index - 4 if index > start else len(data)
    return data[:start] + rng.choice(BYTES[:3])(data[start:end], rng) + data[end:]


def evil_pickle(data: bytes, rng: Random) -> bytes:
    """A pickle that would run a function: bare, or in the place of PyTorch's own."""
    program = pickle.dumps(rng.choice([{"w": Global("ran")}, Global("ran")]), 2)
    if rng.random() < 0.3:
        return program
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, program if name.endswith("data.pkl") else old.read(name))
    return file.getvalue()


def zip_entries(data: bytes, rng: Random) -> bytes:
    """An entry of a PyTorch file dropped, named otherwise, damaged, or much larger than it was."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        chosen = rng.choice(old.namelist())
        for name in old.namelist():
            content = old.read(name)
            if name != chosen:
                new.writestr(name, content)
                continue
            match rng.randrange(4):
                case 0:
                    new.writestr("../" + name, content)
                case 1:
                    new.writestr(name, rng.choice(BYTES)(content, rng))
                case 2:
                    new.writestr(name, bytes(50_000_000), zipfile.ZIP_DEFLATED)
    return file.getvalue()


# Files whose suffix tells nothing are bytes: checkpoints, shards, compiled programs.
MUTATORS: dict[str, list[Mutator]] = {
    ".json": JSON,
    ".jsonl": [*JSON, *TEXT],
    **dict.fromkeys([".csv", ".txt", ".srt", ".vtt", ".TextGrid", ".arff"], TEXT),
    ".wav": [wav_header, wav_header, wav_samples],
    ".npy": [npy_header, npy_header, npy_objects, float_values],
    ".safetensors": [safetensors_header, safetensors_header, float_values],
    ".jpg": [jpeg_size, jpeg_data],
    ".mp4": [boxes, boxes, boxes],
    ".npz": [zip_entries],
    ".zip": [zip_entries],
    ".pth": [evil_pickle, zip_entries, zip_entries, float_values],
}


def mutators(path: Path) -> list[Mutator]:
    """Those for a file: its format's, and those of any bytes."""
    return MUTATORS.get(path.suffix, []) * 2 + BYTES
