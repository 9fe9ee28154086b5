"""How far the work of this process is: told to whoever listens, and shown on a terminal."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
_EVERY_S = 0.3
listener: Callable[[float, float], None] | None = None
_last = 0.0


def tell(done: float, total: float) -> None:
    """Tell that ``done`` parts of ``total`` are done; it costs next to nothing where nobody listens."""
    global _last
    if listener is not None and (done >= total or time.monotonic() - _last > _EVERY_S):
        _last = time.monotonic()
        listener(done, total)


def track(parts: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Give the parts one by one, with a bar on standard error that says what is done."""
    from rich.console import Console
    from rich.progress import track as bar

    for done, part in enumerate(bar(parts, what, total, console=Console(stderr=True)), start=1):
        tell(done, total)
        yield part
