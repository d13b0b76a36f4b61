"""What requests look like, and the conversation that a chat request holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from distime.errors import DisTimeError


class BadRequest(DisTimeError):
    """A request cannot be answered; the message says what to send instead."""


class TextPart(BaseModel):
    """Words of a message."""

    type: Literal["text"]
    text: str


class VideoURL(BaseModel):
    """Where a video is: a data URL, a file below the server's roots, or an address."""

    url: str


class VideoPart(BaseModel):
    """A video of a message."""

    type: Literal["video_url"]
    video_url: VideoURL


Part = Annotated[TextPart | VideoPart, Field(discriminator="type")]


class Message(BaseModel):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]


class ChatRequest(BaseModel):
    """`POST /v1/chat/completions`, as OpenAI defines it, with one video in the conversation."""

    model_config = ConfigDict(extra="allow")

    model: str = ""
    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=10)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = None
    n: int = Field(1, ge=1, le=16)
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    num_frames: int | None = Field(None, ge=1, le=2048)


class GroundRequest(BaseModel):
    """`POST /v1/ground`: when things happen in a video."""

    model_config = ConfigDict(extra="forbid")

    video: str
    queries: list[str] = Field(min_length=1)
    num_frames: int | None = Field(None, ge=1, le=2048)
    max_tokens: int | None = Field(None, ge=1)
    distributions: bool = False


IGNORED = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
"""Fields of OpenAI's that change no answer."""


@dataclass(frozen=True)
class Conversation:
    """What a chat request asks.

    Attributes:
        video: its URL.
        question: the last turn.
        history: (question, answer) pairs before it.
    """

    video: str
    question: str
    history: list[tuple[str, str]]


def read_conversation(request: ChatRequest) -> Conversation:
    """Find the video and the turns.

    Raises:
        BadRequest: a field that is not supported, no video or several, turns out of order.
    """
    given = {name for name, value in (request.model_extra or {}).items() if value is not None}
    if unknown := sorted(given - IGNORED):
        raise BadRequest(f"{unknown[0]}: not supported here; leave it out")
    if any(message.role in ("system", "developer") for message in request.messages):
        raise BadRequest(
            "messages: the model answers under the system message that it was trained with; "
            "leave that role out"
        )
    roles = [message.role for message in request.messages]
    if roles != (["user", "assistant"] * len(roles))[: len(roles)] or roles[-1] != "user":
        raise BadRequest("messages: user and assistant take turns, and the user has the last word")
    videos = [
        (number, part.video_url.url)
        for number, message in enumerate(request.messages)
        if isinstance(message.content, list)
        for part in message.content
        if isinstance(part, VideoPart)
    ]
    if len(videos) != 1 or videos[0][0] != 0:
        raise BadRequest(
            f"messages: {len(videos)} videos; give one video_url part, in the first message"
        )
    texts = [_text(message) for message in request.messages]
    if not texts[-1].strip():
        raise BadRequest("messages: the last one asks nothing; give it a text part")
    pairs = zip(texts[0:-1:2], texts[1:-1:2], strict=True)
    return Conversation(videos[0][1], texts[-1], list(pairs))


def _text(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part.text for part in message.content if isinstance(part, TextPart))
