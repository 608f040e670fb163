"""`prepare --beam`: the store of the plain command, byte for byte, whoever is killed."""

import contextlib
import hashlib
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_prep import preparation, prepare
from data_prep.corpus.check_video import VideoCheck
from data_prep.corpus.layout import Video
from data_prep.preparation import begin
from maven_jax import recipes
from maven_jax.__main__ import main
from maven_jax.errors import UserError
from maven_jax.store.reader import Store
from tests.support import corpora

with contextlib.suppress(UserError):
    from data_prep.beam import pipeline as beam_pipeline
    from data_prep.beam import prepare as beam_prepare
needs_beam = pytest.mark.skipif(
    "data_prep.beam.prepare" not in sys.modules,
    reason="Apache Beam is not installed: pip install -e '.[beam]' -c constraints.txt",
)
# A run takes 30 s on two idle cores, 90 s on very busy ones.
PATIENCE_S = 900
TWO_WORKERS = "--direct_num_workers=2"
# Of several shards per split with few, short videos.
RECIPE = """
from maven_jax import recipes

def get_config(arg=""):
    config = recipes.load("tiny", group="encoders")
    config.shard_bytes = 40_000
    return config
"""


def files(folder: Path) -> dict[str, str]:
    """Relative path → sha256 of every file."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a corpus of twelve videos, a recipe, and the plain command's store."""
    place = tmp_path_factory.mktemp("beam")
    corpora.write_tiny_corpus(place / "corpus", 12, seconds=1.6)
    (place / "recipe.py").write_text(RECIPE)
    assert main([*arguments(place, place / "plain")]) == 0
    assert sum(len(Store(place / "plain").shards(s)) for s in ("train", "validation", "test")) > 4
    return place


def arguments(place: Path, out: Path) -> list[str]:
    command = ["prepare", "--root", str(place / "corpus"), "--out", str(out), "--workers", "1"]
    return [*command, "--encoders", str(place / "recipe.py")]


