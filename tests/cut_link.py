"""A link that can be cut: bytes are passed on between 127.0.0.1 and a port of this machine, until they are not."""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import suppress


class CutLink:
    """Listens on a ``port`` of its own and passes on to ``target``; `cut` resets what is open and refuses what comes."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        self.accepted = 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._cut_until = 0.0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, seconds: float) -> None:
        """Reset every connection, and every new one for so many seconds."""
        self._cut_until = time.monotonic() + seconds
        with self._lock:
            broken, self._open = self._open, set()
        for end in broken:
            _reset(end)

    def close(self) -> None:
        self._door.close()
        self.cut(0.0)

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._door.accept()
                if time.monotonic() < self._cut_until:
                    _reset(near)
                    continue
                self.accepted += 1
                far = socket.create_connection(("127.0.0.1", self._target))
                with self._lock:
                    self._open |= {near, far}
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):  # cut
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


def _reset(end: socket.socket) -> None:
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RD)  # wakes who waits to read
    end.close()
