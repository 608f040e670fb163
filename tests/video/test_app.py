"""`maven-jax app` in a real browser: a file, the camera, what is no video; nothing goes out."""

from __future__ import annotations

import contextlib
import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

from maven_jax.__main__ import main
from maven_jax.convert.named_weights import named, take
from maven_jax.errors import UserError
from maven_jax.video.app import listening
from tests.support.browsed import PATIENCE_S, driven, requests, settled
from tests.support.root import ROOT


@pytest.fixture(scope="module")
def served(own_recipes, tmp_path_factory):
    """The address of a running app, and the folder of its temporary files; ended by Ctrl-C."""
    pytest.importorskip("gradio", reason="pip install 'maven_jax[app]'")
    folder = tmp_path_factory.mktemp("app")
    temporary = folder / "tmp"
    temporary.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAVEN_JAX_WEIGHTS", str(folder / "weights"))
        patch.setenv("HF_HUB_CACHE", str(folder / "none"))
        take(named(str(own_recipes / "net.py")), own_recipes / "net.hdf5")
        command = ["app", "--port", "0", "--affect", str(own_recipes / "set.py")]
        # Tests run in the background of a script ignore SIGINT, and would pass that on.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        with (folder / "out").open("w") as out, (folder / "errors").open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "maven_jax", *command],
                env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)},
                stdout=out,
                stderr=errors,
            )
        signal.signal(signal.SIGINT, before)
    try:
        yield _address(process, folder), temporary
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
        assert "its files are gone" in (folder / "errors").read_text()
        assert not list(temporary.glob("maven_jax*"))
    finally:
        process.kill()


def _address(process: subprocess.Popen, folder: Path) -> str:
    end = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < end:
        if "Ctrl-C ends it" in (text := (folder / "out").read_text()):
            return next(word for word in text.split() if word.startswith("http://127.0.0.1:"))
        time.sleep(0.1)
    raise AssertionError((folder / "errors").read_text())


def wait_for(chromium, css: str):
    """The first element of a selector, as soon as it is there."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(chromium, PATIENCE_S).until(
        lambda c: next(iter(c.find_elements("css selector", css)), None)
    )


def give(chromium, address: str, path: Path) -> None:
    """Opens the form, gives it a video and presses the button."""
    for kind in ("browser", "performance"):
        chromium.get_log(kind)
    chromium.get(address)
    wait_for(chromium, "#video input[type=file]").send_keys(str(path))
    wait_for(chromium, "#video video")
    chromium.find_element("id", "predict").click()


@contextlib.contextmanager
def framed(chromium):
    """The page of a prediction, inside the form's."""
    chromium.switch_to.frame(wait_for(chromium, "#page iframe"))
    yield chromium
    chromium.switch_to.default_content()


@pytest.mark.slow
def test_a_file_gives_its_page_and_its_table(chromium, served, clip):
    address, temporary = served
    give(chromium, address, clip)
    with framed(chromium):
        assert wait_for(chromium, "h1").text.startswith("clip")
        assert "weak evidence" in chromium.find_element("css selector", ".banner").text
        assert settled(chromium)["video"] == 0
    links = [a.get_attribute("href") for a in chromium.find_elements("css selector", "#files a")]
    assert {Path(link).name for link in links} >= {"clip.csv", "clip.html"}
    table = next(temporary.glob("maven_jax*/results/*/clip.csv"))
    with table.open() as file:
        assert len(list(csv.DictReader(file))) == 12
    assert {r.split("/")[2] for r in requests(chromium) if r.startswith("http")} == {address[7:]}
    assert not [row for row in chromium.get_log("browser") if row["level"] == "SEVERE"]


@pytest.mark.slow
def test_a_recording_by_the_camera_is_predicted(served, portraits, tmp_path):
    camera = tmp_path / "camera.mjpeg"
    camera.write_bytes(
        b"".join(cv2.imencode(".jpg", i[:, :, ::-1])[1].tobytes() for i in portraits)
    )
    (tmp_path / "profile").mkdir()
    flags = (
        "use-fake-device-for-media-stream",
        "use-fake-ui-for-media-stream",
        f"use-file-for-fake-video-capture={camera}",
    )
    with driven(tmp_path / "profile", *flags) as chromium:
        chromium.get(served[0])
        wait_for(chromium, "#video [aria-label='Capture from camera']").click()
        wait_for(chromium, "#video .icon-wrap").click()  # asks for the camera
        wait_for(chromium, "#video [title='start recording']").click()
        time.sleep(1.5)
        wait_for(chromium, "#video [title='stop recording']").click()
        wait_for(chromium, "#video video[src]")
        chromium.find_element("id", "predict").click()
        with framed(chromium):
            assert "weak evidence" in wait_for(chromium, ".banner").text
            assert settled(chromium)["boxed"]


@pytest.mark.slow
def test_what_is_no_video_is_one_line(chromium, served, tmp_path):
    (tmp_path / "no.mp4").write_text("no video at all")
    chromium.get(served[0])
    wait_for(chromium, "#predict").click()
    assert "drop a video first" in wait_for(chromium, "#said [role=alert]").text
    give(chromium, served[0], tmp_path / "no.mp4")
    assert wait_for(chromium, "#said [role=alert]").text.startswith("no.mp4: ")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--port", "70000"], "--port 70000: expected a number from 0 to 65535"),
        (["--checkpoint", "a", "--affect", "b"], "--affect is for predictions without"),
        (["--face-threshold", "3"], "threshold of faces"),
        (["--wrokers", "3"], "did you mean --workers?"),
    ],
)
def test_mistakes_end_in_one_line(arguments, line, capsys):
    assert main(["app", *arguments]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


def test_without_the_extra_the_line_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["app"]) == 2
    assert "pip install 'maven_jax[app]'" in capsys.readouterr().err


def test_a_port_that_is_taken_is_named():
    with listening(0) as first:
        port = first.getsockname()[1]
        with pytest.raises(UserError, match=f"{port}: Address already in use"), listening(port):
            pass
