"""Several media in one call: which transcript is whose, and what an earlier call has done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maven_jax.errors import UserError, listing
from maven_jax.media.transcripts import TRANSCRIPT_SUFFIXES, named_transcript
from maven_jax.outputs import fingerprint


def transcript_of(media: Path, given: Path | None) -> Path | None:
    """The transcript of a medium: the file that was given, or the one of its name in a folder.

    `clip.srt` belongs to `clip.mp4`, and so does `clip.en.vtt` (as yt-dlp writes it) if it is the
    only one of its kind.

    Args:
        media: a video, a sound or a folder of crops.
        given: a file, a folder, or None.

    Raises:
        UserError: there are several, none of them the plain `clip.…`.
    """
    if given is None or not given.is_dir():
        return given
    stem = media.name if media.is_dir() else media.stem
    if (plain := named_transcript(given, stem)) is not None:
        return plain
    files = sorted(p for p in given.iterdir() if p.name.startswith(f"{stem}.") and p.is_file())
    others = [p for p in files if p.suffix.lower() in TRANSCRIPT_SUFFIXES]
    if len(others) > 1:
        names = listing([p.name for p in others])
        raise UserError(f"{given}: several transcripts of {stem}: {names}; name one {stem}.srt")
    return others[0] if others else None


def call_digest(options: Mapping[str, Any], *inputs: Path | None) -> str:
    """What tells whether another call would write the same: the options, and the files it reads."""
    digest = hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode())
    for path in inputs:
        known = path is not None and path.exists()
        digest.update(f"\0{fingerprint(path) if path is not None and known else path}".encode())
    return digest.hexdigest()
