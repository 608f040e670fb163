"""The store's writer: nothing finished is lost, nothing unstorable gets in."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from maven_jax.errors import UserError
from maven_jax.store.moments import RunningMoments
from maven_jax.store.plan import check_modality_name, dataset_identity, make_plan
from maven_jax.store.reader import Store
from maven_jax.store.schema import Frames, ModalitySpec
from maven_jax.store.writer import PlannedVideo, StoreWriter

LENGTHS = {"one": 30, "two/../x": 45, "three": 12, "four": 20}
SPLITS = {"one": "train", "two/../x": "train", "three": "train", "four": "validation"}


def open_writer(out: Path, **changes) -> StoreWriter:
    lengths = changes.pop("lengths", LENGTHS)
    settings = {
        "videos": [PlannedVideo(v, SPLITS[v], n, v) for v, n in lengths.items()],
        "modalities": {"m": ModalitySpec("m", 3, {"encoder": "e", "sizes": (1, 2)})},
        "chunk_frames": 10,
        "shard_bytes": 1200,
        "provenance": {"by": "test"},
    }
    return StoreWriter(out, **(settings | changes))


def frames_of(n: int, seed: int = 0, **changes) -> Frames:
    rng = np.random.default_rng(seed)
    fields = {
        "time_s": np.arange(n) / 10.0,
        "targets": rng.uniform(-1, 1, (n, 2)).astype(np.float32),
        "target_mask": np.ones(n, bool),
        "segment_id": np.full(n, -1, np.int32),
        "features": {"m": rng.normal(size=(n, 3)).astype(np.float32)},
        "masks": {"m": np.ones(n, bool)},
    }
    return Frames(**(fields | changes))


def write(writer: StoreWriter, video: str, **changes) -> None:
    with writer.video(video, 10.0, 1.0) as out:
        out.append(frames_of(LENGTHS[video], seed=len(video), **changes))


def write_all(out: Path, **changes) -> Store:
    writer = open_writer(out, **changes)
    for video in LENGTHS:
        if not writer.is_done(video):
            write(writer, video)
    return writer.finish()


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# Runs in a process of its own: forks children that write the store and die by SIGKILL on the way.
KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from tests.store import test_writer as t

base = Path(sys.argv[1])

def child(out, die_at=None):
    pid = os.fork()
    if pid:
        return pid
    steps = 0
    def deadly(function):
        def call(*args, **kwargs):
            nonlocal steps
            steps += 1
            if steps == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return call
    for name in ("replace", "unlink", "rmdir"):
        setattr(os, name, deadly(getattr(os, name)))
    # What a process has written outlives it; only a power failure asks for more. This saves
    # thousands of waits for the disk.
    os.fsync = lambda fd: None
    t.write_all(out)
    os._exit(0)

def end(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

began = time.monotonic()
assert end(child(base / "whole")) == 0
usual_s = time.monotonic() - began
expected = t.content(base / "whole")
assert sorted(n.split(".")[0] for n in expected if "/" not in n) == sorted(
    ["plan", "store", "dataset_info", "features"] + ["maven_features-train"] * 2
    + ["maven_features-validation"]), sorted(expected)
step, died = 0, 0
while True:
    step += 1
    out = base / f"step{step}"
    code = end(child(out, die_at=step))
    if code == 0:
        break
    assert code == -signal.SIGKILL, code
    died += 1
    assert end(child(out)) == 0, step
    files = t.content(out)
    differing = {k for k in files | expected if files.get(k) != expected.get(k)}
    assert not differing, (step, differing)
print("steps", died)
random.seed(0)
kills = 0
for round in range(3):
    out = base / f"time{round}"
    while True:
        pid = child(out)
        time.sleep(random.uniform(0, usual_s))
        os.kill(pid, signal.SIGKILL)
        if end(pid) == 0:
            break
        kills += 1
    assert t.content(out) == expected
print("times", kills)
"""


