"""Answers, runs and data as people look at them: figures, timelines, pages, subtitles, clips."""
