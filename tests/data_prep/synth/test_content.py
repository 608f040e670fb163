"""What is planted: curves with the right moments, cues that can be read, irony."""

import subprocess
import sys

import numpy as np
import pytest

from data_prep.synth.curves import draw_feeling, generator, irony_curve, smooth_noise
from data_prep.synth.face import Expression, draw_looks, draw_person, make_pose
from data_prep.synth.plan import plan_corpus, split_sizes
from data_prep.synth.scene import direct
from data_prep.synth.voice import draw_timbre, voice_controls
from data_prep.synth.words import IRONY, LEXICON, NEGATIVE, POSITIVE, choose_word


def ccc(x, y):
    """Concordance correlation coefficient by its definition."""
    cov = np.mean((x - x.mean()) * (y - y.mean()))
    return 2 * cov / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def test_curves_have_the_skew_of_aff_wild2():
    feelings = [draw_feeling(generator(0, "skew", i), 60) for i in range(40)]
    for name, mean, std in (("valence", 0.2, 0.35), ("arousal", 0.2, 0.25)):
        values = np.concatenate([getattr(f, name) for f in feelings])
        assert abs(values.mean() - mean) < 0.05
        assert abs(values.std() - std) < 0.05
        assert np.abs(values).max() <= 1
        assert np.abs(np.diff(values.reshape(40, -1), axis=1)).max() < 0.05  # smooth


def test_smooth_noise_has_unit_variance_and_its_width():
    noise = smooth_noise(np.random.default_rng(0), 100_000, 0.5)
    assert abs(noise.std() - 1) < 0.1
    lag = 50  # ticks: one width
    correlation = np.corrcoef(noise[:-lag], noise[lag:])[0, 1]
    assert correlation == pytest.approx(np.exp(-0.25), abs=0.05)  # of a Gaussian kernel


def test_irony_curve_is_one_inside_only():
    time_s = np.arange(0, 10, 0.01)
    curve = irony_curve(time_s, [(2.0, 4.0)])
    assert curve.shape == time_s.shape
    assert np.all(curve[(time_s > 2.15) & (time_s < 3.85)] == pytest.approx(1))
    assert np.all(np.abs(curve[(time_s < 1.85) | (time_s > 4.15)]) < 1e-9)


def test_splits_have_their_shares():
    assert split_sizes(24) == {"train": 14, "validation": 6, "test": 4}
    for videos in range(1, 60):
        sizes = split_sizes(videos)
        assert sum(sizes.values()) == videos
        assert sizes["train"] >= 1
        assert (sizes["test"] > 0) == (videos >= 8)
        planned = plan_corpus(videos, videos)
        for split, size in sizes.items():
            assert sum(len(m.cast) for m in planned if m.split == split) == size
        assert len({m.stem for m in planned}) == len(planned)


def test_irony_takes_about_a_fifth_and_reverses_the_face():
    shares, plain, ironic = [], [], []
    for media in plan_corpus(24, 5):
        scene = direct(media, 40, 5)
        actor, time_s = scene.actors[0], np.arange(1, 39, 0.1)
        irony = scene.irony_at(time_s)
        shares.append(irony.mean())
        pair = np.stack([actor.feeling.at(time_s)[:, 0], actor.face.at(time_s)[:, 0]])
        plain.append(pair[:, irony == 0])
        ironic.append(pair[:, irony > 0.99])
    assert 0.13 < np.mean(shares) < 0.27
    assert np.corrcoef(np.concatenate(plain, axis=1))[0, 1] > 0.7
    assert np.corrcoef(np.concatenate(ironic, axis=1))[0, 1] < -0.7


def test_modalities_lag_by_different_delays():
    for media in plan_corpus(6, 1):
        for actor in direct(media, 5, 1).actors:
            assert 0.02 < actor.face.delay_s < actor.voice.delay_s + 1e-9 < 0.26
            assert 0.19 < actor.words.delay_s < 0.41


