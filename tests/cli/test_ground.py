import json
import re
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from answering import QUERIES
from distime import DisTime
from distime.cli import COMMANDS, main
from distime.cli.completion import script
from distime.cli.shared_flags import GPU_DRIVERS
from distime.processing.answers import Answer, Event
from distime.processing.video import encode_video, open_video
from distime.show.clips import write_clip, write_srt

SHORT = ["--max-new-tokens", "12"]


def ground(checkpoint, *arguments):
    return main(["ground", *map(str, arguments), "--checkpoint", checkpoint, *SHORT])


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_query_of_every_video(checkpoint, videos, capsys):
    assert ground(checkpoint, videos[0], *QUERIES, "--videos", videos[1], "--json") == 0
    answers = lines(capsys)
    assert [(a["video"], a["query"]) for a in answers] == [(v, q) for v in videos for q in QUERIES]
    model = DisTime.from_pretrained(checkpoint, device="cpu")
    for answer in answers:
        expected = model.ground(answer["video"], answer["query"], max_new_tokens=12).to_dict()
        assert answer["duration"] == expected["duration"]
        assert len(answer["events"]) == len(expected["events"])
        for a, b in zip(answer["events"], expected["events"], strict=True):
            assert (a["start"], a["end"]) == pytest.approx((b["start"], b["end"]), abs=1e-3)
    assert sum(len(a["events"]) for a in answers) > 3


def test_text_is_for_people(checkpoint, videos, capsys):
    assert ground(checkpoint, videos[0], *QUERIES[:2]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{videos[0]}: {QUERIES[0]}\n")
    assert re.search(r"^ +\d+\.\d\d - +\d+\.\d\d s +\d+% sure$", out, re.MULTILINE)


def test_num_frames_changes_what_is_seen(checkpoint, videos, capsys):
    assert ground(checkpoint, videos[0], QUERIES[0], "--json") == 0
    assert ground(checkpoint, videos[0], QUERIES[0], "--json", "--num-frames", "2") == 0
    a, b = lines(capsys)
    assert a["events"] != b["events"]


def test_files(checkpoint, videos, tmp_path, capsys):
    out = tmp_path / "new folder"
    files = ["--plot", out / "p.png", "--clip", out / "c.mp4", "--srt", out / "s.srt"]
    assert ground(checkpoint, videos[0], QUERIES[0], "--json", *files) == 0
    (answer,) = lines(capsys)
    assert sorted(path.name for path in out.iterdir()) == ["c.mp4", "p.png", "s.srt"]
    assert Image.open(out / "p.png").format == "PNG"
    event = answer["events"][0]
    with open_video(out / "c.mp4") as clip, open_video(videos[0]) as whole:
        assert clip.duration == pytest.approx(event["end"] - event["start"], abs=2 / whole.fps)
        first = whole.frames([int(event["start"] * whole.fps + 1e-6)])[0].astype(int)
        assert np.abs(clip.frames([0])[0].astype(int) - first).mean() < 6
    assert (out / "s.srt").read_text().count("-->") == len(answer["events"])


def test_files_of_several_answers_are_numbered_by_their_place(checkpoint, videos, tmp_path, capsys):
    """A video that cannot be read keeps its numbers: the files of others do not move."""
    gone = tmp_path / "gone.mp4"
    arguments = [gone, *QUERIES[:2], "--videos", videos[1]]
    files = ["--plot", tmp_path / "p.png", "--srt", tmp_path / "s.srt"]
    assert ground(checkpoint, *arguments, *files) == 1
    captured = capsys.readouterr()
    assert captured.err.count("error:") == 1 and "gone.mp4: no such video" in captured.err
    assert captured.out.count(videos[1]) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p-3.png", "p-4.png", "s-2.srt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "/gone"], "/gone: no such folder"),
        (["--num-frames", "0"], "--num-frames 0"),
        (["--max-new-tokens", "0"], "--max-new-tokens 0"),
        (["--batch-size", "0"], "--batch-size 0: answer at least one"),
        (["--attn", "foo"], "--attn foo: choose one of sdpa, eager, flash_attention_2"),
        (["--device", "gpu"], "--device gpu: give one such as"),
    ],
)
def test_errors_are_one_line(checkpoint, videos, capsys, arguments, message):
    assert main(["ground", videos[0], "q", "--checkpoint", checkpoint, *arguments]) == 1
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("error: ") and message in err


