"""The engine: videos and questions in, answers out, in batches that never wait for their slowest.

`engine` loads, encodes and hands out, `service` does it for many threads; `batch` decodes rows of
all videos together; `slots` holds their keys and values; `sampling` chooses tokens.
"""

from distime.engine.engine import Engine, Finished, Job
from distime.engine.sampling import Decoding, EngineError
from distime.engine.service import Busy, Service

__all__ = ["Busy", "Decoding", "Engine", "EngineError", "Finished", "Job", "Service"]
