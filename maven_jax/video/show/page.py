"""One prediction as one HTML page: a file that needs nothing else, neither server nor network."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import string
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from maven_jax.files import write_file
from maven_jax.video.prediction import VideoPrediction
from maven_jax.video.show import embed, look

# In this order: each uses what those before it define.
_SCRIPTS = ("data.js", "stage.js", "curves.js", "circle.js", "texts.js", "downloads.js", "page.js")


def write_page(prediction: VideoPrediction, path: Path, media: Path) -> None:
    """Writes the page: video or thumbnails, curves with a playhead, circle, words, contributions.

    Everything is inside the file, including every frame's values. A video or sound that browsers
    play and that is small enough (`embed.EMBEDDED_BYTES`) is embedded as it is; any other video as
    thumbnails. One that is only too large plays once the reader gives the page the file. The page's
    content security policy forbids all scripts but its own and all requests; names, words and notes
    reach it as data only.

    Args:
        prediction: of one face of one video.
        path: HTML file to write, whole or not at all; its folder is made.
        media: the video, the sound or the folder of crops that was predicted.

    Raises:
        UserError: the media file cannot be read.
    """
    seen = embed.embeddable(media, prediction)
    style, script = _template("page.css"), "\n".join(map(_template, _SCRIPTS))
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "img-src data:; media-src blob:; base-uri 'none'; form-action 'none'"
    )
    banner, kind = prediction.caution, "banner weak" if prediction.published else "banner"
    page = string.Template(_template("page.html")).substitute(
        policy=policy,
        style=style,
        script=script,
        title=html.escape(prediction.title),
        banner=f'<p class="{kind}" role="alert">{html.escape(banner)}</p>' if banner else "",
        prediction=_as_data(_values(prediction, seen)),
        media=base64.b64encode(seen.content).decode(),
    )
    # File names that are not valid Unicode are shown with question marks.
    write_file(Path(path), page.encode(errors="replace"))


def _template(name: str) -> str:
    return (resources.files("maven_jax.video.show") / "web" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _as_data(value: Any) -> str:
    """JSON for a script element: nothing in it ends the element or begins a tag."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _packed(values: np.ndarray, dtype: str = "<f4") -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()


def _values(prediction: VideoPrediction, seen: embed.Embedded) -> dict[str, Any]:
    """What data.js reads: arrays as base64 of their bytes, spans and words as lists of seconds."""
    time_s = prediction.time_s
    ends = look.frame_ends(time_s)
    observed = {m: mask for m, mask in prediction.observed.items() if mask.any()}
    added = prediction.contributions or {}
    word, bold = prediction.bold
    return {
        "time": _packed(time_s, "<f8"),
        "end": float(ends[-1]) if len(ends) else 0.0,
        "va": _packed(prediction.va),
        "bold": None if bold is prediction.va else [word, _packed(bold)],
        "extra": [
            [column, _packed(values), curves.target.kind == "continuous"]
            for curves in prediction.extra.values()
            for column, values in zip(curves.target.columns, curves.values.T)
        ],
        "boxes": _packed(prediction.boxes),
        "size": list(seen.size),
        "faceless": look.spans(~prediction.face_found, time_s),
        "begin": float(time_s[0]) if len(time_s) and prediction.frame[0] else 0.0,
        "observed": {m: look.spans(mask, time_s) for m, mask in observed.items()},
        # Where it was there, but alone: there is nothing to compare with.
        "alone": {
            m: look.spans(observed[m] & np.isnan(v[:, 0]), time_s)
            for m, v in added.items()
            if m in observed
        },
        "contributions": {m: _packed(v) for m, v in added.items() if m in observed},
        "words": [[w.start_s, w.end_s, w.text] for w in prediction.words],
        "concepts": look.CONCEPTS,
        "summary": _summary(prediction),
        "stem": prediction.stem,
        "label": prediction.label,
        "notes": [*prediction.origins, *prediction.notes],
        "media": {
            "kind": seen.kind,
            "mime": seen.mime,
            "embedded": bool(seen.content),
            "name": prediction.source.name,
        },
        "thumbnails": [[t, base64.b64encode(jpeg).decode()] for t, jpeg in seen.thumbnails],
    }


def _summary(prediction: VideoPrediction) -> list[tuple[str, str]]:
    """(name, value) of the line below the title."""
    statistics = prediction.statistics()
    shown = [("frames", f"{len(prediction):,}")]
    if len(prediction):
        shown.append(("with a face", f"{prediction.face_found.mean():.0%}"))
    for name in ("valence", "arousal"):
        if v := statistics[name]:
            ends = v["mean_interval"]
            sure = "" if ends is None else f", 95%: {ends[0]:+.2f} to {ends[1]:+.2f}"
            shown.append((f"mean {name}", f"{v['mean']:+.2f}{sure}"))
            shown.append((f"{name} from", f"{v['min']:+.2f} to {v['max']:+.2f}"))
    shown = [(name, value.replace("-", "−")) for name, value in shown]
    return shown + [(name, curves.in_words()) for name, curves in prediction.extra.items()]