@pytest.mark.parametrize("command", ["ground", "caption", "chat"])
@pytest.mark.parametrize(
    "flags", [["--device", "cuda:0"], ["--attn", "foo"], ["--batch-size", "0"]]
)
def test_wrong_flags_are_told_before_anything_is_loaded(command, flags, tmp_path):
    """In a process of its own: without torch, within a second."""
    if flags[0] == "--device" and any(Path(path).exists() for path in GPU_DRIVERS):
        pytest.skip("this machine has a GPU")
    words = [command, "v.mp4", *["q"] * (command != "caption"), "--checkpoint", str(tmp_path)]
    code = (
        "import sys\nfrom distime.cli import main\n"
        f"code = main({[*words, *flags]!r})\nsys.exit(code + 10 * ('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and f"error: {' '.join(flags)}: " in done.stderr


def test_a_gpu_that_is_not_there(checkpoint, videos, capsys, monkeypatch):
    """Also where a driver is, and no GPU of that number."""
    monkeypatch.setattr("distime.cli.shared_flags.GPU_DRIVERS", ("/",))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    arguments = ["ground", videos[0], "q", "--checkpoint", checkpoint, "--device", "cuda:7"]
    assert main(arguments) == 1
    assert "error: device 'cuda:7': there is no such GPU" in capsys.readouterr().err


@pytest.mark.parametrize("place", [0, 1])
def test_json_has_a_line_for_whatever_could_not_be_answered(
    checkpoint, videos, tmp_path, capsys, place
):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    asked = [videos[0]]
    asked.insert(place, str(bad))
    assert ground(checkpoint, asked[0], *QUERIES[:2], "--videos", asked[1], "--json") == 1
    found = lines(capsys)
    assert [(a["video"], a["query"]) for a in found] == [(v, q) for v in asked for q in QUERIES[:2]]
    for answer in found:
        assert ("error" in answer) == (answer["video"] == str(bad))
        assert ("events" in answer) == (answer["video"] != str(bad))


def test_a_question_that_cannot_be_asked_costs_its_own_answer(checkpoint, videos, capsys):
    bad = "what is <IMG_CONTEXT>?"
    assert ground(checkpoint, videos[0], QUERIES[0], bad, QUERIES[1], "--json") == 1
    found = lines(capsys)
    assert [a["query"] for a in found] == [QUERIES[0], bad, QUERIES[1]]
    assert ["error" in a for a in found] == [False, True, False]
    for command in ("chat", "chat --conversation"):
        words = command.split()
        arguments = [videos[0], QUERIES[0], bad, QUERIES[1], "--json", *words[1:], *SHORT]
        assert main([words[0], *arguments, "--checkpoint", checkpoint]) == 1
        assert ["error" in a for a in lines(capsys)] == [False, True, False]


def test_an_answer_without_times_says_what_the_model_said(checkpoint, videos, capsys, monkeypatch):
    said = Answer("I cannot see\na door.", (), 10.0)
    monkeypatch.setattr(DisTime, "results", lambda _, finished: [said] * len(finished.answers))
    assert ground(checkpoint, videos[0], QUERIES[0]) == 0
    assert "the answer names no time: I cannot see a door." in capsys.readouterr().out
    assert ground(checkpoint, videos[0], QUERIES[0], "--json") == 0
    (answer,) = lines(capsys)
    assert answer["answer"] == said.text and answer["events"] == []
    assert main(["caption", videos[0], "--checkpoint", checkpoint]) == 0
    assert "I cannot see a door." in capsys.readouterr().out


def test_usage_errors_exit_with_2(capsys):
    for argv in ([], ["dance"], ["ground"], ["ground", "a.mp4", "--checkpoint", "c"]):
        with pytest.raises(SystemExit) as raised:
            main(argv)
        assert raised.value.code == 2


# ------------------------------------------------------------------------- the command as a whole


def test_defects_are_not_hidden(monkeypatch):
    monkeypatch.setattr("distime.cli.completion.run", lambda args: int("defect"))
    with pytest.raises(ValueError, match="invalid literal"):
        main(["completion", "bash"])


def test_interrupt_has_its_own_code(monkeypatch):
    def interrupt(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("distime.cli.completion.run", interrupt)
    assert main(["completion", "bash"]) == 130


def test_help_and_version_are_quick_and_have_examples(capsys):
    for command in ("ground", "caption", "chat", "convert", "demo"):
        with pytest.raises(SystemExit) as raised:
            main([command, "--help"])
        assert raised.value.code == 0
        assert f"distime {command} " in capsys.readouterr().out.split("\n\n", 2)[2]
    with pytest.raises(SystemExit):
        main(["--version"])
    assert re.fullmatch(r"distime \d+\.\d+.*\n", capsys.readouterr().out)
    code = (
        "import sys\nfrom distime.cli import main\n"
        "try: main(['ground', '--help'])\nexcept SystemExit: sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False)
    assert done.returncode == 0


def test_a_closed_pipe_is_no_error():
    """As in `distime completion bash | head -1`."""
    command = [sys.executable, "-m", "distime.cli", "completion", "fish"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert b"Broken" not in process.stderr.read()
    assert process.wait() == 0


def complete(words):
    """What bash offers for the last word."""
    quoted = " ".join(f"'{word}'" for word in words)
    code = (
        f"{script('bash')}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}\n"
        '_distime; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_completion_in_bash():
    assert complete(["distime", ""]) == list(COMMANDS)
    assert complete(["distime", "gr"]) == ["ground"]
    assert complete(["distime", "ground", "--cl"]) == ["--clip"]
    assert complete(["distime", "convert", "a", "b", "--to", "p"]) == ["published"]
    assert complete(["distime", "ground", "vid"]) == []  # then bash offers files


def test_completion_for_other_shells():
    assert script("zsh").startswith("autoload -U bashcompinit")
    fish = script("fish").splitlines()
    assert any("-a ground " in line for line in fish)
    assert any(
        "from convert" in line and "-l to -x -a 'distime published'" in line for line in fish
    )


# --------------------------------------------------------------------------------- clips, subtitles


@pytest.fixture(scope="module")
def counting(tmp_path_factory):
    """A video of an odd size whose frame `i` has the brightness `10 i`; 10 frames a second."""
    path = tmp_path_factory.mktemp("counting") / "v.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 33, 25, "bgr0"
        for i in range(25):
            frame = np.full((25, 33, 3), 10 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0.5, 1.0, range(5, 10)),
        (0.55, 0.95, range(5, 9)),
        (0.0, 2.5, range(25)),
        (0.7, 0.7, [7]),
        (2.4, 9.0, [24] * 66),
    ],
)
def test_clip_has_the_frames_between(counting, tmp_path, start, end, expected):
    with open_video(write_clip(tmp_path / "c.mp4", counting, start, end)) as clip:
        assert clip.fps == pytest.approx(10)
        frames = clip.frames(range(clip.num_frames))
    assert frames.shape[1:] == (24, 32, 3)
    assert (frames.mean((1, 2, 3)) / 10).round().astype(int).tolist() == list(expected)


def test_clip_of_a_varying_rate_follows_time(tmp_path):
    from fractions import Fraction

    path = tmp_path / "v.mkv"
    times = [0, 100, 200, 1000, 1100, 1200]  # milliseconds
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "bgr0"
        stream.codec_context.time_base = Fraction(1, 1000)
        for i, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 40 * i, np.uint8))
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with open_video(write_clip(tmp_path / "c.mp4", path, 0.15, 1.05)) as clip:
        shown = (clip.frames(range(clip.num_frames)).mean((1, 2, 3)) / 40).round().astype(int)
    assert clip.duration == pytest.approx(0.9, abs=0.25)
    assert shown[0] == 1 and shown[-1] in (2, 3) and (shown == 2).mean() > 0.5


def test_clip_refuses_a_reversed_interval(counting, tmp_path):
    with pytest.raises(ValueError, match="ends before it starts"):
        write_clip(tmp_path / "c.mp4", counting, 2, 1)


def test_subtitles(tmp_path):
    events = [
        Event(3661.5, 3662.0004, text="then\n\nthat --> this"),
        Event(0.0, 59.9996, text="first"),
        Event(5, 6),
    ]
    path = write_srt(tmp_path / "new" / "s.srt", events)
    assert path.read_text().split("\n\n") == [
        "1\n00:00:00,000 --> 00:01:00,000\nfirst",
        "2\n00:00:05,000 --> 00:00:06,000\nevent 2",
        "3\n01:01:01,500 --> 01:01:02,000\nthen that -> this\n",
    ]
    encode_video(tmp_path / "v.mp4", np.zeros((8, 16, 16, 3), np.uint8), 2)
    with av.open(str(path)) as container:  # FFmpeg reads it
        assert sum(packet.size > 0 for packet in container.demux()) == 3
