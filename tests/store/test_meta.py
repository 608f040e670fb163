"""`store.json` of others: what contradicts itself or the records is refused."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from maven_jax.errors import UserError
from maven_jax.store.reader import Store
from tests.support.stores import write_small_store


def changed(meta, path, value):
    """A copy of `store.json`'s content with one value changed."""
    copy = json.loads(json.dumps(meta))
    *keys, last = path
    node = copy
    for key in keys:
        node = node[key]
    node[last] = value
    return copy


VIDEO, SHARD = ("splits", "train", "videos", 0), ("splits", "train", "shards", 0)
CONTRADICTIONS = [
    (("chunk_frames",), 10**18, "frames in a record"),
    (("chunk_frames",), 0, "frames in a record"),
    (("chunk_frames",), "100", "chunk_frames is '100'"),
    (("modalities", "visual", "dim"), 10**12, "1,000,000,000,000 wide"),
    (("modalities", "visual", "dim"), -1, "-1 wide"),
    (("modalities",), {}, "0 modalities"),
    (("splits",), [], "splits is '[]'"),
    (("statistics", "visual", "std"), [1.0], "statistics.visual are not 8 wide"),
    (("statistics", "visual", "mean"), None, "statistics.visual.mean is 'None'"),
    ((*VIDEO, "num_frames"), 10**18, "has 1,000,000,000,000,000,000 frames"),
    ((*VIDEO, "num_frames"), 10, "10 frames, 130 in segments"),
    ((*VIDEO, "num_frames"), 1.5, "num_frames is '1.5'"),
    ((*VIDEO, "first_record"), 1, "begins at record 1, expected 0"),
    ((*VIDEO, "observed"), {}, "nothing is said of"),
    ((*VIDEO, "segments"), [[0, 10], [20, 130]], "not one behind the other"),
    ((*VIDEO, "split"), "train", "has a key 'split'"),
    ((*VIDEO, "\x1b[31m"), 1, "has a key '\\x1b[31m'"),
    ((*VIDEO, "notes"), "odd", "notes is 'odd'"),
    ((*SHARD, "records"), 10**15, "no shard is"),
    ((*SHARD, "records"), 1, "records too few"),
    ((*SHARD, "file"), "../../elsewhere", "no shard is"),
]


@pytest.fixture(scope="module")
def small_store(tmp_path_factory):
    return write_small_store(tmp_path_factory.mktemp("small") / "s", videos=2, frames=130).path


@pytest.mark.parametrize(("path", "value", "message"), CONTRADICTIONS)
def test_a_description_that_cannot_be_is_refused(path, value, message, small_store, tmp_path):
    meta = json.loads((small_store / "store.json").read_text())
    (tmp_path / "store.json").write_text(json.dumps(changed(meta, path, value)))
    with pytest.raises(UserError, match=rf"store\.json: damaged: .*{re.escape(message)}") as caught:
        Store(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_number_of_frames_is_compared_with_the_records(small_store, tmp_path):
    shutil.copytree(small_store, tmp_path / "s")
    file = tmp_path / "s" / "store.json"
    meta = changed(json.loads(file.read_text()), (*VIDEO, "num_frames"), 135)
    video = meta["splits"]["train"]["videos"][0]
    video["segments"][-1][1] = 135
    file.write_text(json.dumps(meta))
    store = Store(tmp_path / "s")
    entry = store.videos("train")[0]
    assert len(store.read(entry, 0, 100)) == 100
    with pytest.raises(UserError, match=r"store\.json: .* has 135 frames, .* ends at frame 130"):
        store.read(entry, 90, 135)
