"""What can be wrong with a file: seeded changes of its text, its structure, or its place on disk.

A mutator takes the bytes of a healthy file and a `Random` and returns other bytes; those of
`PLACES` take the path and change what lies there. Formats of their own have theirs in `formats`.
"""

from __future__ import annotations

import gzip
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

Mutator = Callable[[bytes, Random], bytes]

# A number that Python's json cannot write; replaced in the text.
_TOO_LARGE = 987654321987654321
NASTY = [
    None,
    [],
    {},
    [[]],
    True,
    -1,
    0,
    0.5,
    10**18,
    2**63,
    1e300,
    float("nan"),
    float("inf"),
    _TOO_LARGE,
    "",
    "x",
    "1",
    "nan",
    "\ud800",
    "a\x1b[31mred\x07",
    "../../outside/secret.txt",
    "/dev/zero",
    "evil.py:Own",
    "owner/repo",
    "[bold]x[/bold]",
    "x\nmaven-jax: all is well",
]
NUMBERS = [0, 1, 2, 7, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1]
CELLS = [
    *("", "nan", "inf", "-inf", "1e300", "-5", "2", "x", "1_0", "0x1", "٣", "1;2", '"', '"1"'),
    *("=cmd()", "@SUM(A1)", "<script>alert(1)</script>", "[red]0.1[/red]", "\x1b[2J", "\x00"),
]


# JSON


