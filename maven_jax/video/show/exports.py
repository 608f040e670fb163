"""A prediction for annotation programs: ELAN's .eaf, Praat's .TextGrid, a project of BORIS.

Curves become the mean of each second of what pictures show in bold: these programs hold intervals
and events, not curves. Words keep their times, each up to the next one.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from maven_jax.errors import printable
from maven_jax.files import write_file
from maven_jax.types import DIMENSIONS
from maven_jax.video.prediction import VideoPrediction

_STEP_S = 1.0
# Start, end (seconds, to the millisecond) and text.
Interval = tuple[float, float, str]
# What XML 1.0 cannot hold, which includes the halves of a broken name.
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SOUNDS = (".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".wma", ".aiff", ".aif")
# Of ELAN's files: readers refuse documents that do not name it.
_SCHEMA = {
    "{http://www.w3.org/2001/XMLSchema-instance}noNamespaceSchemaLocation": (
        "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
    ),
    "AUTHOR": "maven_jax",
    "FORMAT": "3.0",
    "VERSION": "3.0",
}
_FACE, _WORD = "face seen", "word"


def _bounds(prediction: VideoPrediction) -> tuple[float, float]:
    """When the first frame begins and the last one ends."""
    time_s = prediction.time_s
    if not len(time_s):
        return 0.0, _STEP_S
    last = np.median(np.diff(time_s)) if len(time_s) > 1 else 1 / 30
    return round(float(time_s[0]), 3), round(float(time_s[-1] + last), 3)


def _means(
    prediction: VideoPrediction, values: np.ndarray
) -> Iterator[tuple[float, float, np.ndarray]]:
    """Start, end and mean (k,) of each second that has values (n, k), on the clock of the video."""
    begin, end = _bounds(prediction)
    second = np.floor(prediction.time_s / _STEP_S).astype(int)
    known = np.isfinite(values).all(axis=1)
    for k in np.unique(second[known]).tolist():
        rows = known & (second == k)
        yield (
            max(round(k * _STEP_S, 3), begin),
            min(round((k + 1) * _STEP_S, 3), end),
            values[rows].astype(np.float64).mean(axis=0),
        )


def _words(prediction: VideoPrediction) -> list[Interval]:
    begin, end = _bounds(prediction)
    words = sorted(prediction.words, key=lambda word: word.start_s)
    starts = [*(word.start_s for word in words), end]
    spans = [
        (max(round(w.start_s, 3), begin), round(min(w.end_s, behind, end), 3), w.text)
        for w, behind in zip(words, starts[1:])
    ]
    return [span for span in spans if span[1] > span[0]]


def _tiers(prediction: VideoPrediction) -> dict[str, list[Interval]]:
    """Name -> intervals in order, none over another."""
    means = list(_means(prediction, prediction.bold[1]))
    tiers = {
        name: [(a, b, f"{v[column]:+.2f}") for a, b, v in means if b > a]
        for column, name in enumerate(DIMENSIONS)
    }
    for name, curves in prediction.extra.items():
        seconds = _means(prediction, curves.values)
        tiers[printable(name)] = [(a, b, curves.shown(v)) for a, b, v in seconds if b > a]
    if prediction.words:
        tiers["words"] = _words(prediction)
    if prediction.label:
        tiers["note"] = [(*_bounds(prediction), prediction.label)]
    return tiers


def write_elan(prediction: VideoPrediction, path: Path) -> None:
    """Writes an .eaf of format 3.0, linked to the video."""
    source = prediction.source.resolve()
    root = ElementTree.Element("ANNOTATION_DOCUMENT", _SCHEMA, DATE=_date(source))
    header = ElementTree.SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    if not source.is_dir():
        kind = "audio/x-wav" if source.suffix.lower() == ".wav" else "video/mp4"
        url = _xml(source.as_uri())
        ElementTree.SubElement(header, "MEDIA_DESCRIPTOR", MEDIA_URL=url, MIME_TYPE=kind)
    order, count = ElementTree.SubElement(root, "TIME_ORDER"), 0
    for name, intervals in _tiers(prediction).items():
        tier = ElementTree.SubElement(root, "TIER", TIER_ID=name, LINGUISTIC_TYPE_REF="default")
        for start_s, end_s, text in intervals:
            count += 1
            slots = [f"ts{2 * count - 1}", f"ts{2 * count}"]
            for slot, time_s in zip(slots, (start_s, end_s)):
                value = str(round(1000 * time_s))
                ElementTree.SubElement(order, "TIME_SLOT", TIME_SLOT_ID=slot, TIME_VALUE=value)
            annotation = ElementTree.SubElement(
                ElementTree.SubElement(tier, "ANNOTATION"),
                "ALIGNABLE_ANNOTATION",
                ANNOTATION_ID=f"a{count}",
                TIME_SLOT_REF1=slots[0],
                TIME_SLOT_REF2=slots[1],
            )
            ElementTree.SubElement(annotation, "ANNOTATION_VALUE").text = _xml(text)
    last = ElementTree.SubElement(header, "PROPERTY", NAME="lastUsedAnnotationId")
    last.text = str(count)
    ElementTree.SubElement(
        root,
        "LINGUISTIC_TYPE",
        LINGUISTIC_TYPE_ID="default",
        TIME_ALIGNABLE="true",
        GRAPHIC_REFERENCES="false",
    )
    ElementTree.indent(root)
    write_file(path, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _xml(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)


def _date(source: Path) -> str:
    """When the media file was written: equal predictions give equal files."""
    at = source.stat().st_mtime if source.exists() else 0.0
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="seconds")


def write_textgrid(prediction: VideoPrediction, path: Path) -> None:
    """Writes a TextGrid in Praat's long form; empty intervals fill what lies between."""
    begin, end = _bounds(prediction)
    begin = min(begin, 0.0)
    tiers = _tiers(prediction)
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', ""]
    lines += [f"xmin = {begin:g}", f"xmax = {end:.3f}", "tiers? <exists>", f"size = {len(tiers)}"]
    lines.append("item []:")
    for number, (name, intervals) in enumerate(tiers.items(), 1):
        whole = _gapless(intervals, begin, end)
        lines += [
            f"    item [{number}]:",
            '        class = "IntervalTier"',
            f'        name = "{name}"',
            f"        xmin = {begin:g}",
            f"        xmax = {end:.3f}",
            f"        intervals: size = {len(whole)}",
        ]
        for i, (start_s, end_s, text) in enumerate(whole, 1):
            quoted = " ".join(text.split()).replace('"', '""')
            lines += [
                f"        intervals [{i}]:",
                f"            xmin = {start_s:.3f}",
                f"            xmax = {end_s:.3f}",
                f'            text = "{quoted}"',
            ]
    write_file(path, ("\n".join(lines) + "\n").encode(errors="replace"))


