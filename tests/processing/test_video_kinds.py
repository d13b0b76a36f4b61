"""Files as they come from recorders, editors and broken downloads, in every container there is.

Made here by the muxers and encoders of PyAV's FFmpeg; each frame carries its own number.
"""

import logging
import os
import random
import threading
from fractions import Fraction
from pathlib import Path

import av
import av.logging
import numpy as np
import pytest
from PIL import Image
from test_video import HEIGHT, WIDTH, cut, number_of, numbered

from distime.processing.sampling import VideoSample, sample_video
from distime.processing.video import VideoError, open_video
from distime.processing.video.container import complaints
from distime.show.clips import write_clip

FPS, COUNT = 25, 120


class Made:
    """What is written into a file: pictures by an encoder, and sound if asked for."""

    def __init__(self, codec="libx264", options=None, sound=None, **container):
        self.codec, self.options, self.sound = codec, options or {}, sound
        self.container = container


B_FRAMES = {"bf": "3", "g": "24"}
X264 = Made(options=B_FRAMES)
KINDS = {
    "b.mp4": X264,
    "b.mov": Made(options=B_FRAMES, sound="aac"),
    "faststart.mp4": Made(options=B_FRAMES, sound="aac", movflags="faststart"),
    "fragments.mp4": Made(options=B_FRAMES, movflags="frag_keyframe+empty_moov"),
    "b.mkv": Made(options=B_FRAMES, sound="aac"),
    "b.avi": Made(options=B_FRAMES, sound="libmp3lame"),
    "no_b.avi": Made(options={"bf": "0", "g": "24"}),
    "mpeg4_b.avi": Made("mpeg4", {"bf": "2", "g": "12", "qscale": "2"}),
    "msmpeg4.avi": Made("msmpeg4", {"qscale": "2"}),
    "mjpeg.avi": Made("mjpeg", {"qscale": "2"}),
    "b.flv": Made(options=B_FRAMES, sound="aac"),
    "sorenson.flv": Made("flv", {"qscale": "2"}, sound="libmp3lame"),
    "wmv2.wmv": Made("wmv2", {"qscale": "2"}),
    "msmpeg4.asf": Made("msmpeg4", {"qscale": "2"}, sound="libmp3lame"),
    "b.ts": Made(options=B_FRAMES, sound="aac"),
    "mpeg2_b.mpg": Made("mpeg2video", {"bf": "2", "qscale": "2"}, sound="mp2"),
    "vp9.webm": Made("libvpx-vp9", {"cpu-used": "8", "deadline": "realtime"}, sound="libopus"),
    "hevc_b.mkv": Made("libx265", {"x265-params": "log-level=none:keyint=24"}),
}


def encoded(stream, count, first=0):
    packets = []
    for i in range(count):
        frame = av.VideoFrame.from_ndarray(numbered(i), format="rgb24")
        frame.pts = i + first
        packets += stream.encode(frame.reformat(format=stream.pix_fmt))
    return packets + stream.encode()


def silence(stream, seconds):
    context = stream.codec_context
    size = context.frame_size or 1024
    packets = []
    for place in range(0, int(seconds * context.sample_rate), size):
        frame = av.AudioFrame(format=context.format.name, layout="stereo", samples=size)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.sample_rate, frame.pts = context.sample_rate, place
        frame.time_base = Fraction(1, context.sample_rate)
        packets += stream.encode(frame)
    return packets + stream.encode()


def make(path, made=X264, count=COUNT, first=0, longer=0.7, hook=None):
    """Write a file; sound lasts `longer` seconds more than the pictures, which begin at `first`."""
    for codec in (made.codec, made.sound):
        if codec and codec not in av.codecs_available:
            pytest.skip(f"this PyAV has no {codec}")
    with av.open(str(path), "w", options=made.container) as container:
        stream = container.add_stream(made.codec, rate=FPS)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuvj420p" if made.codec == "mjpeg" else "yuv420p"
        stream.options = made.options
        if made.codec == "libx264":  # as it is, one file in a hundred is another
            params = [made.options.get("x264-params"), "mbtree=0", "cpu-independent=1"]
            stream.options = made.options | {"x264-params": ":".join(filter(None, params))}
            stream.codec_context.thread_count = 1
        sound = None
        if made.sound:
            rate = 48000 if made.sound == "libopus" else 44100
            sound = container.add_stream(made.sound, rate=rate)
            sound.layout = "stereo"
        packets = encoded(stream, count, first)
        if hook:
            for packet in packets:
                hook(packet, packets)
        if sound:
            packets += silence(sound, (count + first) / FPS + longer)
        packets.sort(key=lambda p: float((p.pts if p.dts is None else p.dts) * p.time_base))
        for packet in packets:
            container.mux(packet)
    return path


