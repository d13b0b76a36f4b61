"""The page: a gradio app around a `Responder`."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distime.data.synthetic import make_video, write_video
from distime.demo.responder import (
    ASK,
    FIND,
    LIST,
    MODES,
    VIDEO_SUFFIXES,
    DemoError,
    Limits,
    Responder,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import gradio

    from distime.api import DisTime

logger = logging.getLogger(__name__)

_CSS = """
.distime-stage { position: relative; }
.distime-stage .event { cursor: pointer; }
.distime-stage .event:hover > rect:first-of-type { fill: currentColor; fill-opacity: 0.07; }
.distime-playhead { position: absolute; top: 0; bottom: 22px; width: 2px; left: 1.2%;
  background: #d00; pointer-events: none; }
.distime-answer { font-size: 1.15em; }
.distime-answer button, .distime-chapters button { cursor: pointer; border-radius: 4px;
  padding: 0 0.35em; background: rgb(106 76 147 / 0.15); text-align: left; }
.distime-chapters { list-style: none; padding: 0; }
.distime-chapters button { width: 100%; margin: 2px 0; padding: 4px 8px; white-space: pre-wrap; }
.distime-chapters button.now { background: rgb(106 76 147 / 0.4); }
.distime-details th { text-align: left; padding-right: 1em; }
"""

# Anything with data-start seeks; the playhead and the current chapter follow the player. Media
# events do not bubble, so they are caught on their way down. The timeline's picture is 1000 wide
# with a margin of 12 on either side.
_JS = """
() => {
  const player = () => document.querySelector('#distime-video video');
  document.addEventListener('click', (event) => {
    const target = event.target.closest('[data-start]');
    const video = player();
    if (!target || !video) return;
    video.currentTime = Number(target.dataset.start);
    video.play();
  });
  document.addEventListener('timeupdate', (event) => {
    if (event.target !== player()) return;
    const now = event.target.currentTime;
    for (const line of document.querySelectorAll('.distime-playhead')) {
      const part = Math.min(now / Number(line.dataset.duration), 1);
      line.style.left = `${1.2 + 97.6 * part}%`;
    }
    for (const chapter of document.querySelectorAll('.distime-chapters button')) {
      const inside = Number(chapter.dataset.start) <= now && now <= Number(chapter.dataset.end);
      chapter.classList.toggle('now', inside);
    }
  }, true);
}
"""


def import_gradio() -> Any:
    """Return the module.

    Raises:
        DemoError: it is not installed; says how to install it.
    """
    # Gradio would otherwise tell its makers of every start.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ImportError as error:
        raise DemoError(
            f"the demo needs gradio ({error}): pip install -r requirements-demo.txt"
        ) from error
    return gradio


def build_page(responder: Responder, examples: Sequence[Sequence[str]] = ()) -> gradio.Blocks:
    """Lay the page out.

    Args:
        responder: answers.
        examples: rows of (path of a video, one of `MODES`, question).
    """
    gr = import_gradio()

    def respond(video: str | None, mode: str, question: str) -> tuple[str, str, str, str, str]:
        try:
            reply = responder(video, mode, question)
        except DemoError as error:
            raise gr.Error(str(error), print_exception=False) from None
        except Exception:
            logger.exception("a request failed")
            raise gr.Error("Something failed here; the log says what.") from None
        return reply.answer, reply.timeline, reply.chapters, reply.prompt, reply.details

    limits = responder.limits
    # Uploads are deleted an hour after they came.
    with gr.Blocks(title="DisTime", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        kinds = ", ".join(suffix[1:] for suffix in VIDEO_SUFFIXES)
        gr.Markdown(
            "# DisTime\nVideo language models that say *when*. Choose a video, ask, and click a "
            f"time to see it. Videos of at most {limits.megabytes} MB and "
            f"{limits.seconds / 60:.0f} minutes ({kinds}); they are deleted after an hour."
        )
        with gr.Row():
            with gr.Column(scale=3):
                video = gr.Video(
                    label="Video",
                    sources=["upload"],
                    include_audio=True,
                    elem_id="distime-video",
                    height=360,
                )
                timeline = gr.HTML(elem_id="distime-timeline")
            with gr.Column(scale=2):
                mode = gr.Radio(MODES, value=FIND, label="Mode", elem_id="distime-mode")
                question = gr.Textbox(
                    label="Question",
                    placeholder="the person closes the door",
                    max_length=2000,
                    elem_id="distime-question",
                )
                ask = gr.Button("Ask", variant="primary", elem_id="distime-ask")
                answer = gr.HTML(elem_id="distime-answer")
                chapters = gr.HTML(elem_id="distime-chapters")
                with gr.Accordion("How it was asked", open=False, elem_id="distime-how"):
                    details = gr.HTML(elem_id="distime-details")
                    prompt = gr.Textbox(
                        label="Prompt", lines=6, max_lines=20, elem_id="distime-prompt"
                    )
        if examples:
            gr.Examples([list(row) for row in examples], [video, mode, question], label="Examples")
        outputs = [answer, timeline, chapters, prompt, details]
        gr.on(
            [ask.click, question.submit],
            respond,
            [video, mode, question],
            outputs,
            api_name="ask",
            concurrency_limit=1,
            show_progress_on=answer,
        )
        # An answer belongs to the video it was given about.
        video.change(lambda: [""] * len(outputs), None, outputs, api_visibility="private")
    return page.queue(max_size=32)


def write_examples(folder: Path, count: int = 3) -> list[tuple[str, str, str]]:
    """Write synthetic videos and return rows for `build_page`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in range(count):
        video = make_video(seed)
        query = video.events[0].query
        kinds = ((FIND, query), (LIST, ""), (ASK, "What happens in this video, and when?"))
        rows.append((str(write_video(video, folder)), *kinds[seed % 3]))
    return rows


@contextmanager
def serving(
    model: DisTime,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    limits: Limits | None = None,
    num_examples: int = 3,
) -> Iterator[str]:
    """Serve the page while the context lasts.

    Uploads and examples lie in a temporary folder of their own, the only one that requests can
    reach, and are gone afterwards.

    Args:
        model: answers.
        host: address to listen on; "0.0.0.0" for all of the machine's.
        port: by default the first free one from 7860.
        limits: of a request.
        num_examples: synthetic videos to write.

    Yields:
        the address of the page.

    Raises:
        DemoError: gradio is not installed, or the port is taken.
    """
    gr = import_gradio()
    limits = limits or Limits()
    with tempfile.TemporaryDirectory(prefix="distime-demo-") as name:
        folder = Path(name).resolve()
        # By default gradio's uploads share one folder with those of every other gradio app.
        before = os.environ.get("GRADIO_TEMP_DIR")
        os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")
        try:
            rows = write_examples(folder / "examples", num_examples)
            page = build_page(Responder(model, [folder], limits), rows)
            fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}
            try:
                _, address, _ = page.launch(
                    server_name=host,
                    server_port=port,
                    prevent_thread_lock=True,
                    quiet=True,
                    share=False,
                    max_file_size=limits.megabytes * 1_000_000,
                    allowed_paths=[str(folder / "examples")],
                    footer_links=[],
                    css=_CSS,
                    js=_JS,
                    # The usual fonts come from the network.
                    theme=gr.themes.Default(**fonts),
                )
            except OSError as error:
                raise DemoError(f"cannot listen on {host}, port {port}: {error}") from error
            try:
                yield address
            finally:
                page.close(verbose=False)
        finally:
            if before is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = before
