"""The engine: videos and questions in, answers out, in batches that never wait for their slowest.

`engine` loads, encodes and hands out; `batch` decodes rows of all videos together; `slots` holds
their keys and values; `sampling` chooses tokens.
"""

from distime.engine.engine import Engine, Finished, Job
from distime.engine.sampling import Decoding, EngineError

__all__ = ["Decoding", "Engine", "EngineError", "Finished", "Job"]