def test_a_smile_changes_the_mouth_and_a_pose_moves_the_face():
    looks = draw_looks(np.random.default_rng(0))

    def picture(smile, x=80.0):
        image = np.full((160, 160, 3), 90, np.uint8)
        face = Expression(smile, 0.2, smile, 0.7, (0.0, 0.0), (0.0, 0.0))
        draw_person(image, looks, make_pose((x, 70.0), 1.0, 0.0), face)
        return image.astype(int)

    difference = np.abs(picture(0.8) - picture(-0.8)).sum(axis=2)
    mouth, hair = difference[86:106, 58:102], difference[22:32, 58:102]
    assert mouth.mean() > 50
    assert hair.mean() == 0
    # Ten pixels to the right; rounding may differ by one level.
    np.testing.assert_allclose(picture(0.3, 90.0)[:, 20:], picture(0.3)[:, 10:-10], atol=1)


def test_arousal_raises_pitch_loudness_and_brightness():
    actor = direct(plan_corpus(1, 0)[0], 20, 0).actors[0]
    time_s = np.arange(0, 20, 0.005)
    timbre = draw_timbre(np.random.default_rng(0))
    controls = voice_controls(timbre, actor.voice, np.ones(time_s.size), time_s)
    arousal = actor.voice.at(time_s)[:, 1]
    order = np.arange(1, controls.amplitude.shape[1] + 1)
    level = controls.amplitude.sum(axis=1)
    brightness = (controls.amplitude * order).sum(axis=1) / level
    assert np.corrcoef(np.log(controls.pitch_hz), arousal)[0, 1] > 0.99
    assert np.corrcoef(brightness, arousal)[0, 1] > 0.8
    assert np.corrcoef(np.log(level), arousal)[0, 1] > 0.6


def test_words_follow_valence():
    rng, scores = np.random.default_rng(0), POSITIVE | NEGATIVE
    means = []
    for valence in (-0.6, 0.0, 0.6):
        words = [choose_word(rng, valence) for _ in range(500)]
        assert set(words) <= set(LEXICON)
        means.append(np.mean([scores[w] for w in words if w in scores]))
    assert means[0] + 0.3 < means[1] < means[2] - 0.3


def test_no_modality_suffices_and_fusing_helps():
    """Linear probes on what the modalities show; the product of face and irony is the fusion."""
    scores = POSITIVE | NEGATIVE
    train, validation = [], []
    for media in plan_corpus(48, 0):
        if media.split == "test":
            continue
        scene = direct(media, 40, 0)
        time_s = np.arange(0.5, 39.5, 0.2)
        words = [w for u in scene.utterances for w in u.words]
        near = np.array([[abs(w.start_s - t) < 1.5 for w in words] for t in time_s])
        scored = np.array([w.text in scores for w in words])
        score = near @ np.array([scores.get(w.text, 0.0) for w in words])
        score = score / np.maximum((near & scored).sum(axis=1), 1)
        now = np.array([any(u.start_s <= t < u.end_s + 0.2 and set(u.text.split()) & set(IRONY)
                            for u in scene.utterances) for t in time_s])  # fmt: skip
        actor = scene.actors[0]
        face, voice = actor.face.at(time_s), actor.voice.at(time_s)
        text = np.stack([score, now], axis=1)
        cues = {"face": face, "voice": voice, "words": text}
        cues["all"] = np.concatenate([face, voice, text, face * now[:, None]], axis=1)
        (train if media.split == "train" else validation).append((cues, actor.feeling.at(time_s)))

    def probe(name):
        def table(videos):
            x = np.concatenate([cues[name] for cues, _ in videos])
            return np.c_[x, np.ones(len(x))], np.concatenate([y for _, y in videos])

        (x, y), (x_validation, y_validation) = table(train), table(validation)
        predicted = x_validation @ np.linalg.lstsq(x, y, rcond=None)[0]
        return np.mean([ccc(predicted[:, k], y_validation[:, k]) for k in (0, 1)])

    result = {name: probe(name) for name in ("face", "voice", "words", "all")}
    fused = result.pop("all")
    assert fused > 0.72
    assert max(result.values()) < fused - 0.15, (result, fused)


def test_writing_a_corpus_does_not_import_jax():
    code = "import sys, data_prep.synth.command; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