def numbers(reader, indices):
    return [number_of(frame) for frame in reader.frames(indices)]


# --------------------------------------------------------------------------- whole files


@pytest.mark.parametrize("name", KINDS)
def test_whole_files_are_read_in_order_and_without_a_word(tmp_path, caplog, name):
    with open_video(make(tmp_path / name, KINDS[name])) as reader:
        assert (reader.num_frames, reader.fps, reader.duration) == (COUNT, FPS, COUNT / FPS)
        assert reader.timestamps.tolist() == [i / FPS for i in range(COUNT)]
        wanted = [119, 0, *range(1, 119, 7), 3]
        assert numbers(reader, wanted) == wanted
        assert reader.start < 0.1
        assert (reader.warnings, reader.num_missing) == ([], 0)
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["b.avi", "mpeg4_b.avi"])
def test_clips_from_files_without_stamps_do_not_jump(tmp_path, name):
    path = make(tmp_path / name, KINDS[name])
    with open_video(write_clip(tmp_path / "clip.mp4", path, 1.0, 3.0)) as clip:
        assert numbers(clip, range(50)) == list(range(25, 75))


def pack(packets):
    """Put each B picture into the packet of the picture before, as DivX and XviD do in avi."""
    signature = b"\0\0\1\xb2DivX503b1393p"
    held = [bytes(packet) for packet in packets]
    kinds = [data[data.index(b"\0\0\1\xb6") + 4] >> 6 for data in held]
    packed, i = [], 0
    while i < len(held):
        group = [held[i]]
        if i + 1 < len(held) and kinds[i] != 2 and kinds[i + 1] == 2:
            group.append(held[i + 1])
        place = group[0].index(b"\0\0\1\xb6")
        packed.append(group[0][:place] + signature + b"".join([group[0][place:], *group[1:]]))
        if len(group) == 2:
            packed.append(b"\0\0\1\xb6\x50\x00\x00\x7f")  # a picture that is not coded
        i += len(group)
    return packed


def test_packed_xvid_in_avi(tmp_path):
    made = Made("mpeg4", {"bf": "1", "g": "24", "qscale": "2", "b_strategy": "0"})
    make(tmp_path / "plain.avi", made, count=60)
    with av.open(str(tmp_path / "plain.avi")) as source:
        packets = [packet for packet in source.demux(video=0) if packet.size]
        with av.open(str(tmp_path / "packed.avi"), "w") as container:
            stream = container.add_stream_from_template(source.streams.video[0])
            for i, data in enumerate(pack(packets)):
                packet = av.Packet(data)
                packet.stream, packet.time_base = stream, Fraction(1, FPS)
                packet.pts = packet.dts = i
                packet.is_keyframe = i == 0
                container.mux(packet)
    with open_video(tmp_path / "packed.avi") as reader:
        found = numbers(reader, range(reader.num_frames))
        assert found == sorted(found), "out of order"
        assert len(set(found)) >= 57
        # Decoded one by one, every frame is where its time says.
        for frame, time in zip(found, reader.timestamps, strict=True):
            assert abs(frame / FPS - time) < 0.09


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.flv"])
def test_made_up_stamps_in_another_container(tmp_path, name):
    """Who copies an avi file into another container writes the stamps that were made up for it."""

    def in_decoding_order(packet, packets):
        packet.pts = packet.dts = packets.index(packet)
        packet.time_base = Fraction(1, FPS)

    path = make(tmp_path / name, X264, hook=in_decoding_order)
    with open_video(path) as reader:
        assert reader.num_frames == COUNT
        np.testing.assert_allclose(reader.timestamps, np.arange(COUNT) / FPS, atol=2e-3)
        assert numbers(reader, range(0, 120, 7)) == list(range(0, 120, 7))