@contextlib.contextmanager
def started(place: Path, out: Path):
    """The command in a process; nothing of it is left behind."""
    command = [sys.executable, "-m", "maven_jax", *arguments(place, out)]
    process = subprocess.Popen(
        [*command, "--beam", "--beam-options", TWO_WORKERS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
        for pid in workers(out):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def workers(out: Path) -> list[int]:
    """The processes that have encoders open, by the files in which they write."""
    found = (re.search(r"-(\d+)\.messages$", f.name) for f in out.glob("parts/*.messages"))
    return [int(match[1]) for match in found if match]


def wait_for(what: Callable[[], object], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def in_the_middle_of_a_video(pid: int) -> bool:
    """True if the process has the records of a video open that are not complete."""
    with contextlib.suppress(OSError):
        open_files = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
        return any(re.search(r"array_record\..*\.tmp$", name) for name in open_files)
    return False


def stop_one_in_the_middle(out: Path, process: subprocess.Popen) -> int:
    """Halts a worker that is writing a video; returns its number."""
    halted: list[int] = []

    def halt() -> bool:
        for pid in workers(out):
            if in_the_middle_of_a_video(pid):
                os.kill(pid, signal.SIGSTOP)
                if in_the_middle_of_a_video(pid):
                    halted.append(pid)
                    return True
                os.kill(pid, signal.SIGCONT)
        return False

    wait_for(halt, process)
    return halted[0]


def is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state not in "ZX"
    return False


def stored(out: Path) -> dict[str, int]:
    """The videos that are stored and when."""
    return {f.name: f.stat().st_mtime_ns for f in out.glob("index/video-*.json")}


@needs_beam
@pytest.mark.multiprocess
@pytest.mark.slow
def test_two_workers_write_what_the_plain_command_writes(place, tmp_path):
    out = tmp_path / "store"
    with started(place, out) as process:
        said, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said + errors
    assert files(out) == files(place / "plain")
    assert "2 workers (multi_processing)" in said
    assert re.search(r"encode: 480 frames in .* frames/s", said)
    # Two workers that open their encoders once, however many shards they encode.
    names = re.findall(r"worker (\S+) opened its encoders", said)
    assert len(names) == len(set(names)) == 2
    assert len(re.findall(r"shard \d+: \d+ videos stored", said)) > 4


@needs_beam
@pytest.mark.multiprocess
@pytest.mark.slow
def test_a_killed_worker_or_command_loses_nothing(place, tmp_path):
    out = tmp_path / "store"
    with started(place, out) as process:
        victim = stop_one_in_the_middle(out, process)
        wait_for(lambda: stored(out), process)
        os.kill(victim, signal.SIGKILL)
        said, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 2, said + errors
        last = errors.strip().splitlines()[-1]
        assert "a worker was lost" in last
        assert "the same command continues" in last
        assert "Traceback" not in errors
        left = [pid for pid in workers(out) if is_running(pid)]
        assert not left
    with pytest.raises(UserError, match="not finished"):
        Store(out)
    first = stored(out)
    assert 0 < len(first) < 12

    # The command itself, which can clean up nothing: its workers notice.
    for file in out.glob("parts/*.messages"):
        file.unlink()
    with started(place, out) as process:
        stop_one_in_the_middle(out, process)
        process.kill()
        said, errors = process.communicate(timeout=PATIENCE_S)
        deadline = time.monotonic() + PATIENCE_S
        while any(map(is_running, workers(out))):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    second = stored(out)
    assert first.items() <= second.items()
    assert len(second) < 12

    for file in out.glob("parts/*.messages"):
        file.unlink()
    with started(place, out) as process:
        said, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said + errors
    assert f"{40 * len(second)} of 480 frames are in the store already" in said
    assert second.items() <= stored(out).items()
    assert files(out) == files(place / "plain")


@pytest.mark.slow
@needs_beam
@pytest.mark.multiprocess
def test_a_bad_video_fails_alone_as_in_the_plain_command(place, tmp_path, monkeypatch, capsys):
    sound = place / "corpus" / "audio" / "video_03.wav"
    whole = sound.read_bytes()

    def begin_and_break(*args, **kwargs):
        sound.write_bytes(whole)
        begun = begin(*args, **kwargs)
        sound.write_bytes(whole[:20])
        return begun

    encoders = recipes.load(str(place / "recipe.py"), group="encoders")
    given = {"modalities": ("audio",), "workers": 1}
    monkeypatch.setattr(preparation, "begin", begin_and_break)  # imported by `prepare` when it runs
    monkeypatch.setattr(beam_prepare, "begin", begin_and_break)
    root, plain, out = place / "corpus", tmp_path / "plain", tmp_path / "beam"
    try:
        prepare.prepare(root, plain, encoders, allow_missing=1, **given)
        capsys.readouterr()
        with pytest.raises(UserError, match=r"1 videos could not be stored .*video_03 \(.*wav"):
            beam_prepare.prepare(root, out, encoders, TWO_WORKERS, **given)
        assert re.search(r"FAILED video_03: .*video_03.wav", capsys.readouterr().out)
        assert len(stored(out)) == 11
        beam_prepare.prepare(root, out, encoders, TWO_WORKERS, allow_missing=1, **given)
        assert files(out) == files(plain)
    finally:
        sound.write_bytes(whole)


@pytest.mark.slow
@needs_beam
def test_what_ends_every_video_ends_the_run_in_one_line(place, tmp_path, monkeypatch):

    def begin_and_spoil(*args, **kwargs):
        begun = begin(*args, **kwargs)
        plan = tmp_path / "store" / "plan.json"
        plan.write_text(plan.read_text().replace('"num_frames": 40', '"num_frames": 41', 1))
        return begun

    monkeypatch.setattr(beam_prepare, "begin", begin_and_spoil)
    encoders = recipes.load(str(place / "recipe.py"), group="encoders")
    with pytest.raises(UserError, match=r"num_frames is 41 in the store, 40 in this run") as error:
        beam_prepare.prepare(
            place / "corpus", tmp_path / "store", encoders, TWO_WORKERS, modalities=("text",)
        )
    assert "\n" not in str(error.value)


@needs_beam
def test_encoders_are_opened_once_in_a_process_of_many_threads(place, tmp_path):
    from data_prep.beam import job as beam_job

    encoders = recipes.load(str(place / "recipe.py"), group="encoders")
    checks, _, writer = begin(
        place / "corpus",
        tmp_path / "store",
        encoders,
        modalities=("text",),
        allow_missing=0,
        assume_fps=None,
        workers=1,
        limit_videos=None,
    )
    job = beam_job.Job(
        tmp_path / "store", checks, encoders.to_dict(), ("text",), None, 1, [("train", 0)]
    )
    file = job.write(writer.scratch())
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(beam_job.worker_of(file))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(map(id, found))) == 1
    names = writer.plan.shards["train"][0]
    assert found[0].encode(("train", 0)) == len(names)
    assert found[0].encode(("train", 0)) == 0
    assert all(map(writer.is_done, names))
    # Another job has another worker: its store is another one.
    assert beam_job.worker_of(job.write(writer.scratch())) is not found[0]
    with pytest.raises(UserError, match="all workers have to see the folder"):
        beam_job.worker_of(tmp_path / "elsewhere.job")


@needs_beam
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--direct_num_workers=two", "invalid int value: 'two'"),
        ("--direct_num_workers=-1", "below 0"),
        ("--direct_num_worker=2", "did you mean 'direct_num_workers'"),
        ("--direct_running_mode=procs", "multi_processing"),
        ("--runner=Flnk", "FlinkRunner"),
        ("--runner=no.such.Runner", "no.such.Runner"),
        ("--runner='", "No closing quotation"),
        ("words", "'words' is no option"),
        ("--runner=FlinkRunner", "absolute"),
    ],
)
def test_wrong_options_of_beam_end_in_one_line(options, says, capfd):
    argv = ["prepare", "--root", "R", "--out", "S", "--encoders", "tiny", "--beam"]
    assert main([*argv, "--beam-options", options]) == 2
    said = capfd.readouterr()
    assert says in said.err
    assert len(said.err.strip().splitlines()) == 1


