"""A whole run on windows of frames that lie apart: trained on a fold, scored on every frame."""

from __future__ import annotations

from maven_jax.data.folds import fold_entries
from maven_jax.training.train import train
from tests.support.recipes_for_tests import small_recipe
from tests.support.stores import write_small_store


def test_a_fold_is_trained_on_dense_windows_and_scored_on_each_of_its_frames(tmp_path):
    store = write_small_store(tmp_path / "s", videos=6, frames=90, chunk_frames=1)
    config = small_recipe(
        store.path,
        "quickstart:concat",
        data__fold=2,
        data__window={"kind": "dense", "length": 8, "hop": 2, "step_s": 0.2},
        inputs__standardize={"visual": "store", "audio": "window", "text": "none"},
        inputs__video_offset_std=0.0,
        train__num_epochs=1.0,
        eval__hop=1,
        eval__smooth_frames=(3, 6),
    )
    scores = train(config, tmp_path / "run")
    held_out = fold_entries(store, 2)["validation"]
    assert scores["num_frames"] == sum(e.num_annotated for e in held_out)
    assert scores["num_videos"] == len(held_out)
    assert scores["ccc"] > 0.3
