"""The page: a gradio app around a `Responder`."""

# Annotations are evaluated here: by that of `request` gradio knows what to hand over.
import logging
import os
import tempfile
import threading
import uuid
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from distime.errors import DisTimeError
from distime.serve.demo.preview import plays_in_browsers, write_preview
from distime.serve.demo.responder import (
    ASK,
    FIND,
    LIST,
    MODES,
    VIDEO_SUFFIXES,
    DemoError,
    DemoLimits,
    Reply,
    Responder,
)
from distime.toy.synthetic import make_video, render, write_video

if TYPE_CHECKING:
    from collections.abc import Iterator

    import gradio

    from distime.api import DisTime

logger = logging.getLogger(__name__)

TOGETHER = 8
"""Requests that are worked on at once; the engine decodes their answers in one batch."""

_CSS = """
.distime-stage { position: relative; }
.distime-stage .event { cursor: pointer; }
.distime-stage .event:hover > rect:first-of-type { fill: currentColor; fill-opacity: 0.07; }
.distime-stage svg { display: block; }
.distime-playhead { position: absolute; top: 24px; bottom: 22px; width: 2px; left: 0;
  background: #d00; pointer-events: none; }
.distime-answer { font-size: 1.15em; }
.distime-answer button, .distime-chapters button { cursor: pointer; border-radius: 4px;
  padding: 0 0.35em; background: rgb(106 76 147 / 0.15); text-align: left; }
.distime-chapters { list-style: none; padding: 0; }
.distime-chapters button { width: 100%; margin: 2px 0; padding: 8px; white-space: pre-wrap; }
#distime-examples img { width: 100%; height: 100%; object-fit: cover; }
.distime-chapters button.now { background: rgb(106 76 147 / 0.4); }
.distime-downloads a { text-decoration: underline; padding: 0.5em; }
.distime-details td { overflow-wrap: anywhere; }
.distime-details th { text-align: left; padding-right: 1em; }
"""

# Anything with data-start seeks; the playhead and the current chapter follow the player. Media
# events do not bubble, so they are caught on their way down. What the browser does not play is
# replaced by a copy, and what is wrong with a file is said when something is asked: no cry before.
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
  document.addEventListener('error', (event) => {
    if (event.target.closest?.('#distime-video')) event.stopImmediatePropagation();
  }, true);
  document.addEventListener('timeupdate', (event) => {
    if (event.target !== player()) return;
    const now = event.target.currentTime;
    for (const line of document.querySelectorAll('.distime-playhead')) {
      const part = Math.min(now / Number(line.dataset.duration), 1);
      line.style.left = `${100 * part}%`;
    }
    for (const chapter of document.querySelectorAll('.distime-chapters button')) {
      const inside = Number(chapter.dataset.start) <= now && now <= Number(chapter.dataset.end);
      chapter.classList.toggle('now', inside);
    }
  }, true);
}
"""

_COPY = "Video (a copy without sound: browsers do not play this type)"


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


class Example(NamedTuple):
    """A question to start with: a video, a picture of what is asked for, and the question."""

    video: Path
    picture: Path
    mode: str
    question: str


def build_page(responder: Responder, examples: Sequence[Example] = ()) -> "gradio.Blocks":
    """Lay the page out.

    Args:
        responder: answers.
        examples: to choose from.
    """
    gr = import_gradio()
    stops: dict[str, threading.Event] = {}  # of the requests being answered, by session

    def reply_to(
        video: str | None, mode: str, question: str, stop: threading.Event | None = None
    ) -> Reply:
        try:
            return responder(video, mode, question, stop)
        except DemoError as error:
            raise gr.Error(str(error), print_exception=False) from None
        except Exception:
            logger.exception("a request failed")
            raise gr.Error("Something failed here; the log says what.") from None

    def show(
        video: str | None, mode: str, question: str, played: Played | None, request: gr.Request
    ) -> list[str]:
        if played is not None and video is not None and Path(video).name == played.name:
            video = played.original
        stop = stops[request.session_hash] = threading.Event()
        reply = reply_to(video, mode, question, stop)
        return [getattr(reply, name) for name in outputs]

    def answer_program(video: str | None, mode: str, question: str) -> dict[str, Any]:
        return reply_to(video, mode, question).data

    def stop_answer(request: gr.Request) -> str:
        if request.session_hash in stops:
            stops[request.session_hash].set()
        return '<p class="distime-none">Stopped.</p>'

    def make_playable(path: str, before: Played | None) -> tuple[Any, Played | None]:
        try:
            played = preview_of(responder, path)
        except DisTimeError:
            played = None  # what is wrong is said when something is asked about it
        if played is None:
            return gr.update(label="Video") if before else gr.skip(), None
        preview = str(Path(path).with_name(played.name))
        video.temp_files.add(preview)  # deleted with the uploads
        return gr.update(value=preview, label=_COPY), played

    limits = responder.limits
    # Uploads are deleted an hour after they came.
    with gr.Blocks(title="DisTime", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        kinds = ", ".join(suffix[1:] for suffix in VIDEO_SUFFIXES)
        named = f" Checkpoint: `{responder.checkpoint}`." if responder.checkpoint else ""
        gr.Markdown(
            "# DisTime\nVideo language models that say *when*. Choose a video, ask, and click a "
            f"time to see it. Videos of at most {limits.megabytes} MB and "
            f"{limits.seconds / 60:.0f} minutes ({kinds}); they are deleted after an hour.{named}"
        )
        played = gr.State(None)
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
                with gr.Row():
                    ask = gr.Button("Ask", variant="primary", scale=3, elem_id="distime-ask")
                    stop = gr.Button("Stop", scale=1, min_width=80, elem_id="distime-stop")
                answer = gr.HTML(elem_id="distime-answer")
                downloads = gr.HTML(elem_id="distime-downloads")
                chapters = gr.HTML(elem_id="distime-chapters")
                with gr.Accordion("How it was asked", open=False, elem_id="distime-how"):
                    details = gr.HTML(elem_id="distime-details")
                    prompt = gr.Textbox(
                        label="Prompt", lines=6, max_lines=20, elem_id="distime-prompt"
                    )
        if examples:
            chosen = gr.Dataset(
                label="Examples",
                components=["image", "textbox", "textbox"],
                headers=["", "Mode", "Question"],
                samples=[[str(one.picture), one.mode, one.question] for one in examples],
                type="index",
                elem_id="distime-examples",
            )
            chosen.click(
                lambda number: (
                    gr.update(value=str(examples[number].video), label="Video"),
                    *examples[number][2:],
                ),
                chosen,
                [video, mode, question],
                api_visibility="private",
            )
        outputs = {
            "answer": answer,
            "downloads": downloads,
            "timeline": timeline,
            "chapters": chapters,
            "prompt": prompt,
            "details": details,
        }
        asked = gr.on(
            [ask.click, question.submit],
            show,
            [video, mode, question, played],
            list(outputs.values()),
            api_visibility="private",
            concurrency_limit=TOGETHER,
            show_progress_on=answer,
        )
        stop.click(
            stop_answer, None, answer, cancels=[asked], queue=False, api_visibility="private"
        )
        # Programs have an entry of their own, and get data instead of HTML.
        gr.Button(visible=False).click(
            answer_program,
            [video, mode, question],
            gr.JSON(visible=False),
            api_name="ask",
            concurrency_limit=TOGETHER,
        )
        mode.change(
            lambda mode: gr.update(visible=mode != LIST),
            mode,
            question,
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
        video.upload(make_playable, [video, played], [video, played], api_visibility="private")
        # An answer belongs to the video it was given about.
        gr.on(
            [video.upload, video.clear, *([chosen.click] if examples else [])],
            lambda: [""] * len(outputs),
            None,
            list(outputs.values()),
            queue=False,
            api_visibility="private",
        )
    return page.queue(max_size=32)


@dataclass(frozen=True)
class Played:
    """A preview that the page plays: its file's name, and the path of the upload it stands for."""

    name: str
    original: str


