"""Connections that end by themselves: nobody can keep one open by asking, or by reading, without end."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

ASKING = 15.0  # seconds for a request, and between two
READING = 300.0  # seconds for an answer: a page of 6 MB at 20 kB/s
MOST = 200  # connections at a time
_CHECK_SECONDS = 1.0  # seconds between two looks


class Impatient(H11Protocol):
    """uvicorn's connection, cut off where the client takes too long."""

    _since = 0.0
    _waits = True
    _next: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = self.loop.time()
        self._next = self.loop.call_later(_CHECK_SECONDS, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._next is not None:
            self._next.cancel()
        super().connection_lost(exc)

    def _check(self) -> None:
        waits = self.cycle is None or self.cycle.response_complete
        if waits != self._waits:
            self._since, self._waits = self.loop.time(), waits
        if self.loop.time() - self._since > (ASKING if waits else READING):
            self.transport.abort()
        else:
            self._next = self.loop.call_later(_CHECK_SECONDS, self._check)
