"""The server: OpenAI's own client, grounding in seconds, and what is refused."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from answering import QUERIES
from distime.serve.serve_settings import ServeError, ServeSettings
from serve.conftest import data_url, message

pytest.importorskip("fastapi", reason='pip install "distime[serve]"')
openai = pytest.importorskip("openai", reason="the client that the server is tested with")


@pytest.fixture(scope="module")
def client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="-", max_retries=0) as client:
        yield client


def test_a_chat(client, model, videos):
    expected = model.chat(videos[0], QUERIES[0], max_new_tokens=12)
    for url in (data_url(videos[0]), videos[0].name, videos[0].as_uri()):
        reply = client.chat.completions.create(model="distime", messages=[message(url, QUERIES[0])])
        choice = reply.choices[0]
        assert choice.message.content == expected.readable
        assert choice.finish_reason in ("stop", "length")
        events = choice.message.distime["events"]
        assert [e["start"] for e in events] == pytest.approx([e.start for e in expected.events])
        assert reply.usage.completion_tokens <= 12 < reply.usage.prompt_tokens


def test_a_conversation(client, model, videos):
    first = model.chat(videos[0], QUERIES[0], max_new_tokens=12)
    history = [(QUERIES[0], first.readable)]
    expected = model.chat(videos[0], QUERIES[1], history, max_new_tokens=12)
    reply = client.chat.completions.create(
        model="distime",
        messages=[
            message(videos[0].name, QUERIES[0]),
            {"role": "assistant", "content": first.readable},
            {"role": "user", "content": QUERIES[1]},
        ],
    )
    assert reply.choices[0].message.content == expected.readable


def test_streaming_gives_words_and_times_as_they_come(client, model, videos):
    expected = model.chat(videos[0], QUERIES[1], max_new_tokens=12)
    stream = client.chat.completions.create(
        model="distime",
        messages=[message(data_url(videos[0]), QUERIES[1])],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == expected.readable
    assert sum(bool(delta.content) for delta in deltas) > 1
    early = [e for d in deltas[:-2] for e in (getattr(d, "distime", None) or {}).get("events", [])]
    assert [e["start"] for e in early] == pytest.approx([e.start for e in expected.events])
    assert chunks[-1].usage.completion_tokens > 0
    assert chunks[-2].choices[0].finish_reason in ("stop", "length")


def test_sampling_with_a_seed(client, videos):
    def ask(**options):
        reply = client.chat.completions.create(
            model="distime",
            messages=[message(videos[0].name, QUERIES[0])],
            temperature=5,
            **options,
        )
        return [choice.message.content for choice in reply.choices]

    assert ask(seed=1, n=3) == ask(seed=1, n=3)
    assert len(set(ask(seed=1, n=3))) > 1


def test_ground(address, model, videos):
    body = {"video": videos[0].name, "queries": QUERIES[:2], "distributions": True}
    reply = httpx.post(f"{address}/v1/ground", json=body, timeout=60).json()
    for query, result in zip(QUERIES[:2], reply["results"], strict=True):
        expected = model.ground(videos[0], query, max_new_tokens=12)
        assert result["query"] == query
        assert [e["start"] for e in result["events"]] == pytest.approx([e.start for e in expected])
        assert all(len(e["distribution"]) == 2 for e in result["events"])
    assert reply["duration"] == pytest.approx(expected.duration)


def test_a_question_that_cannot_be_asked_costs_itself_alone(address, videos):
    body = {"video": videos[0].name, "queries": ["a <IMG_CONTEXT> b", QUERIES[0]]}
    bad, good = httpx.post(f"{address}/v1/ground", json=body, timeout=60).json()["results"]
    assert "<IMG_CONTEXT>" in bad["error"]
    assert good["events"]


def test_models_health_and_metrics(client, address):
    assert [entry.id for entry in client.models.list()] == ["distime"]
    assert httpx.get(f"{address}/health").json() == {"status": "ok", "unfinished": 0}
    counted = httpx.get(f"{address}/metrics").text
    assert 'distime_requests_total{route="/v1/models",status="200"}' in counted
    assert "distime_generated_tokens_total" in counted


OUTSIDE = Path(__file__)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "user", "content": "what?"}]}, 400, "0 videos"),
        ({"messages": [message("data:video/mp4;base64,%%%", "q")]}, 400, "not base64"),
        ({"messages": [message("data:video/mp4;base64,aGVsbG8=", "q")]}, 400, "no video"),
        ({"messages": [message("data:video/mp4", "q")]}, 400, "data URL"),
        ({"messages": [message("gone.mp4", "q")]}, 400, "no such video"),
        ({"messages": [message(str(OUTSIDE), "q")]}, 400, "no such video"),
        ({"messages": [message(OUTSIDE.as_uri(), "q")]}, 400, "no such video"),
        ({"messages": [message("../../etc/passwd", "q")]}, 400, "no such video"),
        ({"messages": [message("x" * 5000, "q")]}, 400, "no such video"),
        ({"messages": [message("a\0b", "q")]}, 400, "no such video"),
        ({"messages": [message("http://127.0.0.1/a.mp4", "q")]}, 400, "not fetched"),
        ({"messages": [message("ftp://example.org/a.mp4", "q")]}, 400, "data URL"),
        ({"messages": [message("gone.mp4", "")]}, 400, "asks nothing"),
        ({"messages": [{"role": "system", "content": "x"}]}, 400, "system message"),
        ({"messages": [message("a", "q"), message("b", "q")]}, 400, "take turns"),
        ({"messages": [message("a", "q")], "tools": [{}]}, 400, "tools"),
        ({"messages": [message("a", "q")], "temperature": -1}, 400, "temperature"),
        ({"messages": [message("a", "q")], "model": "gpt"}, 404, "distime"),
    ],
)
def test_what_is_refused(address, body, status, said):
    for streamed in (False, True):
        reply = httpx.post(
            f"{address}/v1/chat/completions", json={**body, "stream": streamed}, timeout=60
        )
        assert reply.status_code == status
        assert said in reply.json()["error"]["message"]
        assert "/tmp" not in reply.text


def test_broken_json_and_bodies_that_are_too_large(address):
    for route in ("/v1/ground", "/v1/chat/completions"):
        broken = httpx.post(f"{address}{route}", content=b'{"video": ', timeout=60)
        assert broken.status_code == 400
        huge = b'{"video": "' + b"a" * 3_000_000 + b'"}'
        assert httpx.post(f"{address}{route}", content=huge, timeout=60).status_code == 413
        pieces = (huge[i : i + 100_000] for i in range(0, len(huge), 100_000))  # no length said
        assert httpx.post(f"{address}{route}", content=pieces, timeout=60).status_code == 413


def test_a_file_that_is_too_large(address, videos):
    large = videos[0].parent / "large.mp4"
    large.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(1_100_000))
    reply = httpx.post(f"{address}/v1/ground", json={"video": "large.mp4", "queries": ["q"]})
    assert reply.status_code == 400
    assert "1 MB" in reply.text


def test_a_link_out_of_a_root_leads_nowhere(address, videos, tmp_path):
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(videos[0].read_bytes())
    (videos[0].parent / "link.mp4").symlink_to(secret)
    reply = httpx.post(f"{address}/v1/ground", json={"video": "link.mp4", "queries": ["q"]})
    assert reply.status_code == 400


def test_private_addresses_are_never_fetched(serving):
    with serving(allow_remote=True) as address:
        for url in (
            "http://127.0.0.1:1/a.mp4",
            "http://[::1]/a",
            "http://10.0.0.1/a",
            "http://0/a",
        ):
            body = {"video": url, "queries": ["q"]}
            reply = httpx.post(f"{address}/v1/ground", json=body, timeout=60)
            assert reply.status_code == 400
            assert "only public addresses" in reply.text


def test_the_key_is_asked_for(serving, videos):
    with serving(api_key="secret", roots=(videos[0].parent,)) as address:
        body = {"video": videos[0].name, "queries": [QUERIES[0]]}
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            reply = httpx.post(f"{address}/v1/ground", json=body, headers=headers, timeout=60)
            assert reply.status_code == 401
        right = {"Authorization": "Bearer secret"}
        assert httpx.post(f"{address}/v1/ground", json=body, headers=right, timeout=60).is_success
        wrong = openai.OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0)
        with wrong, pytest.raises(openai.AuthenticationError):
            wrong.models.list()


def test_too_many_and_too_slow(serving, videos, monkeypatch):
    go = threading.Event()
    monkeypatch.setattr("distime.serve.served_request.ServedRequest.load", lambda self: go.wait(60))
    body = {"video": videos[0].name, "queries": ["q"]}
    with serving(max_waiting=2, timeout=1.0) as address, ThreadPoolExecutor(4) as pool:

        def post(_):
            return httpx.post(f"{address}/v1/ground", json=body, timeout=60).status_code

        codes = sorted(pool.map(post, range(4)))
        go.set()
    assert codes == [429, 429, 504, 504]


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"roots": (Path("gone"),)}, "--root gone"),
        ({"max_megabytes": 0}, "--max-megabytes"),
        ({"timeout": -1}, "--timeout"),
    ],
)
def test_settings_are_refused_by_name(settings, flag):
    with pytest.raises(ServeError, match=flag):
        ServeSettings(**settings)
