"""Whole tracks from windows: every frame gets its own prediction, once, smoothed last."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from maven_jax.data.windows import Windows, make_windows
from maven_jax.errors import UserError
from maven_jax.evaluation import split_predictor as inference
from maven_jax.evaluation.calibration import box_filter
from maven_jax.evaluation.scores import score
from maven_jax.evaluation.split_predictor import PredictedVideo, SplitPredictor
from maven_jax.experiment import Experiment
from maven_jax.runtime.sharding import batch_sharding, make_mesh
from maven_jax.state import Weights
from maven_jax.store.reader import Store
from tests.support.compilations import counted
from tests.support.processes import run_processes
from tests.support.recipes_for_tests import small_recipe
from tests.support.stores import write_small_store


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    path = tmp_path_factory.mktemp("inference") / "s"
    return write_small_store(path, videos=4, frames=61, chunk_frames=8, modalities={"x": 2})


def echo(weights, batch):
    """A model that says what it sees, or 9 in what lies behind a window's end."""
    seen = jnp.tanh(jnp.asarray(batch.features["x"], jnp.float32))
    return jnp.where(jnp.asarray(batch.frame_mask)[..., None], seen, 9.0)


def predictor(store: Store, windows: Windows, smooth_frames=(0, 0), step=echo) -> SplitPredictor:
    return SplitPredictor(
        step,
        store,
        windows,
        modalities=("x",),
        single_vector={},
        batch_size=3,
        num_threads=2,
        mesh=make_mesh(data=1, model=1),
        blend="mean",
        smooth_frames=smooth_frames,
    )


def predict(store: Store, smooth_frames=(0, 0), hop: int = 1, **window) -> list[PredictedVideo]:
    windows = make_windows(store.videos("train"), hop=hop, **window)
    return predictor(store, windows, smooth_frames)(Weights({}, {}, None))


@pytest.mark.parametrize("step_s", [0.03, 0.2, 1.0, 10.0])
@pytest.mark.parametrize("length", [1, 4, 16])
def test_dense_windows_are_put_back_where_their_frames_came_from(store, length, step_s):
    tracks = predict(store, kind="dense", length=length, step_s=step_s)
    assert [t.entry for t in tracks] == list(store.videos("train"))
    for track in tracks:
        whole = store.read(track.entry, 0, track.entry.num_frames)
        np.testing.assert_allclose(
            track.predictions, np.tanh(whole.features["x"].astype(np.float32)), atol=1e-6
        )
        np.testing.assert_array_equal(track.targets, whole.targets)
        np.testing.assert_array_equal(track.target_mask, whole.target_mask)


def test_windows_that_leave_frames_out_are_refused_before_any_prediction(store):
    windows = make_windows(store.videos("train"), kind="dense", length=4, hop=2, step_s=0.2)
    with pytest.raises(UserError, match=r"frame 1 of train_00 .* config\.eval\.hop=1"):
        predictor(store, windows)


def test_tracks_are_smoothed_over_the_whole_video_after_overlaps_are_averaged(store):
    settings = dict(kind="sliding", length=20, hop=7, step_s=None)
    plain = predict(store, **settings)
    smooth = predict(store, (6, 15), **settings)
    for one, other in zip(plain, smooth):
        np.testing.assert_array_equal(other.predictions, box_filter(one.predictions, (6, 15)))
        np.testing.assert_array_equal(other.targets, one.targets)
        assert np.abs(other.predictions - one.predictions).max() > 0.05


def test_impossible_smoothing_is_refused(store):
    with pytest.raises(UserError, match=r"config\.eval\.smooth_frames=\(-5, 0\)"):
        predict(store, (-5, 0), kind="sliding", length=20, step_s=None)


def test_a_batch_is_on_its_way_before_the_last_one_is_read_and_rows_are_gathered_once(
    store, monkeypatch
):
    events = []

    def log(name, real):
        def logged(*arguments):
            events.append(name)
            return real(*arguments)

        monkeypatch.setattr(inference, name, logged)

    for name in ("place_batch", "rows_here", "gather_rows"):
        log(name, getattr(inference, name))
    windows = make_windows(store.videos("train")[:1], kind="sliding", length=8, hop=8, step_s=None)
    assert len(windows) == 8  # three batches of 3
    predictor(store, windows)(Weights({}, {}, None))
    read_one_behind = ["place_batch", *["place_batch", "rows_here"] * 2, "rows_here"]
    assert events == [*read_one_behind, "gather_rows"]


