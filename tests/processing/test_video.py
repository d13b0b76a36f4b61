"""Videos of every awkward kind, made here; each frame carries its own number in black and white."""

import io
import math
import os
import random
import re
import struct
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from distime.processing.video import VideoError, encode_video, open_video, video_file
from distime.processing.video.container import decoded

WIDTH, HEIGHT, BITS, BLOCK = 96, 64, 10, 8


def numbered(number, width=WIDTH, height=HEIGHT):
    """A frame whose top row of blocks spells its number, on a texture that moves."""
    blocks = np.random.default_rng(0).integers(60, 180, (height // 8, width // 8, 3))
    frame = np.roll(blocks.repeat(8, 0).repeat(8, 1).astype(np.uint8), number, axis=1)
    for bit in range(BITS):
        frame[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 * (number >> bit & 1)
    return frame


def number_of(frame):
    middle = frame[BLOCK // 2, BLOCK // 2 : BITS * BLOCK : BLOCK].mean(axis=-1)
    return sum(int(value > 127) << bit for bit, value in enumerate(middle))


def write(
    path,
    count=120,
    fps=24,
    codec="libx264",
    options=None,
    container_options=None,
    stamps=None,
    tick=None,
    size=(WIDTH, HEIGHT),
    packet_hook=None,
):
    """Write `count` numbered frames; `stamps` in units of `tick` make the rate vary."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"sc_threshold": "0", **(options or {})}
        if tick:
            stream.codec_context.time_base = tick
        packets = []
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(numbered(i, *size), format="rgb24")
            frame.pts = i if stamps is None else stamps[i]
            if tick:
                frame.time_base = tick
            packets += stream.encode(frame)
        packets += stream.encode()
        for packet in packets:
            if packet_hook:
                packet_hook(packet, packet is packets[-1])
            container.mux(packet)
    return path


def assert_exact(path, count, fps=24.0):
    """All frames are there under their numbers, in any order, with the times of a constant rate."""
    with open_video(path) as reader:
        assert reader.num_frames == count
        assert reader.fps == pytest.approx(fps, abs=1e-12)
        assert reader.constant_rate
        assert reader.timestamps.dtype == np.float64
        assert reader.timestamps.tolist() == [i / reader.fps for i in range(count)]
        assert reader.duration == count / reader.fps
        indices = random.Random(0).sample(range(count), 20) + [0, count - 1, count // 2, 0]
        frames = reader.frames(indices)
        assert frames.dtype == np.uint8
        assert frames.shape == (len(indices), HEIGHT, WIDTH, 3)
        assert [number_of(frame) for frame in frames] == indices
        # Again, now that the reader stands at another place.
        assert [number_of(frame) for frame in reader.frames([7, 3])] == [7, 3]


# --------------------------------------------------------------------------- constant frame rates

KINDS = {
    "plain.mp4": {},
    "b_frames.mp4": {"options": {"bf": "3", "g": "24"}},
    "one_keyframe.mp4": {"options": {"g": "1000", "bf": "2"}},
    "all_keyframes.mp4": {"options": {"g": "1"}},
    "open_gop.mp4": {"options": {"x264-params": "open-gop=1:keyint=20:bframes=3"}},
    "gradual_refresh.mp4": {"options": {"x264-params": "intra-refresh=1:keyint=20:bframes=0"}},
    "fragments.mp4": {
        "options": {"g": "20"},
        "container_options": {"movflags": "frag_keyframe+empty_moov"},
    },
    "b_frames.mkv": {"options": {"bf": "3", "g": "24"}},
    "b_frames.ts": {"options": {"bf": "3", "g": "24"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2", "g": "12", "qscale": "2"}},
    "stampless.h264": {"options": {"bf": "3", "g": "24"}},
    "hidden_frames.webm": {
        "codec": "libvpx",
        "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "crf": "10", "b": "2M"},
    },
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=24"}},
}


@pytest.mark.parametrize("name", KINDS)
def test_frames_are_exact_in_every_container(tmp_path, name):
    if KINDS[name].get("codec", "libx264") not in av.codecs_available:
        pytest.skip(f"this PyAV has no {KINDS[name]['codec']}")
    assert_exact(write(tmp_path / name, **KINDS[name]), 120)


def test_the_files_are_as_awkward_as_they_say(tmp_path):
    def packets(name):
        with av.open(str(write(tmp_path / name, **KINDS[name]))) as container:
            return [packet for packet in container.demux(video=0) if packet.size]

    assert sum(packet.is_keyframe for packet in packets("one_keyframe.mp4")) == 1
    assert sum(packet.is_keyframe for packet in packets("all_keyframes.mp4")) == 120
    stamps = [packet.pts for packet in packets("b_frames.mp4")]
    assert stamps != sorted(stamps)
    gop = packets("open_gop.mp4")
    starts = [i for i, packet in enumerate(gop) if packet.is_keyframe]
    assert any(gop[i + 1].pts < gop[i].pts for i in starts[1:]), "no frame leads its keyframe"
    assert len(packets("stampless.h264")) == 120
    assert {packet.pts for packet in packets("stampless.h264")} == {None}


def test_fractional_rate(tmp_path):
    write(tmp_path / "a.mp4", fps=Fraction(30000, 1001))
    assert_exact(tmp_path / "a.mp4", 120, 30000 / 1001)
    # Matroska rounds times to milliseconds; the times of a constant rate come back all the same.
    write(tmp_path / "a.mkv", fps=Fraction(30000, 1001))
    assert_exact(tmp_path / "a.mkv", 120, 30000 / 1001)


def test_stamps_that_start_late(tmp_path):
    stamps = [i + 240 for i in range(120)]
    assert_exact(write(tmp_path / "a.mp4", stamps=stamps, tick=Fraction(1, 24)), 120)
    assert_exact(write(tmp_path / "a.ts", stamps=stamps, tick=Fraction(1, 24)), 120)


def test_one_frame(tmp_path):
    with open_video(write(tmp_path / "a.mp4", count=1)) as reader:
        assert (reader.num_frames, reader.duration) == (1, pytest.approx(1 / 24))
        assert number_of(reader.frames([0])[0]) == 0


def test_edit_list_hides_frames(tmp_path):
    """Frames cut away by an editor are decoded for the others' sake, but are not in the video."""

    def earlier(packet, _):
        packet.pts -= 30 * round(1 / (24 * packet.time_base))
        packet.dts -= 30 * round(1 / (24 * packet.time_base))

    write(
        tmp_path / "a.mp4",
        options={"bf": "0", "g": "50"},
        packet_hook=earlier,
        container_options={"use_editlist": "1", "avoid_negative_ts": "disabled"},
    )
    with open_video(tmp_path / "a.mp4") as reader:
        assert reader.num_frames == 90
        assert reader.timestamps[0] == 0
        assert [number_of(frame) for frame in reader.frames([0, 10, 89])] == [30, 40, 119]


def test_a_frame_without_data_is_no_frame(tmp_path):
    write(tmp_path / "a.mp4", options={"bf": "0"})
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    sizes = data.index(b"stsz") + 4
    assert struct.unpack_from(">II", data, sizes + 4) == (0, 120)
    struct.pack_into(">I", data, sizes + 12 + 4 * 119, 0)
    (tmp_path / "a.mp4").write_bytes(data)
    assert_exact(tmp_path / "a.mp4", 119)


def test_an_empty_packet_does_not_end_the_decoding(tmp_path):
    with av.open(str(write(tmp_path / "a.mp4", count=20))) as source:
        packets = list(source.demux(video=0))
        empty = av.Packet()
        empty.dts = empty.pts = packets[10].dts
        empty.stream = source.streams.video[0]
        packets.insert(10, empty)
        errors = []
        found = decoded(packets, lambda *report: errors.append(report))
        frames = [frame.to_ndarray(format="rgb24") for frame in found]
    assert [number_of(frame) for frame in frames] == list(range(20))
    assert errors == []


# --------------------------------------------------------------------------- varying frame rates


@pytest.mark.parametrize("b_frames", [0, 3])
@pytest.mark.parametrize("first", [0, 5000])
def test_varying_rate_has_true_times(tmp_path, b_frames, first):
    steps = np.random.default_rng(0).integers(5, 300, 80)
    stamps = [first + int(stamp) for stamp in np.cumsum(steps)]
    path = write(
        tmp_path / "a.mp4",
        count=80,
        stamps=stamps,
        tick=Fraction(1, 1000),
        options={"bf": str(b_frames), "g": "30"},
    )
    with av.open(str(path)) as container:
        last = list(container.demux(video=0))[-2]
        length = float(last.duration * last.time_base)
    with open_video(path) as reader:
        assert not reader.constant_rate
        true = (np.array(stamps) - stamps[0]) / 1000
        np.testing.assert_allclose(reader.timestamps, true, atol=1e-9)
        assert reader.duration == pytest.approx(true[-1] + length)
        assert reader.fps == pytest.approx(80 / reader.duration)
        assert [number_of(frame) for frame in reader.frames([79, 0, 33, 34])] == [79, 0, 33, 34]


def test_a_dropped_frame_makes_the_rate_vary(tmp_path):
    stamps = [*range(50), *range(51, 100)]
    for name in ("a.mp4", "a.avi"):
        codec = "libx264" if name == "a.mp4" else "mpeg4"
        write(tmp_path / name, count=99, stamps=stamps, tick=Fraction(1, 24), codec=codec)
        with open_video(tmp_path / name) as reader:
            assert not reader.constant_rate
            np.testing.assert_allclose(reader.timestamps, np.array(stamps) / 24, atol=1e-9)
            assert reader.duration == pytest.approx(100 / 24)


def test_a_long_last_frame_counts(tmp_path):
    def lengthen(packet, is_last):
        packet.duration = round((2 if is_last else 1 / 24) / packet.time_base)

    write(tmp_path / "a.mp4", options={"bf": "0"}, packet_hook=lengthen)
    with open_video(tmp_path / "a.mp4") as reader:
        assert not reader.constant_rate
        assert reader.timestamps[-1] == pytest.approx(119 / 24)
        assert reader.duration == pytest.approx(119 / 24 + 2)


# --------------------------------------------------------------------------- upright, right colours

# The matrix takes (x, y) to (a x + c y, b x + d y), y downwards.
MATRICES = {
    "quarter turn clockwise": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "half turn": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    "quarter turn anticlockwise": ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
    "mirrored": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda image: image[::-1]),
    "transposed": ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
    "transversed": ((0, -1, -1, 0), lambda image: np.rot90(image, 2).transpose(1, 0, 2)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_rotated_video_is_upright(tmp_path, name):
    (a, b, c, d), turn = MATRICES[name]
    path = write(tmp_path / "a.mp4", count=10)
    with open_video(path) as reader:
        stored = reader.frames([3])[0]
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    one = 1 << 16
    struct.pack_into(">9i", data, place, a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    with open_video(path) as reader:
        frames = reader.frames([3, 4])
    assert frames.flags.c_contiguous
    np.testing.assert_array_equal(frames[0], turn(stored))


@pytest.mark.parametrize(("matrix", "red", "blue"), [(1, 0.2126, 0.0722), (5, 0.299, 0.114)])
def test_colours_follow_the_matrix_of_the_file(tmp_path, matrix, red, blue):
    """High-definition files say BT.709 (1); BT.601 (5) is what is assumed where nothing is said."""
    color = np.array([200, 60, 40]) / 255
    luma = red * color[0] + (1 - red - blue) * color[1] + blue * color[2]
    values = (
        16 + 219 * luma,
        128 + 112 * (color[2] - luma) / (1 - blue),
        128 + 112 * (color[0] - luma) / (1 - red),
    )
    planes = np.full((96, 64), round(values[0]), dtype=np.uint8)
    planes[64:80], planes[80:] = round(values[1]), round(values[2])
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.colorspace = matrix
        stream.codec_context.color_range = 1
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.colorspace, frame.color_range = matrix, 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with open_video(tmp_path / "a.mp4") as reader:
        found = reader.frames([1])[0].reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(found, color * 255, atol=3)


def test_a_size_that_changes_keeps_the_first(tmp_path):
    write(tmp_path / "a.h264", count=10)
    write(tmp_path / "b.h264", count=10, size=(160, 96))
    joined = tmp_path / "joined.h264"
    joined.write_bytes((tmp_path / "a.h264").read_bytes() + (tmp_path / "b.h264").read_bytes())
    with open_video(joined) as reader:
        assert reader.num_frames == 20
        assert reader.frames([2, 15]).shape == (2, HEIGHT, WIDTH, 3)


# --------------------------------------------------------------------------- how much is decoded


@pytest.fixture
def decoded_packets(monkeypatch):
    """Count the packets that go to the decoder."""
    count = []
    original = decoded

    def counting(packets, report):
        return original((count.append(1) or packet for packet in packets), report)

    monkeypatch.setattr(video_file, "decoded", counting)
    return count


def test_seeks_where_that_saves_decoding(tmp_path, decoded_packets):
    write(tmp_path / "a.mp4", count=300, options={"g": "15", "bf": "2"})
    with open_video(tmp_path / "a.mp4") as reader:
        assert not decoded_packets, "the index must not decode"
        frames = reader.frames([20, 140, 280])
    assert [number_of(frame) for frame in frames] == [20, 140, 280]
    assert len(decoded_packets) < 3 * 25


def test_reads_on_where_seeking_saves_nothing(tmp_path, decoded_packets):
    write(tmp_path / "a.mp4", count=300, options={"g": "300", "bf": "2"})
    with open_video(tmp_path / "a.mp4") as reader:
        frames = reader.frames([280, 20, 140, 20])
    assert [number_of(frame) for frame in frames] == [280, 20, 140, 20]
    assert 280 <= len(decoded_packets) <= 300


# --------------------------------------------------------------------------- errors


def assert_error(path, *words):
    with pytest.raises(VideoError) as caught, open_video(path) as reader:
        reader.frames([0, reader.num_frames - 1])
    message = str(caught.value)
    assert str(path) in message
    for word in words:
        assert word in message, message


def test_missing_file(tmp_path):
    assert_error(tmp_path / "no.mp4", "no such video", "check the path")


def test_empty_file(tmp_path):
    (tmp_path / "a.mp4").touch()
    assert_error(tmp_path / "a.mp4", "empty", "download it again")


@pytest.mark.parametrize("content", [b"no video\n" * 100, bytes(5000), b"\x89PNG" + bytes(100)])
def test_not_a_video(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    assert_error(tmp_path / "a.mp4", "download")


def test_folder_without_frames(tmp_path):
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "note.txt").write_text("x")
    assert_error(tmp_path / "clip", "without numbered frames", "00001.jpg")


def write_sound(path, codec):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=44100)
        frame = av.AudioFrame(
            format=stream.codec_context.format.name, layout="stereo", samples=1024
        )
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.sample_rate = 44100
        for i in range(20):
            frame.pts = 1024 * i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_sound_alone(tmp_path):
    write_sound(tmp_path / "a.mp4", "aac")
    assert_error(tmp_path / "a.mp4", "no video stream", "audio")


def test_a_cover_picture_is_no_video(tmp_path):
    if "libmp3lame" not in av.codecs_available:
        pytest.skip("this PyAV cannot write mp3")
    write_sound(tmp_path / "plain.mp3", "libmp3lame")
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(buffer, format="PNG")
    body = b"\0image/png\0\x03\0" + buffer.getvalue()
    tag = b"APIC" + struct.pack(">I", len(body)) + b"\0\0" + body
    size = bytes(len(tag) >> shift & 127 for shift in (21, 14, 7, 0))
    path = tmp_path / "cover.mp3"
    path.write_bytes(b"ID3\x03\0\0" + size + tag + (tmp_path / "plain.mp3").read_bytes())
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    assert_error(path, "no video stream", "audio")


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize("b_frames", [0, 3])
def test_cut_short_with_the_index_in_front(tmp_path, b_frames, caplog):
    """The length stays that of the whole video; the frames that are there can be used."""
    path = write(
        tmp_path / "a.mp4",
        options={"bf": str(b_frames), "g": "24"},
        container_options={"movflags": "faststart"},
    )
    cut(path, 0.7)
    with open_video(path) as reader:
        assert "is cut short" in caplog.text
        assert (reader.num_frames, reader.duration, reader.constant_rate) == (120, 5.0, True)
        with pytest.raises(VideoError) as caught:
            reader.frames([0, 60, 100, 119])
        there = int(re.search(r"only the first (\d+) of its 120 frames", str(caught.value))[1])
        assert 60 < there < 110
        assert "2 of the wanted frames" in str(caught.value)
        assert str(path) in str(caught.value)
        assert "download it again" in str(caught.value)
        wanted = list(range(0, there, 7)) + [there - 1]
        assert [number_of(frame) for frame in reader.frames(wanted)] == wanted


def test_cut_short_at_a_varying_rate(tmp_path):
    steps = np.random.default_rng(0).integers(5, 300, 120)
    stamps = [int(stamp) for stamp in np.cumsum(steps)]
    path = write(
        tmp_path / "a.mp4",
        stamps=stamps,
        tick=Fraction(1, 1000),
        container_options={"movflags": "faststart"},
        options={"bf": "0"},
    )
    with open_video(path) as reader:
        whole = reader.duration
    cut(path, 0.7)
    with open_video(path) as reader:
        assert reader.num_frames == 120
        assert reader.duration == pytest.approx(whole)
        assert (np.diff(reader.timestamps) > 0).all()
        assert reader.timestamps[-1] < whole
        assert [number_of(frame) for frame in reader.frames([50, 3])] == [50, 3]


def test_cut_short_with_the_index_behind(tmp_path):
    cut(write(tmp_path / "a.mp4"), 0.7)
    assert_error(tmp_path / "a.mp4", "cut short", "download")


def test_cut_short_without_a_length(tmp_path, caplog):
    """A transport stream says nowhere how long it is: the video is what is there."""
    path = write(tmp_path / "a.ts", options={"bf": "0", "g": "24"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10 // 188 * 188 + 100])
    with open_video(path) as reader:
        assert "a.ts is cut short: what is there lasts" in caplog.text
        assert 40 < reader.num_frames < 110
        last = reader.num_frames - 2
        assert [number_of(frame) for frame in reader.frames([last, 1])] == [last, 1]


def test_cut_before_the_first_frame(tmp_path):
    path = write(tmp_path / "a.mp4", container_options={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 100])
    assert_error(path, "no readable picture", "download it again")


@pytest.mark.parametrize("seed", range(6))
def test_damaged_inside(tmp_path, seed):
    """Holes in the data: frames, or an error that names the file; nothing else escapes."""
    path = write(tmp_path / "a.mp4", options={"g": "24"})
    data = bytearray(path.read_bytes())
    start, end = data.index(b"mdat") + 8, data.index(b"moov") - 8
    rng = random.Random(seed)
    for _ in range(4 ** (seed % 3 + 1)):
        place = rng.randrange(start, end - 500)
        data[place : place + 500] = rng.randbytes(500)
    path.write_bytes(data)
    try:
        with open_video(path) as reader:
            assert reader.frames([0, 50, 119]).shape == (3, HEIGHT, WIDTH, 3)
    except VideoError as error:
        assert str(path) in str(error)
        assert "could be decoded" in str(error)


def test_undecodable_data(tmp_path):
    path = write(tmp_path / "a.mp4")
    data = bytearray(path.read_bytes())
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    data[start:end] = bytes(end - start)
    path.write_bytes(data)
    assert_error(path, "only 0 of 120 could be decoded", "download it again")


def test_wrong_indices(tmp_path):
    with open_video(write(tmp_path / "a.mp4")) as reader:
        for index in (-1, 120):
            with pytest.raises(IndexError, match=f"no frame {index} of 120"):
                reader.frames([0, index])
        with pytest.raises(ValueError, match="no frames asked for"):
            reader.frames([])


@pytest.mark.parametrize(
    "name",
    [
        "with space.mp4",
        "视频 é.mp4",
        "12:30 http://x.mp4".replace("/", "_"),
        "%03d[0-9]*.mp4",
        "-y",
    ],
)
def test_odd_names(tmp_path, name):
    source = write(tmp_path / "a.mp4", count=5)
    path = source.rename(tmp_path / name)
    with open_video(path) as reader:
        assert reader.num_frames == 5
        assert number_of(reader.frames([4])[0]) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_name_that_is_no_unicode(tmp_path):
    path = write(tmp_path / "a.mp4", count=5).rename(tmp_path / os.fsdecode(b"caf\xe9.mp4"))
    with open_video(path) as reader:
        assert number_of(reader.frames([4])[0]) == 4


# --------------------------------------------------------------------------- folders, gifs, images


def test_folder_of_frames(tmp_path):
    for i in range(12):
        Image.fromarray(numbered(i)).save(tmp_path / f"{i + 1:05d}.jpg", quality=95)
    (tmp_path / "readme.txt").write_text("x")
    with open_video(tmp_path) as reader:
        assert (reader.num_frames, reader.fps, reader.first_index) == (12, 3.0, 1)
        assert reader.duration == 4.0
        assert [number_of(frame) for frame in reader.frames([11, 0, 5])] == [11, 0, 5]
    (tmp_path / "00005.jpg").unlink()
    assert_error(tmp_path, "without gaps", "number 6")


def test_damaged_frame_in_a_folder(tmp_path):
    Image.fromarray(numbered(0)).save(tmp_path / "00001.jpg")
    (tmp_path / "00002.jpg").write_bytes(b"no picture")
    assert_error(tmp_path, "00002.jpg", "export it again")


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.apng"])
@pytest.mark.parametrize(
    "delays", [[500] * 9, [100] * 9, [200, 40, 1000, 500, 60, 70, 80, 90, 3000]]
)
def test_animations_have_the_times_in_the_file(tmp_path, name, delays):
    pictures = [Image.fromarray(numbered(i)) for i in range(9)]
    options = {"lossless": True} if name == "a.webp" else {}
    options |= {"format": "PNG"} if name == "a.apng" else {}
    pictures[0].save(
        tmp_path / name,
        save_all=True,
        append_images=pictures[1:],
        duration=delays,
        loop=0,
        **options,
    )
    with open_video(tmp_path / name) as reader:
        starts = np.cumsum([0, *delays[:-1]]) / 1000
        np.testing.assert_allclose(reader.timestamps, starts, atol=1e-9)
        assert reader.duration == pytest.approx(sum(delays) / 1000)
        assert reader.constant_rate == (len(set(delays)) == 1)
        assert reader.warnings == []
        assert [number_of(frame) for frame in reader.frames([8, 0, 3])] == [8, 0, 3]
    cut(tmp_path / name, 0.7)
    try:
        with open_video(tmp_path / name) as reader:
            assert "is cut short" in reader.warnings[0]
            reader.frames([8])
    except (VideoError, IndexError) as error:
        assert name in str(error)


def test_a_png_animation_may_have_another_picture_in_front(tmp_path):
    pictures = [Image.fromarray(numbered(i)) for i in range(5)]
    pictures[0].save(
        tmp_path / "a.png",
        save_all=True,
        append_images=pictures[1:],
        default_image=True,
        duration=500,
    )
    with open_video(tmp_path / "a.png") as reader:
        assert (reader.num_frames, reader.duration) == (4, 2.0)
        assert [number_of(frame) for frame in reader.frames([0, 3])] == [1, 4]


def test_delays_that_are_not_meant(tmp_path):
    """Browsers show a picture for a tenth of a second where the file says nothing of use."""
    pictures = [Image.fromarray(numbered(i)) for i in range(4)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], loop=0)
    with open_video(tmp_path / "a.gif") as reader:
        assert reader.duration == pytest.approx(0.4)


def test_gif_in_a_protocol_that_does_not_ask_the_file(tmp_path):
    pictures = [Image.fromarray(numbered(i)) for i in range(9)]
    pictures[0].save(
        tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=100, loop=0
    )
    with open_video(tmp_path / "a.gif", gif_fps=25) as reader:
        assert (reader.num_frames, reader.fps, reader.duration) == (9, 25.0, 8 / 25)
        np.testing.assert_allclose(reader.timestamps, np.arange(9) / 25)
        assert [number_of(frame) for frame in reader.frames([8, 0, 3])] == [8, 0, 3]
    pictures[0].save(tmp_path / "still.gif")
    with open_video(tmp_path / "still.gif", gif_fps=25) as reader:
        assert (reader.num_frames, reader.duration) == (1, 1 / 25)
    with open_video(tmp_path / "still.gif") as reader:
        assert (reader.num_frames, reader.duration) == (1, 1.0)
    (tmp_path / "b.gif").write_bytes(b"GIF89a")
    assert_error(tmp_path / "b.gif", "cannot be read as a picture")


def test_image(tmp_path):
    Image.fromarray(numbered(5)).save(tmp_path / "a.png")
    with open_video(tmp_path / "a.png") as reader:
        assert (reader.num_frames, reader.duration) == (1, 1.0)
        np.testing.assert_array_equal(reader.frames([0, 0])[1], numbered(5))
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    assert_error(tmp_path / "b.jpg", "cannot be read as a picture")


# --------------------------------------------------------------------------- writing


def test_encode_video(tmp_path):
    frames = [numbered(i) for i in range(30)]
    encode_video(tmp_path / "a b.mp4", frames, 8, comment="hello")
    encode_video(tmp_path / "again.mp4", iter(frames), 8, comment="hello")
    assert (tmp_path / "a b.mp4").read_bytes() == (tmp_path / "again.mp4").read_bytes()
    with open_video(tmp_path / "a b.mp4") as reader:
        assert (reader.num_frames, reader.fps, reader.duration) == (30, 8.0, 3.75)
        assert [number_of(frame) for frame in reader.frames(range(30))] == list(range(30))
    with av.open(str(tmp_path / "a b.mp4")) as container:
        assert container.metadata["comment"] == "hello"


@pytest.mark.parametrize("size", [(96, 64), (96, 96), (50, 38)])
def test_the_same_frames_are_the_same_bytes(tmp_path, size):
    """Also in memory that other work has used: x264 once took part of its choices from there."""
    rng = np.random.default_rng(0)
    frames, files = [numbered(i, *size) for i in range(30)], set()
    for _ in range(20):
        used = [rng.integers(0, 255, rng.integers(1000, 60000), dtype=np.uint8) for _ in range(9)]
        del used
        encode_video(tmp_path / "a.mp4", frames, 8)
        files.add((tmp_path / "a.mp4").read_bytes())
    assert len(files) == 1


def test_encode_video_leaves_nothing_half_written(tmp_path):
    def breaks():
        yield numbered(0)
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        encode_video(tmp_path / "a.mp4", breaks(), 8)
    with pytest.raises(ValueError, match="frame 1 is uint8"):
        encode_video(tmp_path / "a.mp4", [numbered(0), numbered(0)[:32]], 8)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="no frames to write"):
        encode_video(tmp_path / "a.mp4", [], 8)
    with pytest.raises(ValueError, match="even width and height"):
        encode_video(tmp_path / "a.mp4", [np.zeros((5, 4, 3), np.uint8)], 8)


# --------------------------------------------------------------------------- recorded videos


@pytest.mark.golden
@pytest.mark.parametrize(
    ("name", "count", "fps", "duration"),
    [("a", 40, 8.0, 5.0), ("b", 91, 7.5, 91 / 7.5), ("c", 3, 2.0, 1.5), ("long", 640, 5.0, 128.0)],
)
def test_golden_videos(golden_root, name, count, fps, duration):
    with open_video(golden_root / "common" / "videos" / f"{name}.mp4") as reader:
        assert (reader.num_frames, reader.fps, reader.constant_rate) == (count, fps, True)
        assert math.isclose(reader.duration, duration)