def test_killed_anywhere_the_same_bytes_result(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.returncode == 0, run.stderr[-3000:]
    counts = dict(line.split() for line in run.stdout.splitlines())
    assert int(counts["steps"]) > 30
    # Another process seeds protobuf's map order differently; the bytes are the same all the same.
    write_all(tmp_path / "here")
    assert content(tmp_path / "here") == content(tmp_path / "whole")


def test_two_processes_share_the_work(tmp_path):
    write_all(tmp_path / "alone")
    writers = [open_writer(tmp_path / "both") for _ in range(2)]
    for i, video in enumerate(reversed(LENGTHS)):
        write(writers[i % 2], video)
    assert writers[0].finish().fingerprint == writers[1].finish().fingerprint
    assert content(tmp_path / "both") == content(tmp_path / "alone")


def test_block_lengths_do_not_matter(tmp_path):
    expected = write_all(tmp_path / "whole").fingerprint
    writer = open_writer(tmp_path / "rows")
    for video, n in LENGTHS.items():
        frames = frames_of(n, seed=len(video))
        with writer.video(video, 10.0, 1.0) as out:
            for i in range(n):
                row = slice(i, i + 1)
                out.append(
                    Frames(
                        frames.time_s[row],
                        frames.targets[row],
                        frames.target_mask[row],
                        frames.segment_id[row],
                        {"m": frames.features["m"][row]},
                        {"m": frames.masks["m"][row]},
                    )
                )
    assert writer.finish().fingerprint == expected
    assert content(tmp_path / "rows") == content(tmp_path / "whole")


def test_finished_videos_are_not_asked_for_again(tmp_path):
    writer = open_writer(tmp_path)
    write(writer, "one")
    again = open_writer(tmp_path)
    assert [again.is_done(v) for v in LENGTHS] == [True, False, False, False]
    with pytest.raises(UserError, match=r"3 of 4 videos are not stored yet: two/\.\./x, three"):
        again.finish(allow_missing=4)
    with pytest.raises(UserError, match="not finished"):
        Store(tmp_path)
    write_all(tmp_path)
    assert all(open_writer(tmp_path).is_done(v) for v in LENGTHS)
    assert not (tmp_path / "parts").exists()
    before = content(tmp_path)
    open_writer(tmp_path).finish()
    assert content(tmp_path) == before


def test_a_lost_shard_is_written_again(tmp_path):
    store = write_all(tmp_path)
    expected = content(tmp_path)
    (tmp_path / store.shards("train")[1]["file"]).write_bytes(b"short")
    assert [open_writer(tmp_path).is_done(v) for v in LENGTHS] == [True, False, False, True]
    write_all(tmp_path)
    assert content(tmp_path) == expected


def test_nothing_of_a_failed_video_is_kept(tmp_path):
    writer = open_writer(tmp_path)

    def store(num_frames: int, error: Exception | None = None) -> None:
        with writer.video("one", 10.0, 1.0) as out:
            out.append(frames_of(num_frames))
            if error:
                raise error

    with pytest.raises(RuntimeError, match="disk"):
        store(25, RuntimeError("disk"))
    for wrong in (29, 31):
        with pytest.raises(ValueError, match=f"{wrong} frames written, 30 planned"):
            store(wrong)
    assert not writer.is_done("one")
    assert list((tmp_path / "parts").iterdir()) == []


def test_dropped_videos_are_counted_listed_and_may_come_later(tmp_path):
    writer = open_writer(tmp_path / "s")
    for video in LENGTHS:
        if video == "one":
            writer.drop(video, "broken jpeg")
        else:
            write(writer, video)
    writer.drop("elsewhere", "no annotation")
    with pytest.raises(UserError, match=r"2 videos .*: one \(broken jpeg\), elsewhere \(no anno"):
        writer.finish(allow_missing=1)
    store = writer.finish(allow_missing=2)
    assert store.dropped == (("one", "broken jpeg"), ("elsewhere", "no annotation"))
    assert [v.video for v in store.videos("train")] == ["two/../x", "three"]
    assert [v.first_record for v in store.videos("train")] == [0, 5]
    # One of two shards is empty, and can be read over.
    assert [s["records"] for s in store.shards("train")] == [0, 7]
    whole = write_all(tmp_path / "whole")
    two = whole.videos("train")[1]
    np.testing.assert_array_equal(
        store.read(store.videos("train")[0], 0, 45).targets, whole.read(two, 0, 45).targets
    )
    # A later run, with the file mended, completes the same store.
    assert write_all(tmp_path / "s").fingerprint == whole.fingerprint
    assert content(tmp_path / "s") == content(tmp_path / "whole")


def test_a_video_can_join_others_in_a_finished_shard(tmp_path):
    expected = write_all(tmp_path / "whole", shard_bytes=10**6)
    writer = open_writer(tmp_path / "s", shard_bytes=10**6)
    for video in ("one", "three", "four"):
        write(writer, video)
    writer.drop("two/../x", "unreadable")
    assert len(writer.finish(allow_missing=1).shards("train")) == 1
    assert write_all(tmp_path / "s", shard_bytes=10**6).fingerprint == expected.fingerprint
    assert content(tmp_path / "s") == content(tmp_path / "whole")


def test_a_split_may_be_lost_but_not_all(tmp_path):
    writer = open_writer(tmp_path / "s")
    for video in LENGTHS:
        writer.drop(video, "bad")
    with pytest.raises(UserError, match="not one video"):
        writer.finish(allow_missing=4)
    write(writer, "four")
    store = writer.finish(allow_missing=3)
    assert store.splits == ("validation",)
    assert store.statistics["m"].count == 0
    assert store.statistics["m"].mean.tolist() == store.statistics["m"].std.tolist() == [0, 0, 0]
    assert len(store.read(store.videos("validation")[0], 0, 20)) == 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chunk_frames": 20}, "chunk_frames is 10 in the store, 20 in this run"),
        (
            {"modalities": {"m": ModalitySpec("m", 4, {})}},
            "m.dim is 3 in the store, 4 in",
        ),
        (
            {"modalities": {"m": ModalitySpec("m", 3, {"encoder": "f", "sizes": [1, 2]})}},
            r"modalities.m.spec.encoder is 'e' in the store, 'f' in this run",
        ),
        (
            {"modalities": {"k": ModalitySpec("k", 3, {})}},
            "m is in the store, but not in",
        ),
        ({"lengths": LENGTHS | {"one": 31}}, "videos.one.num_frames is 30 in the store, 31 in"),
        ({"lengths": dict(list(LENGTHS.items())[1:])}, "videos.one is in the store, but not in"),
        ({"lengths": dict(reversed(LENGTHS.items()))}, "the order of videos"),
        ({"shard_bytes": 10**6}, "shards.train differ"),
    ],
)
def test_another_plan_is_refused(tmp_path, changes, message):
    open_writer(tmp_path)
    open_writer(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        open_writer(tmp_path, **changes)
    assert "\n" not in str(error.value)


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="not a feature store"):
        open_writer(tmp_path)
    with pytest.raises(UserError, match="not a feature store"):
        open_writer(tmp_path / "thesis.tex")
    assert content(tmp_path) == {"thesis.tex": b"x"}