def test_stamps_that_go_wrong_later(tmp_path):
    """The beginning is right: only decoding shows that what follows is not."""

    def swap(packet, packets):
        if packet is packets[-1]:
            places = [i for i, one in enumerate(packets) if 60 <= one.pts < 70]
            stamps = sorted(packets[i].pts for i in places)
            for i, stamp in zip(places, stamps, strict=True):
                packets[i].pts = stamp

    made = Made(options={"bf": "3", "g": "1000", "sc_threshold": "0"})
    path = make(tmp_path / "a.mkv", made, hook=swap)
    with open_video(path) as reader:
        wanted = [5, 61, 62, 63, 64, 65, 66, 100]
        assert numbers(reader, wanted) == wanted


def test_gaps_in_files_without_stamps_stay(tmp_path):
    """Frames that a recorder dropped are empty chunks of an avi file: time goes on."""

    def later(packet, packets):
        if packets.index(packet) >= 60:
            packet.pts += 50
            packet.dts += 50

    with open_video(make(tmp_path / "a.avi", Made(options=B_FRAMES), hook=later)) as reader:
        assert numbers(reader, range(0, 120, 9)) == list(range(0, 120, 9))
        assert reader.duration == pytest.approx(170 / FPS, abs=0.1)


# --------------------------------------------------------------------------- cut files


