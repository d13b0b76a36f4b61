import pytest

from distime.processing.subtitles import SubtitledMedia, between_frames, read_subtitles

FRAME = "<FRAME_TIME_REF>: <img><IMG_CONTEXT><IMG_CONTEXT></img>"


def test_both_published_forms_are_read():
    clock = {"start": "00:01:02.500", "end": "01:00:00.000", "line": " Hello. "}
    seconds = {"timestamp": [62.5, 3600.0], "text": "Hello."}
    assert read_subtitles([clock], 60) == read_subtitles([seconds], 60)
    (subtitle,) = read_subtitles([clock], 60)
    assert (subtitle.start, subtitle.end, subtitle.text) == (2.5, 3540.0, "Hello.")


def test_short_and_open_subtitles_last_a_second():
    (open_end,) = read_subtitles([{"timestamp": [5, None], "text": "a"}])
    assert (open_end.start, open_end.end) == (4.5, 5.5)
    with pytest.raises(KeyError):
        read_subtitles([{"from": 1}])


def test_a_subtitle_stands_behind_the_last_frame_before_its_middle():
    entries = [([0, 3], "first"), ([4, 6], "unseen"), ([9, 12], "late"), ([6, 14], "long")]
    subtitles = read_subtitles([{"timestamp": t, "text": text} for t, text in entries])
    lines = between_frames(subtitles, [2.0, 8.0, 10.0])
    assert lines == (("first",), (), (), ("long", "late"))
    media = SubtitledMedia(tokens_per_image=2, num_frames=3, lines=lines)
    shown = ["first", FRAME, FRAME, FRAME, "long", "late", "Why?"]
    assert media.place("Why?") == "\n".join(shown)
