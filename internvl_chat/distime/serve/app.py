"""The routes.

`POST /v1/chat/completions` and `GET /v1/models` are OpenAI's; `POST /v1/ground` answers in seconds;
`GET /health` says whether there is an engine, `GET /metrics` counts in Prometheus' format.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.exceptions import HTTPException as StarletteHTTPException

from distime.api import DisTime
from distime.engine import Busy, Finished, Service
from distime.errors import DisTimeError
from distime.processing.answers import Answer
from distime.processing.questions import moment_retrieval_question
from distime.serve.requests import ChatRequest, GroundRequest, read_conversation
from distime.serve.serve_settings import ServeSettings
from distime.serve.served_request import Growing, ServedRequest, event_dict

logger = logging.getLogger(__name__)


class Metrics:
    """Counts of a server, in a registry of their own."""

    def __init__(self, service: Service):
        self.registry = CollectorRegistry()
        options = {"registry": self.registry}
        self.requests = Counter(
            "distime_requests_total", "Requests by route and status", ["route", "status"], **options
        )
        self.seconds = Histogram(
            "distime_request_seconds", "Seconds of a request", ["route"], **options
        )
        self.tokens = Counter("distime_generated_tokens_total", "Tokens generated", **options)
        waiting = Gauge("distime_unfinished_requests", "Requests in the engine", **options)
        waiting.set_function(lambda: len(service))


def make_app(model: DisTime, settings: ServeSettings, service: Service | None = None) -> FastAPI:
    """Make the application of a server.

    Args:
        model: answers; its engine is used by this server alone.
        settings: bounds.
        service: the engine at work; by default one is started with the server and ended with it.
    """
    service = service or Service(model.engine, settings.max_waiting)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close, settings.timeout)

    app = FastAPI(title="DisTime", lifespan=lifespan)
    metrics = Metrics(service)
    app.state.service = service
    created, too_slow = int(time.time()), f"not answered within {settings.timeout:g} s"

    # ---------------------------------------------------------------- what every request passes

    app.add_middleware(Counted, metrics=metrics)
    app.add_middleware(BoundedBody, limit=settings.max_body)

    async def allowed(request: Request) -> None:
        if settings.api_key is None:
            return
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), settings.api_key.encode()):
            raise HTTPException(401, "the API key is missing or wrong")

    @app.exception_handler(DisTimeError)
    async def refused(_: Request, error: DisTimeError) -> JSONResponse:
        if isinstance(error, Busy):
            return failure(429, str(error), {"Retry-After": "1"})
        return failure(400, str(error))

    @app.exception_handler(StarletteHTTPException)
    async def http_error(_: Request, error: StarletteHTTPException) -> JSONResponse:
        return failure(error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        return failure(400, f"{place}: {first['msg']}" if place else first["msg"])

    async def finished(asked: ServedRequest, request: Request) -> Finished:
        """Wait for a job while its client does.

        Raises:
            HTTPException: it took too long, or the client left.
        """
        future = asyncio.wrap_future(service.submit(asked.job))
        deadline = time.monotonic() + settings.timeout
        try:
            while not (await asyncio.wait({future}, timeout=0.2))[0]:
                if await request.is_disconnected():
                    raise HTTPException(499, "the client left")
                if time.monotonic() > deadline:
                    raise HTTPException(504, too_slow)
        finally:
            asked.job.cancel()
        metrics.tokens.inc(asked.completion_tokens)
        return result(future.result())

    # ---------------------------------------------------------------- routes

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "unfinished": len(service)}

    @app.get("/metrics")
    async def prometheus() -> Response:
        return Response(generate_latest(metrics.registry), media_type="text/plain; version=0.0.4")

    @app.get("/v1/models", dependencies=[Depends(allowed)])
    async def models() -> dict[str, Any]:
        entry = {"id": settings.model_name, "object": "model", "created": created}
        return {"object": "list", "data": [entry | {"owned_by": "distime"}]}

    @app.post("/v1/ground", dependencies=[Depends(allowed)])
    async def ground(body: GroundRequest, request: Request) -> dict[str, Any]:
        if len(body.queries) > settings.max_queries:
            raise HTTPException(400, f"queries: at most {settings.max_queries} at once")
        limit = min(body.max_tokens or settings.max_new_tokens, settings.max_new_tokens)
        questions = [moment_retrieval_question(query) for query in body.queries]
        asked = ServedRequest(
            model,
            settings,
            body.video,
            questions,
            num_frames=body.num_frames,
            max_new_tokens=limit,
        )
        body.video = ""
        answers = model.results(await finished(asked, request))
        results = []
        for query, answer in zip(body.queries, answers, strict=True):
            if not isinstance(answer, Answer):
                results.append({"query": query, "error": str(answer)})
                continue
            events = sorted(answer.events, key=lambda event: -event.confidence)
            shown = [event_dict(event, distributions=body.distributions) for event in events]
            results.append({"query": query, "events": shown, "text": answer.readable})
        duration = next((one.duration for one in answers if isinstance(one, Answer)), None)
        return {"model": settings.model_name, "duration": duration, "results": results}

    @app.post("/v1/chat/completions", dependencies=[Depends(allowed)])
    async def chat(body: ChatRequest, request: Request) -> Any:
        if body.model not in ("", settings.model_name):
            raise HTTPException(404, f"model: there is {settings.model_name} here")
        conversation = read_conversation(body)
        body.messages.clear()  # an upload is large
        head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": settings.model_name,
        }
        limit = body.max_completion_tokens or body.max_tokens or settings.max_new_tokens
        options = {
            "history": conversation.history,
            "num_frames": body.num_frames,
            "max_new_tokens": min(limit, settings.max_new_tokens),
            "samples": body.n,
            "seed": body.seed,
            **sampling(body),
        }
        arguments = (model, settings, conversation.video, [conversation.question])
        if body.stream:
            usage = bool((body.stream_options or {}).get("include_usage"))
            events = streamed(arguments, options, head, usage)
            # The first piece is waited for, so that what is refused has its status.
            first = await anext(events)
            return StreamingResponse(joined(first, events), media_type="text/event-stream")
        asked = ServedRequest(*arguments, **options)
        done = await finished(asked, request)
        choices = [
            {
                "index": number,
                "message": {"role": "assistant", "content": answer.readable, **said(answer)},
                "finish_reason": asked.finish_reason(number),
                "logprobs": None,
            }
            for number, answer in enumerate(model.samples(done)[0])
        ]
        return head | {
            "object": "chat.completion",
            "choices": choices,
            "usage": used(asked),
        }

    async def streamed(
        arguments: tuple, options: dict[str, Any], head: dict[str, Any], usage: bool
    ) -> AsyncIterator[str]:
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue()
        growing: dict[int, Growing] = {}

        def hear(sample: int, text: str, events: list) -> None:
            new, fresh = growing.setdefault(sample, Growing()).piece(text, events)
            if new:
                loop.call_soon_threadsafe(pieces.put_nowait, (sample, new, fresh))

        asked = ServedRequest(*arguments, on_text=hear, **options)
        future = service.submit(asked.job)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(pieces.put_nowait, None))
        head = head | {"object": "chat.completion.chunk"}

        def chunk(sample: int, delta: dict[str, Any], reason: str | None = None) -> str:
            choice = {"index": sample, "delta": delta, "finish_reason": reason}
            return f"data: {json.dumps(head | {'choices': [choice]}, ensure_ascii=False)}\n\n"

        deadline = time.monotonic() + settings.timeout
        try:
            while True:
                left = deadline - time.monotonic()
                try:
                    piece = await asyncio.wait_for(pieces.get(), max(left, 0.01))
                except TimeoutError:
                    raise HTTPException(
                        504, f"not answered within {settings.timeout:g} s"
                    ) from None
                if piece is None:
                    break
                sample, new, fresh = piece
                delta = {"role": "assistant", "content": new}
                if fresh:
                    delta["distime"] = {"events": [event_dict(event) for event in fresh]}
                yield chunk(sample, delta)
            done = result(future.result())
            for number, answer in enumerate(model.samples(done)[0]):
                # What the last tokens added, and what was held back.
                rest = answer.readable[len(growing.get(number, Growing()).sent) :]
                yield chunk(number, {"role": "assistant", "content": rest, **said(answer)})
                yield chunk(number, {}, asked.finish_reason(number))
            if usage:
                last = head | {"choices": [], "usage": used(asked)}
                yield f"data: {json.dumps(last)}\n\n"
            yield "data: [DONE]\n\n"
        finally:
            asked.job.cancel()
            metrics.tokens.inc(asked.completion_tokens)

    return app


def failure(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error in the form that OpenAI's clients read."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": None, "code": None}
    return JSONResponse({"error": error}, status, headers)


def result(finished: Finished) -> Finished:
    """Return a finished job, or raise what ended it.

    Raises:
        DisTimeError: the request's fault, or its video's.
        HTTPException: ours.
    """
    error = finished.error
    if isinstance(error, DisTimeError):
        raise error
    if error is not None:
        logger.error("a request failed", exc_info=error)
        raise HTTPException(500, "the server failed at this request; its log says how")
    return finished


def sampling(body: ChatRequest) -> dict[str, Any]:
    """How to draw: the likeliest answer unless a temperature or several answers are asked for."""
    if not body.temperature and body.n == 1:
        return {}
    return {
        "do_sample": True,
        "temperature": body.temperature or 1.0,
        "top_p": body.top_p or 1.0,
        "top_k": 0,
    }


def said(answer: Answer) -> dict[str, Any]:
    """What an answer is beyond its words."""
    return {
        "distime": {
            "events": [event_dict(event) for event in answer.events],
            "duration": answer.duration,
        }
    }


def used(asked: ServedRequest) -> dict[str, int]:
    """Tokens of a request."""
    prompt, completion = asked.prompt_tokens, asked.completion_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


async def joined(first: str, rest: AsyncIterator[str]) -> AsyncIterator[str]:
    """The first piece, then the others; errors become the last piece of a stream."""
    try:
        yield first
        async for piece in rest:
            yield piece
    except (DisTimeError, HTTPException) as error:
        message = str(getattr(error, "detail", error))
        yield f"data: {json.dumps({'error': {'message': message}})}\n\n"
    finally:
        await rest.aclose()


class Counted:
    """Counts requests by route and status, and their seconds."""

    def __init__(self, app: Any, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        """Pass a request on, and see how it ends."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), "aborted"

        async def seen(message: dict) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self.app(scope, receive, seen)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(path, status).inc()
            self.metrics.seconds.labels(path).observe(time.perf_counter() - started)


class BoundedBody:
    """Refuses requests whose body is larger than a limit, said or found."""

    def __init__(self, app: Any, limit: int):
        self.app, self.limit = app, limit

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        """Pass a request on, and count its bytes."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        said = headers.get(b"content-length", b"0")
        seen, refuse = 0, failure(413, f"at most {self.limit:,} bytes are taken here")
        if not said.isdigit() or int(said) > self.limit:
            await refuse(scope, receive, send)
            return

        async def counted() -> dict:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.limit:
                raise HTTPException(413, f"at most {self.limit:,} bytes are taken here")
            return message

        await self.app(scope, counted, send)