@needs_beam
def test_options_of_other_runners_are_left_to_them():
    words = beam_pipeline.parse("--runner=FlinkRunner --flink_master=a:1 --flink_only=3")
    assert words[-1] == "--flink_only=3"
    assert not beam_pipeline.is_direct(words)
    assert beam_pipeline.is_direct(beam_pipeline.parse(""))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--beam-options", "--direct_num_workers=2"], "--beam-options goes with --beam"),
        (["--beam", "--part", "1/2"], "--part does not go with --beam"),
        (["--beam", "--check-only"], "--check-only does not go with --beam"),
        (["--beam", "--features", "F"], "--beam does not go with --features"),
    ],
)
def test_what_does_not_go_with_beam_is_said(arguments, says, capsys):
    assert main(["prepare", "--root", "R", "--out", "S", "--encoders", "tiny", *arguments]) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert len(said.err.strip().splitlines()) == 1


def test_without_beam_it_is_said_what_to_install():
    code = (
        "import sys; sys.modules['apache_beam'] = None\n"
        "from maven_jax.__main__ import main\n"
        "sys.exit(main(['prepare', '--root', 'R', '--out', 'S', '--encoders', 'tiny', '--beam']))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 2
    assert len(run.stderr.strip().splitlines()) == 1
    assert "pip install" in run.stderr
    assert "apache-beam" in run.stderr


def test_a_job_is_read_as_it_was_written_and_is_no_pickle(tmp_path):
    from data_prep.beam import job as beam_job

    files = {"crops": tmp_path / "crops", "media": tmp_path / "é.mp4", "audio": tmp_path / "é.wav"}
    video = Video("a_left", "a", "train", listed_frames=3, **files)
    check = VideoCheck(video, 2, np.array([0.1, 1 / 3]), 30000 / 1001)
    recipe = {"text": {"kind": "bert", "model": {"sizes": (1, 2)}}}
    job = beam_job.Job(tmp_path / "out", [check], recipe, ["text"], None, 2, [("train", 1)])
    file = job.write(tmp_path)
    read = beam_job.read(file)
    assert read.checks[0].video == video
    np.testing.assert_array_equal(read.checks[0].times_s, check.times_s)
    assert (read.checks[0].num_frames, read.checks[0].fps) == (2, check.fps)
    assert (read.out, read.shards, read.workers) == (job.out, job.shards, 2)
    assert recipes.from_json(read.encoders).to_dict() == recipe
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(file.read_bytes())
