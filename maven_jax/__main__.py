"""`maven-jax <command>`: one line per command, no logic."""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import signal
import sys
import threading
from typing import NoReturn

from maven_jax.errors import did_you_mean, explain, printable
from maven_jax.progress import complain
from maven_jax.runtime import interrupts
from maven_jax.version import __version__

# command: (module with a `main(argv) -> int`, what it does in one line)
COMMANDS = {
    "synth": ("data_prep.synth.command", "write a synthetic corpus in Aff-Wild2's layout"),
    "corpus": ("data_prep.own_corpus", "make a corpus of your own videos and ratings"),
    "prepare": ("data_prep.prepare", "check a corpus and encode it into a feature store"),
    "inspect": ("maven_jax.commands.inspect_store", "show what a feature store holds"),
    "train": ("maven_jax.commands.train", "train a model by a recipe, then evaluate it"),
    "evaluate": ("maven_jax.commands.evaluate", "score a trained model: CCC, predictions, plots"),
    "cross-validate": (
        "maven_jax.commands.cross_validate",
        "train on every fold of a store, score what was held out",
    ),
    "predict": ("maven_jax.commands.predict", "predict your own videos, sounds or face crops"),
    "app": ("maven_jax.commands.app", "predict in the browser, a file or the camera's picture"),
    "weights": ("maven_jax.commands.weights", "fetch published weights by name"),
    "convert": ("maven_jax.commands.convert", "convert released PyTorch weights"),
    "export": ("maven_jax.commands.export", "write a trained model as one portable folder"),
    "ensemble": ("maven_jax.commands.ensemble", "make one of the predictions of several runs"),
    "doctor": (
        "maven_jax.commands.doctor",
        "check this machine: devices, decoding, disk, a tiny training",
    ),
    "tune": ("maven_jax.commands.tune", "choose a calibration by validation predictions"),
    "submit": ("maven_jax.commands.submit", "write or check the challenge's file"),
    "bench": ("benchmarks.command", "measure this machine beside PyTorch, NumPy and raw reads"),
    "compare": ("maven_jax.commands.compare", "one table of the scores of several workdirs"),
}

# Old name: the command that took its place.
RENAMED = {"tune-smoothing": "tune"}

# What the same command does after an interruption, where it does not begin anew.
_CONTINUES = "the same command continues"
_AFTERWARDS = {
    "synth": _CONTINUES,
    "prepare": _CONTINUES,
    "train": _CONTINUES,
    "cross-validate": _CONTINUES,
    "predict": "media that are finished are whole, and --resume leaves them out",
    "app": "the page in the browser is at its end, and its files are gone",
}

# As shells number the ends by SIGINT and SIGPIPE.
_INTERRUPTED, _UNREAD = 130, 141
_ENDING = threading.Lock()


def usage() -> str:
    lines = [f"  {name:<15} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: maven-jax <command> [options]",
            "",
            *lines,
            "",
            "`maven-jax <command> --help` says more, `maven-jax --version` which version this is.",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit code (2 for mistakes that the user can mend)."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if argv[0] in ("--version", "-V", "version"):
        print(f"maven_jax {__version__}")
        return 0
    name, *rest = argv
    if name in RENAMED:
        complain(name, f"this command is `maven-jax {RENAMED[name]}` now; see its --help")
        return 2
    if name not in COMMANDS:
        if difflib.get_close_matches(name, COMMANDS, n=1):
            message = (
                f"maven-jax: no command {printable(name)!r}{did_you_mean(name, list(COMMANDS))}"
            )
        else:
            message = f"maven-jax: no command {printable(name)!r}\n\n{usage()}"
        print(message, file=sys.stderr)
        return 2
    # What libraries log about themselves is no news to a user. What they log as errors (orbax: with
    # the tracebacks of all its threads and coroutines) they also raise.
    for library in ("absl", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        module = importlib.import_module(COMMANDS[name][0])
    except ImportError as error:
        package = (error.name or "").split(".")[0]
        if package in ("maven_jax", "data_prep"):
            raise
        line = f"{error} (a package is missing or broken): pip install -e . -c constraints.txt"
        if package == "benchmarks":
            line = "the benchmarks are not part of the installed package; run it from a clone"
        complain(name, line)
        return 2
    try:
        code = module.main(rest)
        sys.stdout.flush()
        return code
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        complain(name, line)
        return 2


def _interrupted() -> NoReturn:
    """Says what becomes of the work, and ends the process."""
    with _ENDING:  # whoever comes first prints, and never releases the lock
        name = " ".join(sys.argv[1:2])
        afterwards = _AFTERWARDS.get(name, "the same command begins anew")
        print(file=sys.stderr)
        complain(name, f"interrupted; {afterwards}")
        # At once: threads of XLA may be compiling with what the interrupted calls hold.
        os._exit(_INTERRUPTED)


def run() -> NoReturn:
    """The console script: `main`, and the end of the process."""
    # After an interruption the helper of worker processes would count what it tidies up.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
    try:
        interrupts.watch(_interrupted)
        code = main()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _interrupted()
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os._exit(_UNREAD)
    # All is done: from here on an interruption would only add the traceback of some thread.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


if __name__ == "__main__":
    run()
