"""The data engine: raw videos in, grounded training data out (docs/DATA_ENGINE.md).

Where to find what::

    annotation_settings.py   every setting, its default and what is checked before work starts
    records.py               what the stages write and read, and where it lies
    run.py                   a run: its videos, captioners and locators; the stages one by one
    passes.py                one annotator over all videos, on all processes, resumed
    annotator.py             the interface of whatever looks at videos, and how it is named
    describing.py            stage events: what happens        (captioner.py, captioners/)
    locating.py              stage locations: when             (locator.py, locators/)
    comparing.py             stage similarity                  (comparer.py)
    selecting.py             stage selection: the score, and what is kept

A new captioner or locator is one new file in `captioners/` or `locators/`.
"""
