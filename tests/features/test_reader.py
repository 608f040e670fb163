"""What is wrong with a recording's files reaches its frames' masks and its record."""

from __future__ import annotations

import json

import numpy as np
import soundfile

from data_prep.corpus.check import check
from data_prep.corpus.layout import scan
from data_prep.encode import encode_corpus
from maven_jax.features.device import Clock
from maven_jax.features.mel import RawMel
from maven_jax.features.reader import Encoders, RecordingReader
from maven_jax.features.visual import RawCrops
from maven_jax.media.recording import Recording
from maven_jax.store.writer import PlannedVideo, StoreWriter
from tests.support.corpora import tone, write_crops, write_tiny_corpus

ENCODERS = Encoders(
    visual=RawCrops(resize=8, workers=1), audio=RawMel(columns=10, align="start"), text=None
)


def test_damaged_sound_and_crops_are_masked_and_named(tmp_path):
    samples = tone(2.0, 16000)
    samples[16000:16010] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    write_crops(tmp_path / "crops", range(50))
    (tmp_path / "crops" / "00005.jpg").write_bytes(b"\x89PNG\r\n")
    recording = Recording(
        tmp_path / "a.wav",
        np.arange(50) / 25,
        2.0,
        crops=tmp_path / "crops",
        audio=tmp_path / "a.wav",
    )
    reader = RecordingReader(recording, ENCODERS, Clock())
    # As long as there are frames: whoever predicts asks for no block behind the last one.
    frames = [next(blocks := reader.blocks())]
    while sum(map(len, frames)) < 50:
        frames.append(next(blocks))
    visual, audio = (np.concatenate([f.masks[m] for f in frames]) for m in ("visual", "audio"))
    assert np.flatnonzero(~visual).tolist() == [4]
    assert not audio[25]
    assert audio[[10, 40]].all()
    assert (~audio).sum() < 10
    crops, sound = reader.notes
    assert crops == "1 crop cannot be used (masked): 00005.jpg (not a JPEG, PNG, BMP or WebP file)"
    assert "s of the sound (first at 0.9" in sound


def test_the_store_records_what_was_odd(tmp_path):
    root = write_tiny_corpus(tmp_path / "root", {"a": "train", "b": "validation"}, seconds=1.0)
    (root / "cropped_aligned" / "a" / "00003.jpg").write_bytes(b"")
    checks = check(scan(root)).usable
    planned = [
        PlannedVideo(c.video.name, c.video.split, c.num_frames, c.video.stem) for c in checks
    ]
    writer = StoreWriter(
        tmp_path / "store", videos=planned, modalities=ENCODERS.specs(), provenance={}
    )
    assert encode_corpus(checks, ENCODERS, writer) == {}
    store = writer.finish()
    (entry,) = store.videos("train")
    assert entry.notes == [
        "cropped_aligned/a/00003.jpg: zero bytes: the frame is masked",
        "1 crop cannot be used (masked): 00003.jpg (zero bytes)",
    ]
    assert store.videos("validation")[0].notes == []
    written = json.loads((tmp_path / "store" / "store.json").read_text())
    assert written["splits"]["train"]["videos"][0]["notes"] == entry.notes