def preview_of(responder: Responder, upload: str) -> Played | None:
    """Write a preview beside an upload that browsers do not play; None for one that they do.

    Raises:
        DemoError, VideoError: the upload cannot be used.
    """
    path = responder.check_video(upload)
    if plays_in_browsers(path):
        return None
    responder.check_length(path)
    preview = path.with_name(f"{path.stem}-{uuid.uuid4().hex[:8]}.mp4")
    write_preview(path, preview)
    return Played(preview.name, str(path))


def write_examples(folder: Path, count: int = 3) -> list[Example]:
    """Write synthetic videos, and pictures that show what is asked for, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    examples = []
    for seed in range(count):
        video = make_video(seed)
        event = video.events[0]
        path = write_video(video, folder)
        picture = path.with_suffix(".png")
        middle = round((event.start + event.end) / 2 * video.fps)
        Image.fromarray(render(video)[middle]).save(picture)
        kinds = ((FIND, event.query), (LIST, ""), (ASK, "What happens in this video, and when?"))
        examples.append(Example(path, picture, *kinds[seed % 3]))
    return examples


@contextmanager
def serving(
    model: "DisTime",
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    limits: DemoLimits | None = None,
    num_examples: int = 3,
    checkpoint: str = "",
) -> "Iterator[str]":
    """Serve the page while the context lasts.

    Uploads and examples lie in a temporary folder of their own, the only one that requests can
    reach, and are gone afterwards.

    Args:
        model: answers.
        host: address to listen on; "0.0.0.0" for all of the machine's.
        port: by default the first free one from 7860.
        limits: of a request.
        num_examples: synthetic videos to write.
        checkpoint: its name, shown on the page.

    Yields:
        the address of the page.

    Raises:
        DemoError: gradio is not installed, or the port is taken.
    """
    gr = import_gradio()
    limits = limits or DemoLimits()
    with tempfile.TemporaryDirectory(prefix="distime-demo-") as name:
        folder = Path(name).resolve()
        # By default gradio's uploads share one folder with those of every other gradio app.
        before = os.environ.get("GRADIO_TEMP_DIR")
        os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")
        try:
            rows = write_examples(folder / "examples", num_examples)
            responder = Responder(model, [folder], limits, checkpoint)
            page = build_page(responder, rows)
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
                responder.close()
        finally:
            if before is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = before
