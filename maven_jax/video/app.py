"""A page in the browser that takes a video and shows its prediction; for this machine only.

Gradio draws the form. Nothing of its page may come from, or go to, another machine: its reports of
use are off, its fonts are the system's, and a content security policy keeps the browser from what
is left.
"""

from __future__ import annotations

import contextlib
import html
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maven_jax.errors import UserError, explain
from maven_jax.media.face_search import FaceSearch
from maven_jax.progress import complain, say
from maven_jax.video.predictor import VideoPredictor
from maven_jax.video.show.page import write_page

_HOST = "127.0.0.1"
_FACES = ("largest", "longest", "left", "right")
# Gradio's page needs scripts inside it, and code made of text.
_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; form-action 'self'; base-uri 'self'; frame-ancestors 'none'"
)
# Our page in the form's: it may run its scripts, which reach neither the form nor the server.
_SANDBOX = "allow-scripts allow-downloads"
_CSS = "footer {display: none !important} iframe {width: 100%; height: 1400px; border: 0}"


@contextlib.contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """A socket that takes connections from this machine only.

    Args:
        port: 0 for any that is free.

    Raises:
        UserError: another program has the port.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_HOST, port))
            listener.listen()  # who comes before `serve` waits
        except OSError as error:
            raise UserError(
                f"--port {port}: {error.strerror}; take another, or 0 for any"
            ) from error
        yield listener


def address(listener: socket.socket) -> str:
    """Where a browser finds the page."""
    return f"http://{_HOST}:{listener.getsockname()[1]}"


def serve(predictor: VideoPredictor, search: FaceSearch, listener: socket.socket) -> None:
    """Serves the page until an interruption.

    Args:
        predictor: of all videos.
        search: how faces are looked for.
        listener: see `listening`.
    """
    with _everything_in("maven_jax-app-") as folder:
        # Read when Gradio is imported: uploads go there, nothing is counted.
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        import uvicorn  # pyright: ignore[reportMissingImports]

        config = uvicorn.Config(
            _site(_Form(predictor, search, Path(folder))),
            log_level="critical",  # a prediction that is interrupted would be a traceback
            timeout_graceful_shutdown=1,  # a page that is still open keeps a connection
        )
        # As Ctrl-C does, it ends the block.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        uvicorn.Server(config).run(sockets=[listener])


@contextlib.contextmanager
def _everything_in(prefix: str) -> Iterator[str]:
    """A new folder for all temporary files of this process, which goes when the block ends."""
    folder = tempfile.tempdir = tempfile.mkdtemp(prefix=prefix)
    try:
        yield folder
    finally:
        # A prediction that is still at work may write between the first time and the second.
        for _ in range(2):
            shutil.rmtree(folder, ignore_errors=True)
        tempfile.tempdir = None


class _Form:
    """What a visitor gives, and the pages made of it.

    Attributes:
        folder: where everything is kept.
        pages: key of an address -> HTML file.
    """

    def __init__(self, predictor: VideoPredictor, search: FaceSearch, folder: Path):
        self.folder, self.pages = folder, dict[str, Path]()
        self._predictor, self._search = predictor, search

    def blocks(self) -> Any:
        """Gradio's form."""
        import gradio as gr  # pyright: ignore[reportMissingImports]

        with gr.Blocks(title="maven_jax", analytics_enabled=False) as blocks:
            with gr.Row():
                video = gr.Video(label="Video", sources=["upload", "webcam"], elem_id="video")
                with gr.Column():
                    words = gr.File(
                        label="What is said (.srt, .vtt, .json, .TextGrid or .txt), if you have it",
                        file_types=[".srt", ".vtt", ".json", ".TextGrid", ".tsv", ".txt"],
                        height=160,
                    )
                    face = gr.Radio(_FACES, value=_FACES[0], label="Which face")
                    button = gr.Button("Predict", variant="primary", elem_id="predict")
            said = gr.HTML(elem_id="said")
            files = gr.File(label="Results", file_count="multiple", visible=False, elem_id="files")
            page = gr.HTML(elem_id="page")
            button.click(
                self.show, [video, words, face], [said, files, page], api_visibility="private"
            )
        return blocks

    def show(
        self, video: str | None, words: str | None, face: str
    ) -> tuple[str, dict[str, Any], str]:
        """What the button does.

        Returns:
            The summary or what is wrong, the files to download as Gradio's update, and the page.
        """
        import gradio as gr  # pyright: ignore[reportMissingImports]

        try:
            if video is None:
                raise UserError("drop a video first, or record one by the camera")
            summary, files, key = self._predict(Path(video), words, face)
        except Exception as error:
            line = explain(error)
            if line is None:  # a mistake of ours
                traceback.print_exc()
                line = f"{type(error).__name__}; the terminal shows more"
            line = line.replace(f"{Path(video).parent}/", "") if video else line
            complain("app", line)
            return f'<p role="alert">{html.escape(line)}</p>', gr.update(visible=False), ""
        frame = f'<iframe src="/pages/{key}" sandbox="{_SANDBOX}"></iframe>'
        return f"<pre>{html.escape(summary)}</pre>", gr.update(value=files, visible=True), frame

    def _predict(self, video: Path, words: str | None, face: str) -> tuple[str, list[str], str]:
        """Predicts as `maven-jax predict --html` does: summary, files, and the page's key."""
        prediction = self._predictor.predict(
            video, transcript=words, face=face, face_search=self._search, contributions=True
        )
        key = secrets.token_urlsafe(16)
        folder = self.folder / "results" / key
        folder.mkdir(parents=True)
        table, page = (folder / f"{prediction.stem}{ending}" for ending in (".csv", ".html"))
        prediction.to_csv(table)
        write_page(prediction, page, video)
        self.pages[key] = page
        summary = prediction.summary()
        say(summary)
        return summary, [str(table), str(page)], key


def _site(form: _Form) -> Any:
    """The form, its pages, and what a browser may do with both."""
    import fastapi  # pyright: ignore[reportMissingImports]
    import gradio as gr  # pyright: ignore[reportMissingImports]
    from fastapi.responses import FileResponse, Response  # pyright: ignore[reportMissingImports]
    from starlette.middleware.trustedhost import TrustedHostMiddleware  # pyright: ignore[reportMissingImports]

    site = fastapi.FastAPI(openapi_url=None)

    async def with_policy(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers.setdefault("Content-Security-Policy", _POLICY)
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    def page(key: str) -> Any:
        if key not in form.pages:
            return Response("no such page", status_code=404)
        policy = {"Content-Security-Policy": f"sandbox {_SANDBOX}"}
        return FileResponse(form.pages[key], media_type="text/html", headers=policy)

    site.middleware("http")(with_policy)
    # Else a site elsewhere could reach this one by a name of its own that leads here.
    site.add_middleware(TrustedHostMiddleware, allowed_hosts=[_HOST, "localhost"])
    site.get("/pages/{key}", response_model=None)(page)
    return gr.mount_gradio_app(
        site,
        form.blocks(),
        path="/",
        server_name=_HOST,
        footer_links=[],
        run_history=False,
        allowed_paths=[str(form.folder)],
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        theme=gr.themes.Base(
            font=[gr.themes.Font("system-ui"), gr.themes.Font("sans-serif")],
            font_mono=[gr.themes.Font("monospace")],
        ),
        css=_CSS,
    )