def places_of(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = [(value, key) for key, _ in items]
    inner = [v for _, v in (value.items() if isinstance(value, dict) else enumerate(value))]
    return found + [p for v in inner if isinstance(v, dict | list) for p in places_of(v)]


def changed_json(value: Any, rng: Random) -> Any:
    """A JSON value with one key or item dropped, renamed, copied or replaced."""
    places = places_of(value) if isinstance(value, dict | list) else []
    if not places:
        return rng.choice(NASTY)
    container, key = rng.choice(places)
    action = rng.choice(["drop", "move", "copy", "replace", "replace", "replace"])
    if action == "replace":
        container[key] = rng.choice(NASTY)
    elif action == "drop":
        del container[key]
    elif isinstance(container, dict):
        name = rng.choice([f"{key}x", "", "../x", "\x1b[31m", "a/b", rng.choice(list(container))])
        container[name] = container.pop(key) if action == "move" else container[key]
    else:
        container.insert(rng.randrange(len(container) + 1), container[key])
    return value


def json_value(data: bytes, rng: Random) -> bytes:
    """A value, a key or an item of JSON, or of one line of JSON lines."""
    lines = data.split(b"\n")
    number = 0
    try:
        value = json.loads(data)
    except RecursionError:  # a change before this one made it so deep
        return data
    except ValueError:
        number = rng.randrange(max(len(lines) - 1, 1))
        try:
            value = json.loads(lines[number])
        except ValueError:
            return b"{" + data
        lines[number] = _dump(changed_json(value, rng))
        return b"\n".join(lines)
    return _dump(changed_json(value, rng))


def _dump(value: Any) -> bytes:
    return json.dumps(value).replace(str(_TOO_LARGE), "1e400").encode()


def json_odd(data: bytes, rng: Random) -> bytes:
    """Other JSON than an object of ours, or hardly any."""
    deep = rng.choice([100, 5_000, 500_000])
    return rng.choice(
        [
            b"[]",
            b"null",
            b"3",
            b'"x"',
            b"{}",
            b"NaN",
            b"[" * deep + b"]" * deep,
            b'{"a":' * deep + b"1" + b"}" * deep,
            b'{"a": "' + b"x" * 10_000_000 + b'"}',
            b"[" + b"{}," * 1_000_000 + b"{}]",
            data.replace(b":", b": 1, :", 1),
            data[:1] + b'"a": 1, "a": 2,' + data[1:],
            b"\xef\xbb\xbf" + data,
            data.decode("utf-8", "replace").encode("utf-16"),
            data + data,
            b"9" * 5_000,
        ]
    )


# Lines and cells


def rows(data: bytes, rng: Random) -> bytes:
    """Lines dropped, doubled, swapped, joined or blank."""
    lines = data.split(b"\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(7):
        case 0:
            del lines[i]
        case 1:
            del lines[min(i, j) : max(i, j) + 1]
        case 2:
            lines.insert(i, lines[j])
        case 3:
            lines[i], lines[j] = lines[j], lines[i]
        case 4:
            lines.insert(i, b"")
        case 5:
            lines[i : i + 2] = [b"".join(lines[i : i + 2])]
        case _:
            lines[i] += rng.choice([b",", b",0.1", b" ", b"\r", b"#", b"x" * 2_000_000])
    return b"\n".join(lines)


def cells(data: bytes, rng: Random) -> bytes:
    """One value of a line, or a whole column, in other words."""
    separator = b"," if b"," in data else b" "
    table = [line.split(separator) for line in data.split(b"\n")]
    row = rng.randrange(len(table))
    column = rng.randrange(len(table[row]))
    value = rng.choice(CELLS).encode()
    match rng.randrange(5):
        case 0:
            for line in table:
                del line[column : column + 1]
        case 1:
            for line in table:
                line.reverse()
        case 2:
            for line in table:
                line.insert(column, line[min(column, len(line) - 1)])
        case _:
            table[row][column] = value
    return b"\n".join(separator.join(line) for line in table)


def writing(data: bytes, rng: Random) -> bytes:
    """Another encoding, other line ends, another separator, characters that control a screen."""
    text = data.decode("utf-8", "replace")
    at = rng.randrange(len(text) + 1)
    return rng.choice(
        [
            text.encode("utf-16"),
            text.encode("utf-32"),
            b"\xef\xbb\xbf" + data,
            data.replace(b"\n", b"\r\n"),
            data.replace(b"\n", b"\r"),
            data.replace(b",", b";"),
            data.replace(b",", b"\t"),
            data.replace(b".", b","),
            data.replace(b"\n", b""),
            (text[:at] + rng.choice(CELLS) + text[at:]).encode(),
            text.encode()[:at] + bytes([rng.randrange(128, 256)]) + text.encode()[at:],
            text.replace("\n", "\u2028").encode(),
            data + b"\x00" * 100,
        ]
    )


# Bytes of anything


def truncated(data: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(max(len(data), 1))]


def zeroed(data: bytes, rng: Random) -> bytes:
    start = rng.randrange(max(len(data), 1))
    count = rng.choice([1, 16, 512, 4096])
    return data[:start] + bytes(min(count, len(data) - start)) + data[start + count :]


def flipped(data: bytes, rng: Random) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(rng.choice([1, 1, 3, 30])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def longer(data: bytes, rng: Random) -> bytes:
    return data + rng.choice([b"\0" * 5000, b"x", data, rng.randbytes(300)])


def moved(data: bytes, rng: Random) -> bytes:
    """A stretch cut out, or copied elsewhere."""
    a, b, c = sorted(rng.randrange(len(data) + 1) for _ in range(3))
    return rng.choice([data[:a] + data[b:], data[:c] + data[a:b] + data[c:]])


class Global:
    """Unpickled, it calls a function that leaves a file behind."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def another(data: bytes, rng: Random) -> bytes:
    """The file of another program in its place."""
    return rng.choice(
        [
            b"",
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(40),
            b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 4\n",
            b"<!DOCTYPE html><html><title>404</title></html>",
            gzip.compress(data, mtime=0),
            b"\x7fELF" + bytes(60),
            b"PK\x03\x04" + bytes(60),
            b"[]",
            bytes(1000),
            rng.randbytes(1000),
            pickle.dumps(Global("ran")),
        ]
    )


# The file's place


def _instead(make: Callable[[Path], Any]) -> Callable[[Path, Random], None]:
    def change(path: Path, rng: Random) -> None:
        path.unlink()
        make(path)

    return change


def _outside(path: Path, rng: Random) -> None:
    """A link out of the folder, to what must stay as it is."""
    path.unlink()
    path.symlink_to(os.environ["HOSTILE_OUTSIDE"] + rng.choice(["/secret.txt", "", "/absent"]))


def _odd_neighbour(path: Path, rng: Random) -> None:
    """A file with an odd name beside it."""
    suffix = os.fsencode(path.suffix)
    names = [
        b"\xff\xfe",
        b"a\x1b[31m",
        b"a\nb",
        b"=cmd()",
        b"[red]",
        b"x" * max(1, 255 - len(suffix)),
        b"9" * 8,
    ]
    name = rng.choice(names) + suffix
    Path(os.fsdecode(os.path.join(os.fsencode(path.parent), name))).write_bytes(path.read_bytes())


PLACES: dict[str, Callable[[Path, Random], None]] = {
    "missing": _instead(lambda path: None),
    "folder": _instead(Path.mkdir),
    "pipe": _instead(os.mkfifo),
    "endless": _instead(lambda path: path.symlink_to("/dev/zero")),
    "loop": _instead(lambda path: path.symlink_to(path.name)),
    "outside": _outside,
    "odd_neighbour": _odd_neighbour,
}
BYTES: list[Mutator] = [truncated, zeroed, flipped, longer, moved, another]
JSON: list[Mutator] = [json_value, json_value, json_value, json_value, json_odd, writing]
TEXT: list[Mutator] = [rows, cells, cells, writing]