def attending(batch_size: int, shape: tuple[int, int], order: list[int], path: str) -> list:
    """Tracks of overlapping windows of a model whose outputs depend on all frames of a window."""
    store = Store(path)
    devices = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
    grid = np.array([devices[i] for i in order]).reshape(shape)
    mesh = Mesh(grid, ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    mixing = np.random.default_rng(0).standard_normal((20, 20)).astype(np.float32) / 5

    def step(weights, batch):
        x = jnp.where(batch.modality_masks["x"][..., None], batch.features["x"], 0)
        return jnp.tanh(jnp.einsum("st,btc->bsc", mixing, x.astype(jnp.float32)))

    windows = make_windows(store.videos("train"), kind="sliding", length=20, hop=7, step_s=None)
    assert len(windows) % batch_size
    p = SplitPredictor(
        jax.jit(step, out_shardings=batch_sharding(mesh)),
        store,
        windows,
        modalities=("x",),
        single_vector={},
        batch_size=batch_size,
        num_threads=2,
        mesh=mesh,
        blend="mean",
        smooth_frames=(0, 0),
    )
    weights = Weights({}, {}, None)
    p.compile(weights)
    advanced = []
    tracks = p._predict(weights, advanced.append)
    assert sum(advanced) == len(windows)
    return [np.concatenate([t.predictions, t.targets], 1).tolist() for t in tracks]


def test_videos_of_all_lengths_are_predicted_by_one_program(store):
    windows = make_windows(store.videos("train"), kind="sliding", length=64, hop=20, step_s=None)
    assert len(set(windows.stop - windows.start)) > 1
    p = predictor(store, windows, step=jax.jit(echo))
    weights = Weights({}, {}, None)
    with counted() as first:
        p.compile(weights)
    assert first["compiled"] == 1
    with counted() as more:
        tracks = p(weights)
    assert more == {"traced": 0, "compiled": 0}
    assert [len(t.predictions) for t in tracks] == [v.num_frames for v in store.videos("train")]


@pytest.mark.multiprocess
def test_tracks_do_not_depend_on_batch_size_devices_or_processes(store):
    reference = [np.array(t) for t in attending(1 + 4, (1, 1), [0], str(store.path))]
    assert np.abs(reference[0][:, :2]).max() > 0.5
    script = """
import json
from tests.evaluation.test_split_predictor import attending
print(json.dumps([attending(*a, sys.argv[5]) for a in json.loads(sys.argv[4])]))
"""
    settings = json.dumps(
        [
            (4, (4, 1), (0, 1, 2, 3)),
            (8, (4, 1), (0, 2, 1, 3)),
            (8, (2, 2), (0, 2, 1, 3)),
            (16, (1, 4), (0, 1, 2, 3)),
        ]
    )
    found = []
    for processes, devices in ((1, 4), (2, 2)):
        run = (script, settings, str(store.path))
        found += run_processes(*run, processes=processes, devices=devices)
    for process in found:
        for tracks in process:
            for track, expected in zip(tracks, reference, strict=True):
                np.testing.assert_allclose(track, expected, atol=1e-6)


# The first one's outputs before training are products of numbers above 1, cut to 1.
@pytest.mark.parametrize(
    ("recipe", "atol"),
    [
        ("maven_released:mlp", 5e-6),
        pytest.param("quickstart", 1e-6, marks=pytest.mark.slow),
    ],
)
def test_segments_padded_to_few_lengths_are_predicted_as_those_of_one(recipe, atol, tmp_path):
    store = write_small_store(tmp_path / "s", videos=3, frames=120)
    config = small_recipe(store.path, recipe, data__window__kind="segment", eval__hop=50)
    entries = [e for s in store.splits for e in store.videos(s)]
    assert len({b - a for e in entries for a, b in e.segments}) > 2
    experiment = Experiment.of(config)
    weights, shardings = experiment.fresh_weights()

    def tracks() -> list[PredictedVideo]:
        with jax.set_mesh(experiment.mesh), counted() as found:
            p = experiment.predictor("train", shardings)
            p.compile(weights)
            compiled.append(found["compiled"])
            return p(weights)

    compiled = []
    bucketed = tracks()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("maven_jax.experiment.padded_lengths", lambda kind, length: (length,))
        whole = tracks()
    assert compiled == [3, 1]
    for one, other in zip(bucketed, whole, strict=True):
        assert np.ptp(other.predictions) > 1e-3
        np.testing.assert_allclose(one.predictions, other.predictions, atol=atol)
        np.testing.assert_array_equal(one.targets, other.targets)
        np.testing.assert_array_equal(one.target_mask, other.target_mask)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_prediction_that_is_no_number_is_an_error_that_names_video_and_frame(store, value):
    entries = store.videos("validation")
    windows = make_windows(entries, kind="sliding", length=20, hop=20, step_s=None)
    broken = predictor(store, windows, step=lambda w, batch: batch.targets * 0 + value)
    with pytest.raises(UserError, match=f"{entries[0].video}: the prediction of frame 1 is not"):
        broken(Weights({}, {}, None))
    values = np.array([[0, 0], [0, value], [value, 0]], np.float32)
    video = PredictedVideo(entries[0], values, np.zeros_like(values), np.ones(3, bool))
    with pytest.raises(UserError, match="frame 2 is not a finite number, nor are 1 others"):
        score([video])
