"""The native part of schedtrace: not for others, who find everything in the package itself."""

from datetime import timedelta
from os import PathLike
from typing import final

__version__: str

class TraceError(Exception):
    """A trace that cannot be read: the message says why."""

@final
class Trace:
    def __new__(cls, path: str | PathLike[str]) -> Trace: ...
    def info(self) -> str: ...
    def report(self, by: str, top: int, include_recorder: bool) -> str: ...
    def stream(self, table: str) -> object: ...

@final
class Recorder:
    def __new__(
        cls,
        path: str | PathLike[str],
        duration: timedelta | None,
        pids: list[int],
        events: list[str],
        ring_bytes: int,
        max_bytes: int | None,
    ) -> Recorder: ...
    def wait(self, at_most: timedelta | None) -> bool: ...
    def stop(self) -> str: ...
