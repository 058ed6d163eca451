"""How to end a TCP connection on purpose: after everything sent has arrived, with FIN or RST."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
import time
from typing import cast

__all__ = ["delivered", "reset"]

_SIOCOUTQ = 0x5411  # Linux: bytes sent that the peer's kernel has not acknowledged
_PATIENCE_S = 2.0


async def delivered(transport: asyncio.WriteTransport) -> None:
    """Wait until the peer's kernel has all that was written, but not for ever."""
    deadline = time.monotonic() + _PATIENCE_S
    # No event tells that the kernel's buffer is empty.
    while time.monotonic() < deadline and (  # noqa: ASYNC110  (see above)
        transport.get_write_buffer_size() or _unacknowledged(transport)
    ):
        await asyncio.sleep(0.001)


def reset(transport: asyncio.WriteTransport) -> None:
    """Close with RST instead of FIN; what is still buffered is lost."""
    linger = struct.pack("ii", 1, 0)
    if not transport.is_closing():
        _socket(transport).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


def _unacknowledged(transport: asyncio.WriteTransport) -> int:
    if not sys.platform.startswith("linux") or transport.is_closing():
        return 0
    answer = fcntl.ioctl(_socket(transport).fileno(), _SIOCOUTQ, b"\0" * 4)
    return int(struct.unpack("i", answer)[0])


def _socket(transport: asyncio.WriteTransport) -> socket.socket:
    return cast("socket.socket", transport.get_extra_info("socket"))
