"""Feature tables as OpenFace, openSMILE, py-feat and others write them, in small."""

import numpy as np
import pytest

from data_prep.imports.files import Reading, read_features
from maven_jax.errors import UserError

OPENFACE = """frame, face_id, timestamp, confidence, success, gaze_0_x, AU01_r
1, 0, 0.000, 0.98, 1, 0.1, 1.5
2, 0, 0.033, 0.20, 0, 0.0, 0.0
3, 0, 0.067, 0.97, 1, 0.3, 2.5
"""
OPENFACE_1 = """frame,timestamp,confidence,success,gaze_0_x,AU01_r
1,0.000,0.98,1,0.1,1.5
2,0.033,0.20,0,0.0,0.0
3,0.067,0.97,1,0.3,2.5
"""
SMILE = "name;frameTime;Loudness_sma3;F0\n'unknown';0.0;0.5;1\n'unknown';0.01;0.6;2\n"
SMILE_PANDAS = """file,start,end,Loudness_sma3,F0
a.wav,0 days,0 days 00:00:00.020000,0.5,1
a.wav,0 days 00:00:00.010000,0 days 00:00:00.030000,0.6,2
""".replace("0 days,", "0 days 00:00:00,")
PY_FEAT = """,FaceRectX,FaceScore,AU01,happiness,input,frame,approx_time
0,5.0,0.99,0.25,0.5,clip.mp4,0,00:00
1,,,,,clip.mp4,2,00:00
2,6.0,0.98,0.75,0.5,clip.mp4,4,00:00
"""
MEDIAPIPE = "frame,timestamp_ms,mouthSmileLeft\n0,0,0.1\n1,33,0.2\n"
MUSE = "timestamp,segment_id,0,1\n0,1,0.5,1\n250,1,0.6,2\n"


def read(tmp_path, text, **reading):
    path = tmp_path / "face" / "a.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return read_features(path, Reading(**reading))


@pytest.mark.parametrize(
    ("text", "program", "names", "time_s"),
    [
        (OPENFACE, "OpenFace", ("gaze_0_x", "AU01_r"), [0, 0.033, 0.067]),
        (OPENFACE_1, "OpenFace", ("gaze_0_x", "AU01_r"), [0, 0.033, 0.067]),
        (SMILE, "openSMILE", ("Loudness_sma3", "F0"), [0, 0.01]),
        (SMILE_PANDAS, "openSMILE", ("Loudness_sma3", "F0"), [0.01, 0.02]),
        (MEDIAPIPE, "", ("mouthSmileLeft",), [0, 0.033]),
        (MUSE, "MuSe", ("0", "1"), [0, 0.25]),
        (",time,a\n0,0.5,1\n1,1.5,2\n", "", ("a",), [0.5, 1.5]),
        ("Time\ta\n0,5\t1,25\n1,5\t2\n", "", ("a",), [0.5, 1.5]),
    ],
)
def test_times_and_features_are_told_by_the_names(tmp_path, text, program, names, time_s):
    table = read(tmp_path, text)
    assert (table.columns.program, table.columns.feature_names) == (program, names)
    assert not table.rows.in_frames
    np.testing.assert_allclose(table.rows.time_s, time_s)


def test_rows_that_a_tracker_was_not_sure_of_are_not_observed(tmp_path):
    for text in (OPENFACE, OPENFACE_1):
        assert np.isnan(read(tmp_path, text).rows.values).all(axis=1).tolist() == [0, 1, 0]


def test_rows_with_numbers_of_frames_belong_to_these(tmp_path):
    rows = read(tmp_path, PY_FEAT).rows
    assert (rows.time_s.tolist(), rows.in_frames) == ([0, 2, 4], True)
    values, mask = rows.at(slice(3, 6), np.array([0.3, 0.4, 0.5]))
    assert mask.tolist() == [True, True, False]
    assert np.isnan(values[0]).all()
    assert values[1].tolist() == [6.0, 0.75, 0.5]
    assert read(tmp_path, PY_FEAT, rate=10.0).rows.time_s.tolist() == [0, 0.2, 0.4]
    assert read(tmp_path, "frame,a\n1,5\n2,6\n").rows.time_s.tolist() == [0, 1]


def test_the_functionals_of_a_clip_hold_throughout_it(tmp_path):
    text = "file,start,end,F0\na.wav,0 days 00:00:00,0 days 00:00:02,7\n"
    values, mask = read(tmp_path, text).rows.at(slice(0, 3), np.array([0.0, 1.9, 2.1]))
    assert mask.tolist() == [True, True, False]
    assert values[:2].tolist() == [[7], [7]]


def test_a_face_is_chosen_by_confidence_or_by_name(tmp_path):
    text = "frame,face_id,timestamp,confidence,success,AU01_r\n"
    text += "1,0,0.0,0.8,1,10\n1,1,0.0,0.9,1,20\n2,0,0.1,0.7,1,30\n"
    with pytest.raises(UserError, match=r"line 3: time 0 s .* keep one \(--face face=best\)"):
        read(tmp_path, text)
    assert read(tmp_path, text, face="best").rows.values[:, 0].tolist() == [20, 30]
    assert read(tmp_path, text, face="0").rows.values[:, 0].tolist() == [10, 30]
    with pytest.raises(UserError, match="--face 7: no such face; it has 0, 1"):
        read(tmp_path, text, face="7")


def test_columns_are_chosen_by_a_regular_expression(tmp_path):
    assert read(tmp_path, OPENFACE, columns="AU.*_r").columns.feature_names == ("AU01_r",)
    with pytest.raises(UserError, match=r"line 1: --columns pose\.\*: fits no feature"):
        read(tmp_path, OPENFACE, columns="pose.*")


def test_milliseconds_are_suspected(tmp_path):
    text = "time,a\n" + "".join(f"{1000 * i},{i}\n" for i in range(11))
    frames_s = np.arange(0, 10.5, 0.5)
    rows = read(tmp_path, text).rows
    with pytest.raises(UserError, match=r"milliseconds \(--time-unit face=ms\)"):
        rows.compare_extent(tmp_path / "face" / "a.csv", frames_s)
    assert read(tmp_path, text, unit="ms").rows.compare_extent(tmp_path, frames_s) == ""
