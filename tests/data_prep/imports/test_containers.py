"""Feature tables in Parquet, ARFF and .mat: read as those of text are, and a pickle never."""

from __future__ import annotations

import pickle

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io

from data_prep.imports.files import Reading, find_features, read_features
from maven_jax.errors import UserError

VALUES = np.array([[0.5, 1.0], [0.25, 2.0], [0.125, 3.0]])
TIMES = [0.0, 0.5, 1.0]


def parquet(path):
    frame = pd.DataFrame(VALUES, columns=["AU01_r", "AU02_r"])
    frame.insert(0, "timestamp", TIMES)
    frame.to_parquet(path)


def parquet_of_opensmile(path):
    starts = pd.to_timedelta([0.0, 0.4, 0.9], unit="s")
    index = [["a.wav"] * 3, starts, starts + pd.to_timedelta([0.0, 0.2, 0.2], unit="s")]
    levels = pd.MultiIndex.from_arrays(index, names=["file", "start", "end"])
    pd.DataFrame(VALUES, index=levels, columns=["AU01_r", "AU02_r"]).to_parquet(path)


def arff(path):
    rows = "".join(f"'a b',{t},{x},{y},?\n" for t, (x, y) in zip(TIMES, VALUES))
    path.write_text(
        "% openSMILE\n@relation SMILEfeatures\n\n@attribute name string\n"
        "@attribute frameTime numeric\n@attribute AU01_r numeric\n@attribute 'AU02_r' real\n"
        f"@attribute class numeric\n\n@data\n\n{rows}"
    )


def mat(path):
    names = np.array(["AU01_r", "AU02_r"], dtype=object)
    scipy.io.savemat(path, {"features": VALUES, "time": np.array(TIMES), "columns": names, "fs": 2})


def mat_of_matlab_7_3(path):
    with h5py.File(path, "w", userblock_size=512) as file:
        file["time"] = np.array([TIMES])
        file["AU01_r"], file["AU02_r"] = VALUES[:, :1].T, VALUES[:, 1:].T
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/x")
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")


@pytest.mark.parametrize(
    ("write", "suffix"),
    [
        (parquet, ".parquet"),
        (parquet_of_opensmile, ".parquet"),
        (arff, ".arff"),
        (mat, ".mat"),
        (mat_of_matlab_7_3, ".mat"),
    ],
)
def test_columns_are_told_by_their_names(tmp_path, write, suffix):
    path = tmp_path / f"v{suffix}"
    write(path)
    table = read_features(path, Reading())
    order = ("AU01_r", "AU02_r")
    assert sorted(table.columns.feature_names) == list(order)
    rows = table.ordered(order)
    np.testing.assert_allclose(rows.values, VALUES)
    assert rows.time_s is not None
    np.testing.assert_allclose(rows.time_s, TIMES)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.parquet", b"PAR1 and more", r"v.parquet: not a readable .parquet file"),
        ("v.mat", b"MATLAB 5.0 MAT-file" + bytes(200), r"v.mat: n"),
        ("v.arff", b"@relation x\n@attribute a numeric\n", "v.arff: no @data"),
        ("v.arff", b"@attribute a real\n@data\n1,2\n", "line 3: 2 columns instead of 1"),
        ("v.arff", b"@attribute a real\n@data\nx\n", "line 1: not numbers|line 3: not numbers"),
    ],
)
def test_faults_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_features(tmp_path / name, Reading())


def test_a_pickle_is_not_opened(tmp_path):
    folder = tmp_path / "f" / "face"
    folder.mkdir(parents=True)
    (folder / "v.pkl").write_bytes(pickle.dumps(VALUES))
    with pytest.raises(
        UserError, match=r"1 .pkl file; a pickle can run code .*read_pickle\(FILE\)"
    ):
        find_features(tmp_path / "f")
