"""Corpus to store with the encoders of RJCA and RJCMA, and with none: the small variants."""

import hashlib

import numpy as np
import pytest

from data_prep import prepare
from data_prep.corpus.check import check
from data_prep.corpus.layout import scan
from maven_jax import recipes
from maven_jax.__main__ import main
from maven_jax.errors import UserError
from maven_jax.features.reader import KINDS
from maven_jax.store.reader import Store
from tests.support import corpora

FRAMES = 30
DIMS = {
    "rjcma": {"visual": 64, "audio": 64, "text": 64},
    "rjca": {"visual": 16 * 64, "audio": 64},
    "raw": {"visual": 24 * 24 * 3, "audio": 32 * 64, "text": 64},
}
CHUNK_FRAMES = {"rjcma": 100, "rjca": 1, "raw": 50}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three videos of 30 frames; `mute` has neither sound nor transcript."""
    root = corpora.write_tiny_corpus(
        tmp_path_factory.mktemp("corpus"),
        {"plain": "train", "loud_left": "train", "mute": "validation"},
        seconds=FRAMES / 25,
        missing_crops=(0, 3, 4, 29),
    )
    (video,) = (root / "videos").glob("*/mute.mp4")
    corpora.write_video(video, frames=FRAMES, fps=25)
    (root / "audio" / "mute.wav").unlink()
    (root / "transcripts" / "mute.txt").unlink()
    return root


def by_name(store):
    """Video → all its frames."""
    return {v.video: store.read(v, 0, v.num_frames) for s in store.splits for v in store.videos(s)}


@pytest.fixture(scope="module")
def stores(root, tmp_path_factory):
    """Recipe → store, made when it is first asked for."""
    made = {}

    def get(name):
        if name not in made:
            config = recipes.load(f"{name}:tiny", group="encoders")
            for section in ("visual", "audio"):
                if "batch_size" in config[section]:  # one program each: compiling takes longest
                    config[section].update({"batch_size": 16, "batch_buckets": 1})
            out = tmp_path_factory.mktemp(name) / "store"
            made[name] = prepare.prepare(root, out, config, workers=1)
        return made[name]

    return get


@pytest.mark.parametrize("name", list(DIMS))
def test_every_frame_has_its_features(name, root, stores):
    store = stores(name)
    assert {n: m.dim for n, m in store.modalities.items()} == DIMS[name]
    assert store.chunk_frames == CHUNK_FRAMES[name]
    recipe = recipes.load(f"{name}:tiny", group="encoders")
    for modality, about in store.modalities.items():
        assert about.spec["preprocessing"]
        assert len(about.spec["sha256"]) == 64
        assert about.spec["untrained"] == ("source" in recipe[modality])
        assert about.dtype == ("uint8" if recipe[modality].kind == "crops" else "float16")
        assert store.provenance["encoders"][modality]["kind"] == recipe[modality].kind
        assert recipe[modality].kind in KINDS[modality]
    checks = {c.video.name: c for c in check(scan(root)).checks}
    frames = by_name(store)
    assert set(frames) == {"plain", "loud_left", "mute"}
    for video, found in frames.items():
        assert len(found) == FRAMES
        np.testing.assert_array_equal(found.time_s, checks[video].times_s)
        for modality, values in found.features.items():
            mask = found.masks[modality]
            assert np.isfinite(values).all()
            assert (values[~mask] == 0).all()
            if modality != "text" and mask.any():
                assert values[mask].astype(np.float32).std(0).max() > 1e-3, modality


@pytest.mark.parametrize("name", list(DIMS))
def test_masks_lack_exactly_what_was_not_observed(name, stores):
    for video, found in by_name(stores(name)).items():
        assert np.flatnonzero(~found.masks["visual"]).tolist() == [0, 3, 4, 29]
        heard = video != "mute"
        # A compressed sound may end a few milliseconds ahead of the last frame.
        assert (found.masks["audio"][:-1] == heard).all()
        if "text" not in found.masks:
            continue
        spoken = found.time_s < 0.9
        np.testing.assert_array_equal(found.masks["text"], spoken & heard)
        np.testing.assert_array_equal(found.segment_id, np.where(spoken & heard, 0, -1))


def test_words_are_held_while_they_are_spoken(stores):
    """`words at 0`, spread over 0.9 s by length: changes at 5/8 and 7/8 of it, none between."""
    found = by_name(stores("rjcma"))["plain"]
    values = found.features["text"][found.masks["text"]].astype(np.float32)
    change = np.flatnonzero(np.abs(np.diff(values, axis=0)).max(1) > 0) + 1
    expected = np.searchsorted(found.time_s, np.array([5 / 8, 7 / 8]) * 0.9)
    np.testing.assert_array_equal(change, expected)


def test_crops_are_stored_as_they_are(root, stores):
    found = by_name(stores("raw"))["plain"]
    assert found.features["visual"].dtype == np.uint8
    for frame in (1, 2, 28):  # a crop's grey is twice its number
        grey = found.features["visual"][frame]
        assert abs(int(np.median(grey)) - 2 * frame) <= 1
        assert np.ptp(grey) <= 2


def files(folder):
    """Relative path → sha256 of every file."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_parts_of_a_store_give_the_bytes_of_one_run(root, tmp_path):
    argv = ["prepare", "--root", str(root), "--encoders", "raw:tiny"]
    argv += ["--modalities", "visual,audio", "--workers", "1", "--out"]
    assert main([*argv, str(tmp_path / "parts"), "--part", "2/2"]) == 0
    with pytest.raises(UserError, match="not finished"):
        Store(tmp_path / "parts")
    assert main([*argv, str(tmp_path / "parts")]) == 0
    assert main([*argv, str(tmp_path / "whole")]) == 0
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--encoders", "rjca", "--modalities", "visual,text"], "no section 'text'"),
        (["--encoders", "rjca"], "weights/tsav/visual: no such folder; `maven-jax convert`"),
        (["--encoders", "rjca:small"], "tiny"),
        (["--encoders", "rjcma:tiny", "--encoders.audio.align=middle"], "align 'middle'"),
        (["--encoders", "rjcma:tiny", "--encoders.visual.crop=50"], "crop 50 exceeds resize 48"),
        (["--encoders", "rjca:tiny", "--encoders.chunk_frames=0"], "chunk_frames 0"),
        (["--encoders", "rjca:tiny", "--encoders.visual.resize=50"], "'resize'"),
    ],
)
def test_mistakes_end_in_one_line(arguments, says, root, tmp_path, capsys):
    argv = ["prepare", "--root", str(root), "--out", str(tmp_path / "store"), *arguments]
    assert main([*argv, "--workers", "1"]) == 2
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1
    assert says in said
    assert not (tmp_path / "store").exists()