def one_bad(value: float, dtype: type = np.float32) -> np.ndarray:
    features = np.zeros((12, 3), dtype)
    features[7, 1] = value
    return features


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": {"m": one_bad(np.nan)}}, "video 'three', m, frame 7: not a finite number"),
        ({"features": {"m": one_bad(np.inf, np.float16)}}, "m, frame 7: not a finite number"),
        ({"features": {"m": one_bad(-7e4)}}, "m, frame 7, feature 1: -70000 exceeds"),
        ({"targets": np.full((12, 2), np.nan, np.float32)}, "annotation, frame 0"),
        ({"targets": np.full((12, 2), -1.5, np.float32)}, r"frame 0: \[-1.5, -1.5\] is not within"),
        ({"time_s": np.arange(12) % 7 / 1.0}, "time, frame 7: 0.0 s is not later than"),
        ({"time_s": np.full(12, np.nan)}, "time, frame 0: nan s"),
    ],
)
def test_what_cannot_be_stored_is_named(tmp_path, changes, message):
    writer = open_writer(tmp_path)
    with pytest.raises(UserError, match=message):
        write(writer, "three", **changes)
    assert not writer.is_done("three")


def test_nothing_is_checked_where_nothing_was_observed(tmp_path):
    unseen = np.arange(12) != 7
    writer = open_writer(tmp_path)
    for video in LENGTHS:
        changes = {}
        if video == "three":
            targets = np.where(unseen[:, None], [0.5, 0.5], -5).astype(np.float32)
            features = {"m": one_bad(np.nan)}
            changes = {"targets": targets, "target_mask": unseen}
            changes |= {"features": features, "masks": {"m": unseen}}
        write(writer, video, **changes)
    store = writer.finish()
    read = store.read(store.videos("train")[2], 7, 8)
    assert read.features["m"].tolist() == [[0, 0, 0]]
    assert read.targets.tolist() == [[0, 0]]
    assert store.videos("train")[2].observed == {"m": 11}
    assert store.videos("train")[2].nonfinite == {"m": 0}


def test_nonfinite_frames_are_masked_and_counted_on_request(tmp_path):
    writer = open_writer(tmp_path)
    for video in LENGTHS:
        frames = frames_of(LENGTHS[video])
        if video == "three":
            frames.features["m"] = one_bad(np.inf)
        with writer.video(video, 10.0, 1.0, mask_nonfinite=True) as out:
            out.append(frames)
    store = writer.finish()
    entry = store.videos("train")[2]
    assert (entry.nonfinite, entry.observed) == ({"m": 1}, {"m": 11})
    assert (~store.read(entry, 0, 12).masks["m"]).nonzero()[0].tolist() == [7]


def test_only_the_planned_modalities_are_taken(tmp_path):
    writer, seen = open_writer(tmp_path), np.ones(12, bool)
    for features in ({}, {"m": np.zeros((12, 4), np.float32)}, {"k": np.zeros((12, 3))}):
        with pytest.raises(ValueError, match="the block's modalities are"):
            write(writer, "three", features=features, masks=dict.fromkeys(features, seen))
    with pytest.raises(ValueError, match="not a planned video"), writer.video("five", 1.0, 1.0):
        pass


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a b", "ä", "a/b", "../a", "a\n"])
def test_modality_names_are_identifiers(name):
    with pytest.raises(UserError, match="a letter followed by letters"):
        check_modality_name(name)


