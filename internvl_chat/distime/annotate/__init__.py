"""The data engine: raw videos in, grounded training data out (docs/DATA_ENGINE.md).

records.py    what the stages write and read, and where it lies
"""
