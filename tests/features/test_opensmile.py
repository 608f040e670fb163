"""openSMILE's descriptors at the frames' times, where the extra is installed."""

import numpy as np
import pytest

from maven_jax.errors import UserError
from maven_jax.features.device import Clock
from maven_jax.features.opensmile import OpenSmile
from tests.features.test_parity import Samples

pytest.importorskip("opensmile")


def test_descriptors_lie_where_the_sound_is():
    encoder = OpenSmile(feature_set="eGeMAPSv02")
    names = encoder.spec["preprocessing"]["channels"]
    assert (encoder.dim, len(names)) == (25, 25)
    samples = np.zeros(32_000, np.float32)
    samples[16_000:] = 0.3 * np.sin(np.arange(16_000) * 0.2)
    sound = Samples(samples)
    sound.start_s = 0.5
    times = np.arange(250) / 100
    values, mask = encoder.stream(sound, times, Clock()).at(times)
    loudness = values[:, names.index("Loudness_sma3")]
    loud = np.flatnonzero(loudness > loudness.max() / 2)
    assert abs(times[loud[0]] - 1.5) <= 0.02
    assert not mask[times < 0.45].any()
    assert mask[(times > 0.55) & (times < 2.4)].all()
    with pytest.raises(UserError, match="feature_set 'egemaps': expected one of ComParE_2016"):
        OpenSmile(feature_set="egemaps")