@pytest.mark.parametrize("name", ["video", "chunk", "targets", "time_s", "target_mask", "a_mask"])
def test_record_fields_are_no_modalities(name):
    with pytest.raises(UserError, match="taken"):
        check_modality_name(name)


def test_bad_plans_are_refused(tmp_path):
    one = {"m": ModalitySpec("m", 1, {})}
    for video, message in [
        (PlannedVideo("", "train", 1, ""), "empty name"),
        (PlannedVideo("a\udc80", "train", 1, "a"), "not valid Unicode"),
        (PlannedVideo("a", "Train", 1, "a"), "cannot be the name of a split"),
        (PlannedVideo("a", "all", 1, "a"), "cannot be the name of a split"),
        (PlannedVideo("a", "train", 0, "a"), "has no frames"),
    ]:
        with pytest.raises(UserError, match=message):
            make_plan(tmp_path, [video], one, 10, 100)
    video = PlannedVideo("a", "train", 1, "a")
    with pytest.raises(UserError, match="given twice"):
        make_plan(tmp_path, [video, video], one, 10, 100)
    with pytest.raises(UserError, match="no videos"):
        make_plan(tmp_path, [], one, 10, 100)
    with pytest.raises(UserError, match="no modalities"):
        make_plan(tmp_path, [video], {}, 10, 100)


@pytest.mark.parametrize(
    ("folder", "identity"),
    [
        ("emotions/1.2.3", ("emotions", "1.2.3")),
        ("my-features/1.2.3", ("maven_features", "1.0.0")),
        ("maven_features/first", ("maven_features", "1.0.0")),
    ],
)
def test_only_a_version_below_a_name_is_a_dataset_of_that_name(tmp_path, folder, identity):
    assert dataset_identity(tmp_path / folder) == identity


def test_shards_hold_whole_videos_in_order_and_are_even(tmp_path):
    rng = np.random.default_rng(0)
    lengths = rng.integers(50, 500, 200)
    videos = [PlannedVideo(f"v{i}", "train", int(n), "s") for i, n in enumerate(lengths)]
    plan = make_plan(tmp_path, videos, {"m": ModalitySpec("m", 100, {})}, 100, 1_000_000)
    shards = plan.shards["train"]
    assert [v for s in shards for v in s] == [v.video for v in videos]
    frames = [sum(plan.videos[v].num_frames for v in s) for s in shards]
    assert len(shards) == round(lengths.sum() * 222 / 1e6)
    assert max(frames) - min(frames) <= 2 * lengths.max()
    # One long video among short ones leaves no shard empty.
    videos = [PlannedVideo(f"v{i}", "train", 10_000 if i == 1 else 1, "s") for i in range(6)]
    shards = make_plan(tmp_path, videos, {"m": ModalitySpec("m", 1, {})}, 100, 1000).shards
    assert all(shards["train"])


def test_moments_keep_their_digits():
    rng = np.random.default_rng(0)
    values = 1e6 + rng.normal(size=(5000, 2))
    merged, at = RunningMoments(2), 0
    while at < len(values):
        step = int(rng.integers(0, 200))
        merged.add(values[at : at + step])
        at += step
    other = RunningMoments(2)
    other.merge_json(json.loads(json.dumps(merged.to_json())))
    np.testing.assert_allclose(other.mean, values.mean(0), rtol=1e-14)
    np.testing.assert_allclose(other.std(), values.std(0), rtol=1e-9)


FULL = """
import errno, resource, signal, sys
from pathlib import Path
import numpy as np
from tests.store import test_writer as t

# The system refuses to let files grow, as it does when the disk is full.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
out = Path(sys.argv[1])
writer = t.open_writer(out, modalities={"m": t.ModalitySpec("m", 3000, {})}, shard_bytes=10**9)
limit = resource.getrlimit(resource.RLIMIT_FSIZE)
features = np.random.default_rng(0).normal(size=(30, 3000)).astype(np.float32)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
try:
    with writer.video("one", 1.0, 1.0) as video:
        video.append(t.frames_of(30, features={"m": features}))
except OSError as error:
    assert error.errno == errno.EFBIG, error
else:
    raise AssertionError("the video was written")
assert not writer.is_done("one")
assert list((out / "parts").iterdir()) == []
resource.setrlimit(resource.RLIMIT_FSIZE, limit)
with writer.video("one", 1.0, 1.0) as video:
    video.append(t.frames_of(30, features={"m": features}))
assert writer.is_done("one")
"""


def test_a_full_disk_ends_in_an_error_and_leaves_nothing_behind(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "s")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.returncode == 0, run.stderr[-3000:]
