import json

from answering import QUERIES
from distime import DisTime
from distime.cli import main

SHORT = ["--max-new-tokens", "12"]


def chat(checkpoint, *arguments):
    return main(["chat", *map(str, arguments), "--checkpoint", checkpoint, *SHORT])


def answers(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_questions_on_their_own(checkpoint, videos, capsys):
    assert chat(checkpoint, videos[0], *QUERIES, "--json") == 0
    found = answers(capsys)
    model = DisTime.from_pretrained(checkpoint, device="cpu")
    expected = model.chat(videos[0], QUERIES, max_new_tokens=12)
    assert [a["question"] for a in found] == QUERIES
    assert [a["text"] for a in found] == [a.text for a in expected]


def test_a_conversation_goes_on(checkpoint, videos, capsys):
    assert chat(checkpoint, videos[0], *QUERIES, "--conversation", "--json") == 0
    found = answers(capsys)
    model = DisTime.from_pretrained(checkpoint, device="cpu")
    history = []
    for question in QUERIES:
        history.append((question, model.chat(videos[0], question, history, max_new_tokens=12)))
    assert [a["text"] for a in found] == [answer.text for _, answer in history]
    alone = model.chat(videos[0], QUERIES, max_new_tokens=12)
    assert found[0]["text"] == alone[0].text
    assert [a["text"] for a in found[1:]] != [a.text for a in alone[1:]]


def test_text_has_times_written_out(checkpoint, videos, tmp_path, capsys):
    files = ["--plot", tmp_path / "p.png", "--srt", tmp_path / "s.srt"]
    assert chat(checkpoint, videos[0], *QUERIES[:2], *files) == 0
    out = capsys.readouterr().out
    assert QUERIES[0] in out and " s" in out and "<TIME_STAMP>" not in out
    names = ["p-1.png", "p-2.png", "s-1.srt", "s-2.srt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
