"""The engine: videos and questions in, answers out, in batches that never wait for their slowest.

`engine` is what callers hold, `service` the same for many threads, `jobs` what goes in and comes
out. `loader` reads ahead, `continuous` lets jobs enter and leave, `batch` decodes rows of all
videos together, `slots` holds their keys and values, `decoding` chooses tokens.
"""

from distime.engine.decoding import Decoding, EngineError
from distime.engine.engine import Engine
from distime.engine.jobs import Finished, Job
from distime.engine.service import Busy, Service

__all__ = ["Busy", "Decoding", "Engine", "EngineError", "Finished", "Job", "Service"]