def _gapless(intervals: list[Interval], begin: float | int, end: float | int) -> list[Interval]:
    edges = [(begin, begin, ""), *intervals, (end, end, "")]
    whole = list[Interval]()
    for before, after in pairwise(edges):
        if after[0] > before[1]:
            whole.append((before[1], after[0], ""))
        if after[1] > after[0]:
            whole.append(after)
    return whole


def write_boris(prediction: VideoPrediction, path: Path) -> None:
    """Writes a project with one observation: the quarter of the circumplex, the face, the words."""
    source = prediction.source.resolve()
    length_s = _bounds(prediction)[1]
    name, fps = str(source).encode(errors="replace").decode(), prediction.facts.get("fps", 0.0)
    live = source.is_dir()  # pictures that no player shows
    events = sorted(_events(prediction), key=lambda event: event[0])
    observation = {
        "file": [] if live else {"1": [name]},
        "type": "LIVE" if live else "MEDIA",
        "date": _date(source)[:19],
        "description": prediction.label,
        "time offset": 0.0,
        "events": [[round(time_s, 3), "", code, "", text] for time_s, code, text in events],
        "independent_variables": {},
        "visualize_spectrogram": False,
        "close_behaviors_between_videos": False,
        "media_info": {"offset": {}}
        if live
        else {
            "length": {name: length_s},
            "fps": {name: float(fps)},
            "hasVideo": {name: source.suffix.lower() not in _SOUNDS},
            "hasAudio": {name: "audio" in prediction.observed},
            "offset": {"1": 0.0},
        },
    }
    quarters = {_quarter(v): "State event" for v in np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])}
    kinds = quarters | {_FACE: "State event", _WORD: "Point event"}
    behaviours = {
        str(i): {
            "type": kind,
            "key": str(i + 1),
            "code": code,
            "description": "",
            "category": "",
            "modifiers": {},
            "excluded": ",".join(other for other in quarters if other != code and code in quarters),
            "coding map": "",
        }
        for i, (code, kind) in enumerate(kinds.items())
    }
    project = {
        "time_format": "hh:mm:ss",
        "project_date": _date(source)[:19],
        "project_name": prediction.title,
        "project_description": prediction.label,
        "project_format_version": "7.0",
        "subjects_conf": {},
        "behaviors_conf": behaviours,
        "observations": {prediction.title: observation},
        "behavioral_categories": [],
        "independent_variables": {},
        "coding_map": {},
        "behaviors_coding_map": [],
        "converters": {},
    }
    write_file(path, (json.dumps(project, indent=1, allow_nan=False) + "\n").encode())


def _quarter(va: np.ndarray) -> str:
    return f"{'positive' if va[0] >= 0 else 'negative'} {'active' if va[1] >= 0 else 'passive'}"


def _events(prediction: VideoPrediction) -> Iterator[tuple[float, str, str]]:
    """Time, code and comment; a state has one event where it begins and one where it ends."""
    runs = list[tuple[float, float, str]]()
    for start_s, end_s, va in _means(prediction, prediction.bold[1]):
        code = _quarter(va)
        if runs and runs[-1][1:] == (start_s, code):
            runs[-1] = (runs[-1][0], end_s, code)
        else:
            runs.append((start_s, end_s, code))
    edges = np.diff(np.concatenate([[0], prediction.face_found.astype(np.int8), [0]]))
    times_s = np.append(prediction.time_s, _bounds(prediction)[1])
    faces = zip(times_s[edges == 1].tolist(), times_s[edges == -1].tolist())
    runs += [(a, b, _FACE) for a, b in faces]
    for start_s, end_s, code in runs:
        yield start_s, code, ""
        yield end_s, code, ""
    for start_s, _, text in _words(prediction):
        yield start_s, _WORD, text


# Kind: the end of its files' names, and what writes them.
WRITERS: dict[str, tuple[str, Callable[[VideoPrediction, Path], None]]] = {
    "boris": (".boris", write_boris),
    "elan": (".eaf", write_elan),
    "textgrid": (".TextGrid", write_textgrid),
}
