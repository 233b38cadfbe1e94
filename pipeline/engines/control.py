"""Messages between an engine and its fork server: JSON lines over a socket, with file descriptors beside them."""

from __future__ import annotations

import json
import socket
from typing import Any

_PIECE = 1 << 16


def send(control: socket.socket, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
    """Send one message, a JSON line, with file descriptors beside it."""
    line = json.dumps(message).encode() + b"\n"
    sent = socket.send_fds(control, [line], descriptors)
    control.sendall(line[sent:])


def receive(control: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Receive one message and the descriptors beside it; each side waits for an answer before it sends again.

    Raises:
        EOFError: the other side has closed its end.
    """
    content, descriptors = b"", []
    while not content.endswith(b"\n"):
        piece, found, _, _ = socket.recv_fds(control, _PIECE, 2)
        if not piece:
            raise EOFError
        content += piece
        descriptors += found
    message: dict[str, Any] = json.loads(content)
    return message, descriptors