@pytest.mark.parametrize("share", [0.35, 0.6, 0.85])
@pytest.mark.parametrize(
    "name", [name for name in KINDS if name not in ("b.ts", "mpeg2_b.mpg", "fragments.mp4")]
)
def test_cut_files_are_not_shorter_videos(tmp_path, caplog, name, share):
    """Sampling over the whole time is an error, as the frames at the end are not there."""
    path = make(tmp_path / name, KINDS[name], longer=0.0)
    cut(path, share)
    caplog.clear()
    try:
        with open_video(path) as reader:
            assert "is cut short" in caplog.text
            assert "is cut short" in reader.warnings[0]
            there = reader.num_frames - reader.num_missing
            if reader.num_missing == 0:  # what is cut off is no picture
                assert there >= 117
                return
            # A header that says how long all of it is leaves open how much of it is sound.
            assert reader.duration == pytest.approx(COUNT / FPS, abs=0.5)
            assert len(reader.timestamps) == reader.num_frames
            if there > 2:
                wanted = [there - 2, 0, there // 2]
                assert numbers(reader, wanted) == wanted
        if reader.num_missing > 8:
            with pytest.raises(VideoError, match="the file is cut short"):
                sample_video(path, 16)
    except VideoError as error:
        assert str(path) in str(error)
        assert "download" in str(error)


@pytest.mark.parametrize("name", ["b.flv", "b.mkv"])
def test_a_file_cut_anywhere_or_damaged_is_read_or_named(tmp_path, name):
    """Damage can look like streams that the file did not begin with."""
    whole = make(tmp_path / name, KINDS[name], longer=0.0).read_bytes()
    path, chance = tmp_path / f"cut_{name}", random.Random(0)
    for number in range(24):
        data = bytearray(whole[: chance.randrange(len(whole) // 4, len(whole))])
        if number % 2:
            for _ in range(20):
                data[chance.randrange(1000, len(data))] = chance.randrange(256)
        path.write_bytes(data)
        try:
            with open_video(path) as reader:
                reader.frames([0])
        except VideoError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize("name", ["b.ts", "fragments.mp4"])
def test_cut_files_that_do_not_know_their_length(tmp_path, caplog, name):
    path = make(tmp_path / name, KINDS[name])
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5 // 188 * 188 + 94])
    with open_video(path) as reader:
        assert "is cut short" in caplog.text
        assert "download it again" in caplog.text
        assert reader.warnings


@pytest.mark.parametrize("name", ["b.mkv", "b.flv", "wmv2.wmv", "vp9.webm"])
def test_the_rest_may_be_zeros(tmp_path, caplog, name):
    """Programs that reserve the space of a download first leave a file of full size."""
    path = make(tmp_path / name, KINDS[name], longer=0.0)
    data = bytearray(path.read_bytes())
    half = len(data) // 2
    data[half:] = bytes(len(data) - half)
    path.write_bytes(data)
    try:
        with open_video(path) as reader:
            assert reader.warnings
            assert str(path) in caplog.text
            reader.frames([0, reader.num_frames - 1])
    except VideoError as error:
        assert str(path) in str(error)


def test_the_rest_of_a_long_last_picture_is_not_cut(tmp_path, caplog):
    # The muxer of mp4 loses the length behind reordered frames; slides.mp4 has it from elsewhere.
    for name, b_frames in [("a.mkv", "0"), ("a.mkv", "3"), ("a.mp4", "0"), ("a.mov", "0")]:

        def lengthen(packet, packets):
            if packet.pts == max(one.pts for one in packets):
                packet.duration = 20 * FPS

        made = Made(options={"bf": b_frames, "g": "24"})
        path = make(tmp_path / name, made, hook=lengthen)
        with open_video(path) as reader:
            assert reader.duration == pytest.approx(COUNT / FPS + 20 - 1 / FPS, abs=0.1), name
            assert reader.warnings == []
    assert caplog.text == ""


# --------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize("name", ["b.mkv", "faststart.mp4", "b.avi", "mpeg4_b.avi", "b.flv"])
def test_concealed_damage_is_counted(tmp_path, caplog, name):
    made = KINDS[name]
    options = made.options | {"g": "30"} | ({"bf": "0"} if made.codec == "libx264" else {})
    path = make(tmp_path / name, Made(made.codec, options))
    with open_video(path) as reader:
        whole = reader.frames(range(COUNT))
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        place, size = packets[45].pos, packets[45].size
    data = bytearray(path.read_bytes())
    begin = data.index(bytes(packets[45])[16:48]) if name != "b.flv" else place + size // 3
    data[begin : begin + size // 3] = random.Random(0).randbytes(size // 3)
    path.write_bytes(data)
    caplog.clear()
    try:
        with open_video(path) as reader:
            differ = np.abs(reader.frames(range(COUNT)).astype(int) - whole).reshape(COUNT, -1)
            if differ.max() <= 60:
                pytest.skip("the damage cannot be seen")
            assert "is damaged" in caplog.text, name
            assert str(path) in caplog.text
            assert reader.warnings
    except VideoError as error:
        assert str(path) in str(error)


def test_broken_frames_are_those_up_to_the_next_keyframe(tmp_path, caplog):
    made = Made(options={"bf": "0", "g": "30", "sc_threshold": "0", "x264-params": "slices=1"})
    path = make(tmp_path / "a.mkv", made)
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    begin = data.index(packets[45]) + 12
    size = len(packets[45]) - 12
    data[begin : begin + size] = random.Random(1).randbytes(size)
    path.write_bytes(data)
    with open_video(path) as reader:
        reader.frames([10, 44, 60, 75, 100])
        assert caplog.text == ""
        reader.frames([10, 44, 46, 50, 59, 60])
        assert "3 of the 6 frames used are broken" in caplog.text
        assert "3 of the 6 frames used are broken" in reader.warnings[-1]
    sample = sample_video(path, 16)
    assert any("frames used are broken" in warning for warning in sample.warnings)


def test_healthy_files_of_all_groups_are_not_called_damaged(tmp_path, caplog):
    """Decoders complain when they begin in the middle; that is no damage."""
    for number, params in enumerate(
        [
            "open-gop=1:keyint=20:bframes=3",
            "intra-refresh=1:keyint=20:bframes=0",
            "keyint=20:bframes=8:b-pyramid=normal:ref=8",
        ]
    ):
        path = make(tmp_path / f"{number}.mkv", Made(options={"x264-params": params}))
        with open_video(path) as reader:
            for index in random.Random(0).sample(range(COUNT), 12):
                assert numbers(reader, [index]) == [index]
            assert reader.warnings == []
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_log_is_heard_in_each_thread_alone_and_left_as_it_was():
    before = av.logging.get_level(), av.logging.get_skip_repeated()
    heard = {}
    together = threading.Barrier(4)

    def listen(name):
        for turn in range(50):
            together.wait()
            with complaints() as found:
                for _ in range(3):
                    av.logging.log(av.logging.ERROR, "decoder", f"wrong in {name}")
                av.logging.log(av.logging.WARNING, "decoder", "not worth a word")
            heard.setdefault(name, []).append((turn, [one.text for one in found]))

    threads = [threading.Thread(target=listen, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in "abcd":
        assert heard[name] == [(turn, [f"wrong in {name}"] * 3) for turn in range(50)]
    assert (av.logging.get_level(), av.logging.get_skip_repeated()) == before


# --------------------------------------------------------------------------- the container's clock


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.ts", "a.flv"])
def test_pictures_that_begin_later_than_the_sound(tmp_path, name):
    path = make(tmp_path / name, Made(options=B_FRAMES, sound="aac"), first=50)
    with open_video(path) as reader:
        assert reader.timestamps[0] == 0
        assert reader.start == pytest.approx(2.0, abs=0.08)
        assert reader.duration == COUNT / FPS
    sample = sample_video(path, 4)
    assert (sample.start, sample.times[0] < 1) == (reader.start, True)
    # Clips are cut on the clock of players.
    start = reader.start
    with open_video(write_clip(tmp_path / "clip.mp4", path, start + 1, start + 2)) as clip:
        assert numbers(clip, range(25)) == list(range(25, 50))


# --------------------------------------------------------------------------- which stream


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.avi"])
@pytest.mark.parametrize("flag", ["", "default"])
def test_a_thumbnail_is_not_the_video(tmp_path, name, flag):
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        thumbnail = container.add_stream("mjpeg", rate=FPS)
        thumbnail.width, thumbnail.height, thumbnail.pix_fmt = 640, 480, "yuvj420p"
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        if flag:
            thumbnail.disposition = thumbnail.disposition.__class__.default
            stream.disposition = stream.disposition.__class__(0)
        picture = np.full((480, 640, 3), 90, np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuvj420p")
        frame.pts = 0
        for packet in [*thumbnail.encode(frame), *thumbnail.encode(), *encoded(stream, 60)]:
            container.mux(packet)
    with open_video(path) as reader:
        assert (reader.num_frames, reader.duration) == (60, 60 / FPS)
        assert numbers(reader, [0, 59, 30]) == [0, 59, 30]


# --------------------------------------------------------------------------- what is no video


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("https://example.org/a.mp4", "an address; videos are read from files: download it"),
        ("s3://bucket/a.mp4", "an address"),
        ("data:video/mp4;base64," + "AAAA" * 2000, "no path of a video"),
        ("AAAAIGZ0eXBpc29tAAACAGlzb21pc28y" * 500, r"\(16000 characters\): no path of a video"),
        ("a\0b.mp4", "no path of a video"),
        (np.zeros((4, 8, 8, 3), np.uint8), "a ndarray is no video: give the path"),
        ([1, 2], "a list is no video"),
        (None, "a NoneType is no video"),
    ],
)
def test_what_is_no_video_is_one_clear_line(path, words):
    with pytest.raises(VideoError, match=words) as caught:
        open_video(path)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_no_permission(tmp_path, monkeypatch):
    """Pretended, since an administrator may read everything."""
    folder = tmp_path / "secret"
    folder.mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(VideoError, match="secret: no permission to read it"):
        open_video(folder)

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(VideoError, match=r"a\.mp4: no permission to read it"):
        open_video(folder / "a.mp4")


def test_errors_of_files_whose_name_is_no_text_can_be_printed(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    path.write_bytes(b"no video" * 50)
    with pytest.raises(VideoError, match="caf") as caught:
        open_video(path)
    str(caught.value).encode("utf-8")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"frames": np.zeros((2, 8, 8, 3))}, "uint8 RGB .* not float64"),
        ({"frames": np.zeros((2, 3, 8, 8), np.uint8)}, r"not uint8 \(2, 3, 8, 8\)"),
        ({"frames": np.zeros((2, 8, 8), np.uint8)}, r"not uint8 \(2, 8, 8\)"),
        ({"frames": [np.zeros((8, 8, 3), np.uint8)] * 2}, "not list"),
        ({"frames": "a.mp4"}, "not str"),
        ({"times": [0.0]}, "2 frames in memory and 1 times"),
        ({"duration": 0.0}, "give its length"),
        ({"duration": float("nan")}, "give its length"),
    ],
)
def test_frames_in_memory_of_a_wrong_kind(change, words):
    right = {"frames": np.zeros((2, 8, 8, 3), np.uint8), "times": [0.0, 1.0], "duration": 2.0}
    VideoSample(**right, indices=[0, 1])
    with pytest.raises(VideoError, match=words):
        VideoSample(**right | change, indices=[0, 1])


# --------------------------------------------------------------------------- files that were kept

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="the small files are not here")


def barcode(frame):
    """The number of a frame: 12 columns, a bit is set where the upper half is the brighter one."""
    height, width = frame.shape[:2]
    bits = 0
    for i in range(12):
        column = frame[:, int((i + 0.3) * width / 12) : int((i + 0.7) * width / 12)]
        upper = column[int(0.15 * height) : int(0.35 * height)].mean()
        lower = column[int(0.65 * height) : int(0.85 * height)].mean()
        bits |= int(upper > lower) << i
    return bits


@needs_cases
@pytest.mark.parametrize(
    ("name", "count", "duration", "start"),
    [
        ("x264_b.avi", 150, 6.0, 0.0),
        ("late.mp4", 300, 10.0, 2.5),
        ("thumb_first.mp4", 300, 10.0, 0.0),
    ],
)
def test_kept_barcodes(name, count, duration, start):
    with open_video(CASES / name) as reader:
        assert (reader.num_frames, reader.duration, reader.start) == (count, duration, start)
        wanted = list(range(0, count, 11))
        assert [barcode(frame) for frame in reader.frames(wanted)] == wanted


@needs_cases
def test_kept_lengths():
    for name, duration in {
        "phone.mkv": 9.465,
        "a.gif": 10.0,
        "a.webp": 10.0,
        "a.png": 10.0,
        "lastlong_b.mkv": 22.967,
        "slides.mp4": 13.0,
        "screen.mp4": 60.0167,
    }.items():
        with open_video(CASES / name) as reader:
            assert reader.duration == pytest.approx(duration, abs=1e-3), name
            assert reader.warnings == []


@needs_cases
def test_kept_damage(caplog):
    with pytest.raises(VideoError, match="cut_phone.mkv: the file is cut short"):
        sample_video(CASES / "cut_phone.mkv", 16)
    assert "cut_phone.mkv is cut short" in caplog.text
    sample = sample_video(CASES / "n_hole.mkv", 16)
    assert "12 of the 16 frames used are broken" in sample.warnings[0]


@needs_cases
def test_kept_screen_recording(caplog):
    counted = sample_video(CASES / "screen.mp4", 16)
    assert min(counted.times) > 50
    assert "its frame rate varies" in counted.warnings[0]
    caplog.clear()
    by_time = sample_video(CASES / "screen.mp4", 16, rule="by_time")
    np.testing.assert_allclose(by_time.times, (np.arange(16) + 0.5) * 60.0167 / 16, atol=0.01)
    assert caplog.text == ""


def test_frames_of_16_bit_grey_keep_their_grey(tmp_path):
    """Pillow clips them to white when it converts them."""
    folder = tmp_path / "frames"
    folder.mkdir()
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)
    for number in (1, 2):
        Image.fromarray(np.tile(ramp, (8, 1))).save(folder / f"{number:05}.png")
    for path in (folder, folder / "00001.png"):
        with open_video(path) as reader:
            (frame,) = reader.frames([0])
        assert np.array_equal(frame[0, :, 0], ramp >> 8)


def test_a_frame_that_breaks_off_is_named(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(
        tmp_path / "00001.jpg"
    )
    whole = (tmp_path / "00001.jpg").read_bytes()
    (tmp_path / "00001.jpg").write_bytes(whole[: len(whole) // 2])
    with open_video(tmp_path) as reader, pytest.raises(VideoError, match=r"00001\.jpg"):
        reader.frames([0])
