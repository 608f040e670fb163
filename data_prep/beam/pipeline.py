"""The process that runs the pipeline of `prepare --beam`: the only place that imports Beam.

    python -m data_prep.beam.pipeline JOB_FILE [Beam's options]

It is a process of its own because Beam cannot be stopped: when a local worker is killed, the direct
runner waits for that worker's answer for ever. Whoever started this process can end it together
with all of its workers, which are in its process group.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from data_prep.beam.job import JobFiles, Shard, read, worker_of
from maven_jax.errors import UserError, did_you_mean


@contextlib.contextmanager
def _silent():
    """Keeps warnings out of the log (uninstalled parts of Beam, unknown options)."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


try:
    with _silent():
        import apache_beam as beam  # pyright: ignore[reportMissingImports]
        from apache_beam.options import pipeline_options  # pyright: ignore[reportMissingImports]
        from apache_beam.runners import runner as runners  # pyright: ignore[reportMissingImports]
        from apache_beam.runners.portability import (  # pyright: ignore[reportMissingImports]
            fn_api_runner,
        )
except ImportError as error:
    raise UserError(
        f"--beam needs Apache Beam ({error}): pip install 'apache-beam', or maven_jax with its "
        "extra 'beam'"
    ) from None

# The user's options follow these: by itself Beam runs one worker inside the pipeline's process.
# 0 workers means one per core.
DEFAULTS = (
    "--runner=DirectRunner",
    "--direct_running_mode=multi_processing",
    "--direct_num_workers=0",
)
# Names of Beam's direct runner, in lower case.
LOCAL = ("direct", "directrunner", "fnapirunner")
WATCH_S = 0.5


class EncodeShard(beam.DoFn):
    """A shard (split and number) → how many videos were stored."""

    def __init__(self, job_file: str):
        self._job_file = job_file

    def setup(self) -> None:
        """Opens the encoders, at the first call in a process."""
        worker_of(Path(self._job_file))

    def process(self, element: Shard):
        yield worker_of(Path(self._job_file)).encode(element)


def parse(text: str) -> list[str]:
    """The words of --beam-options behind `DEFAULTS`.

    Raises:
        UserError: an option that Beam does not have or cannot use, or a runner not installed.
    """
    try:
        words = [*DEFAULTS, *shlex.split(text)]
    except ValueError as error:
        raise UserError(f"--beam-options {text!r}: {error}") from None
    parsers = []
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr), _silent():
            options = pipeline_options.PipelineOptions(words)
            # Beam has no other way to its parser with the options of all its parts.
            values = options.get_all_options(add_extra_args_fn=parsers.append)
    except SystemExit:
        message = stderr.getvalue().strip().splitlines()[-1]
        raise UserError(f"--beam-options: {message.partition('error: ')[2]}") from None
    name = options.view_as(pipeline_options.StandardOptions).runner
    try:
        runners.create_runner(name)
    except (ValueError, ImportError, AttributeError, RuntimeError) as error:
        raise UserError(f"--beam-options: --runner={name}: {_one_line(str(error))}") from None
    # Other runners pass options on to programs that are not in Python, so all must be let through.
    if is_direct(words):
        for wrong in parsers[0].parse_known_args(words)[1]:
            names = ["runner", *(o for o in values if o.startswith("direct_"))]
            close = did_you_mean(wrong.lstrip("-").partition("=")[0], names)
            raise UserError(f"--beam-options: {wrong!r} is no option of the DirectRunner{close}")
        workers = options.view_as(pipeline_options.DirectOptions).direct_num_workers
        if workers < 0:
            raise UserError(f"--beam-options: --direct_num_workers={workers} is below 0")
    return words


def is_direct(words: Sequence[str]) -> bool:
    """True if the pipeline runs on this machine, below the process that starts it."""
    name = (
        pipeline_options.PipelineOptions(list(words))
        .view_as(pipeline_options.StandardOptions)
        .runner.lower()
    )
    return name in LOCAL


def describe(words: Sequence[str]) -> str:
    """One line: the runner, and the number of workers if they are local."""
    options = pipeline_options.PipelineOptions(list(words))
    if not is_direct(words):
        return (
            f"Beam {beam.__version__}, {options.view_as(pipeline_options.StandardOptions).runner}"
        )
    direct = options.view_as(pipeline_options.DirectOptions)
    workers = direct.direct_num_workers or os.cpu_count()
    return (
        f"Beam {beam.__version__}, DirectRunner, {workers} workers ({direct.direct_running_mode})"
    )


def run(job_file: Path, words: Sequence[str]) -> None:
    """Runs the pipeline to its end."""
    shards = read(job_file).shards
    # By the name `DirectRunner` Beam would first try Prism, a program that it fetches from the
    # network and that runs all workers as threads of this process.
    runner = fn_api_runner.FnApiRunner() if is_direct(words) else None
    with beam.Pipeline(
        runner=runner, options=pipeline_options.PipelineOptions(list(words))
    ) as pipeline:
        _ = (
            pipeline
            | "Shards" >> beam.Create(list(shards))
            # Without this all shards would go to one worker, where they were created.
            | "Spread" >> beam.Reshuffle()
            | "Encode" >> beam.ParDo(EncodeShard(str(job_file)))
        )


def main(argv: Sequence[str]) -> int:
    """Runs the pipeline of a job file; returns the exit code."""
    files = JobFiles(Path(argv[0]))
    threading.excepthook = _end_with_lost_workers(files)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    try:
        run(files.job, argv[1:])
    except Exception as error:
        files.failure.write_text(_reason(error))
        raise
    return 0


def _end_with_lost_workers(files: JobFiles):
    """A hook for errors in threads: a thread in which Beam waits for a worker fails with it."""
    usual = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        usual(args)
        if args.thread is not None and args.thread.name == "run_worker":
            files.failure.write_text(f"a worker was lost ({args.exc_value})")
            sys.stderr.flush()
            os._exit(1)

    return hook


def _end_with_parent(parent: int) -> None:
    """Ends the process group as soon as the process that started it is gone."""
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _reason(error: Exception) -> str:
    """The message of the UserError behind it, otherwise the last line of the error."""
    text = str(error)
    # Workers' errors arrive as the text of their tracebacks.
    if match := re.search(r"^(?:[\w.]*\.)?UserError: (.*?)(?: \[while running .*)?$", text, re.M):
        return match[1]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _one_line(f"{type(error).__name__}: {lines[-1] if lines else ''}")


def _one_line(text: str, limit: int = 400) -> str:
    return " ".join(text.split())[:limit]


if __name__ == "__main__":
    # By its full name, so that workers can unpickle its classes.
    from data_prep.beam import pipeline as beam_pipeline

    sys.exit(beam_pipeline.main(sys.argv[1:]))
