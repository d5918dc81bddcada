"""The page's layout, and what happens when a question is sent.

Knows Gradio's components and the script's element ids. page.js draws the player and the timeline
from /watch/state. No file component of Gradio is used: Gradio would serve whatever those take in.
"""

import html
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from pipeline.demo.answer_html import render_conversation
from pipeline.demo.conversations import Conversations
from pipeline.live.session import MAX_QUESTION_CHARS
from pipeline.server.page.routes import ASSETS

HERE = Path(__file__).parent
CSS = (ASSETS / "components.css").read_text() + (HERE / "page.css").read_text()
SCRIPT = (ASSETS / "common.js").read_text() + (HERE / "page.js").read_text()

_HEAD = """
<header class="top">
  <h1>Reelbank</h1>
  <p>Show it a video or a camera, and ask while it runs.</p>
</header>
"""

_SOURCES = """
<section class="sources" aria-label="What to watch">
  <div class="row">
    <button type="button" class="act first" id="pick">Choose a file</button>
    <input type="file" id="file" accept="video/*,.mkv,.avi,.ts,.mp4,.mov,.webm" tabindex="-1"
      aria-label="Video file" hidden>
    <button type="button" class="act" id="camera">Camera</button>
    <button type="button" class="act" id="screen">Screen</button>
  </div>
  <form class="row" id="address-form">
    <label class="hidden" for="address">Address of a stream or camera</label>
    <input type="text" id="address" maxlength="2000" autocomplete="off" spellcheck="false"
      placeholder="rtsp://… or camera:0">
    <button type="submit" class="act">Watch</button>
  </form>
  <label class="check"><input type="checkbox" id="real-time" checked>
    Play files at real time, not as fast as they encode</label>
  <p id="told" role="status" aria-live="polite"></p>
</section>
"""

_PLAYER = """
<section class="stage" aria-label="Video">
  <div class="screen" id="screen-box">
    <video id="player" playsinline muted controls preload="metadata" aria-label="Video"></video>
    <img id="still" alt="">
    <p id="empty">Nothing is being watched yet.</p>
    <span id="badge" hidden></span>
    <button type="button" class="act" id="back" hidden>Back to live</button>
  </div>
  <div class="caption"><strong id="title"></strong><span id="clock"></span>
    <button type="button" class="act small" id="stop" hidden>Stop</button></div>
  <div class="timeline" id="timeline" role="group" aria-label="Timeline of the memory" hidden>
    <div class="track" id="track"></div>
    <div class="ticks" id="ticks" aria-hidden="true"></div>
    <ol class="thumbs" id="thumbs" aria-label="Moments of the video"></ol>
    <p class="legend" aria-hidden="true"><i class="seen"></i>in memory
      <i class="read"></i>read for the answer
      <i class="cited"></i>cited</p>
  </div>
</section>
"""

_FIGURES = '<dl class="figures" id="figures" aria-label="Figures"></dl>'


_ALERTS = """
<section class="standing" aria-label="Standing requests">
  <form id="request-form">
    <label for="request">Tell me when…</label>
    <div class="row">
      <input type="text" id="request" maxlength="300" autocomplete="off"
        placeholder="a red star appears">
      <button type="submit" class="act">Add</button>
    </div>
  </form>
  <p id="refused" role="status" aria-live="polite"></p>
  <ul id="requests" aria-label="Requests"></ul>
  <ul id="notices" aria-label="What was told" aria-live="polite"></ul>
</section>
"""


def build(conversations: Conversations, about: str) -> gr.Blocks:
    """The page's components and event handlers. about: a sentence below the page; "" = none."""
    with gr.Blocks(title="Reelbank", analytics_enabled=False) as page:
        gr.HTML(_HEAD, elem_id="top", js_on_load=None)
        with gr.Row(elem_id="body"):
            with gr.Column(scale=3, min_width=340, elem_id="left"):
                gr.HTML(_SOURCES, elem_id="sources", js_on_load=None)
                gr.HTML(_PLAYER, elem_id="stage", js_on_load=None)
                gr.HTML(_FIGURES, elem_id="numbers", js_on_load=None)
            with gr.Column(scale=2, min_width=340, elem_id="right"):
                _add_conversation(conversations)
                gr.HTML(_ALERTS, elem_id="standing", js_on_load=None)
                gr.HTML(
                    f'<p class="about">{html.escape(about)}</p>', elem_id="about", js_on_load=None
                )
    page.queue(max_size=64, api_open=False)
    return page


def _add_conversation(conversations: Conversations) -> None:
    """Answers, question box, and buttons, with their handlers, in the current column."""
    conversation = gr.HTML(render_conversation(()), elem_id="talk", js_on_load=None)
    with gr.Row(elem_id="asking"):
        question = gr.Textbox(
            label="Your question",
            placeholder="What is the code on the card?",
            max_length=MAX_QUESTION_CHARS,
            elem_id="question",
            lines=1,
            max_lines=4,
            scale=5,
            min_width=200,
        )
        send = gr.Button("Ask", variant="primary", elem_id="send", scale=1, min_width=72)
        stop = gr.Button("Stop", elem_id="quiet", scale=1, min_width=72, visible=False)
    for trigger in (question.submit, send.click):
        trigger(
            _ask_handler(conversations),
            [question],
            [conversation, question, send, stop],
            show_progress="hidden",
            concurrency_limit=16,
            trigger_mode="multiple",
            concurrency_id="ask",
            api_visibility="private",
        )
    stop.click(
        _stop_handler(conversations),
        None,
        None,
        show_progress="hidden",
        queue=False,
        api_visibility="private",
    )


def _ask_handler(conversations: Conversations) -> Callable[..., Iterator[tuple[Any, ...]]]:
    def ask(text: str, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Yield the conversation as the answer grows. Clears the input box once, at the first
        update, so that the next question can be typed.
        """
        box_update: Any = ""
        for exchanges in conversations.get(str(request.session_hash)).ask(text):
            running = exchanges[-1].state == "running"
            yield (
                render_conversation(exchanges),
                box_update,
                gr.update(visible=not running),
                gr.update(visible=running),
            )
            box_update = gr.skip()

    return ask


def _stop_handler(conversations: Conversations) -> Callable[..., None]:
    def stop(request: gr.Request) -> None:
        conversations.get(str(request.session_hash)).cancel()

    return stop
