"""Names a point by what the process was doing there, so that a point keeps its name when its number changes.

A number is not an identity: one answer arrives in one read or in two. A label is (operation, peer, what was said): the
head of what goes out, and for what comes in the head of what was last said on that connection, which is known before
the answer is. On that connection, for two threads may ask the same peer at once.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence

from tests.chaos.points.block import HEARS, Call

_SHOWN_CHARACTERS = 40
_REQUEST = re.compile(rb"^(GET|POST|PUT|DELETE) ([^ ?]*)")
_REDIS = re.compile(rb"^\*\d+\r\n\$\d+\r\n([A-Za-z_]+)")
# AMQP 0-9-1, section 2.3.5: type, channel, size; a method frame goes on with class and method (60.80: basic.ack)
_AMQP_FRAMES = (b"\x01", b"\x02", b"\x03", b"\x08")
_AMQP_METHOD = struct.Struct(">BHIHH")
# A password's proof is new each time, and so is what is bound to a prepared statement.
_NAMELESS = ("p", "B")
_PRINTABLE = re.compile(rb"[\x20-\x7e]{4,}")
# pi_1a2b, an effect's UUID, 1700000000: whatever differs from run to run
_OWN_NAME = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{4,}|\b[a-z]{2}_[A-Za-z0-9_]*\d[A-Za-z0-9_]*|\d+")


def labels(calls: Sequence[Call], peers: Mapping[int, str]) -> list[str]:
    """One label for each call, in order."""
    said: dict[tuple[int, str, int], str] = {}
    found = []
    for call in calls:
        peer = "pipe" if call.pipe else peers.get(call.port, "own socket" if call.port < 2 else f"port {call.port}")
        if call.op == "connect":
            said[call.pid, peer, call.fd] = "connect"
            found.append(f"connect {peer}")
        elif call.op in HEARS:
            found.append(f"{call.op} {peer} after {said.get((call.pid, peer, call.fd), 'nothing')}")
        else:
            words = said[call.pid, peer, call.fd] = head(call.head, peer)
            found.append(f"{call.op} {peer} {words}")
    return found


def head(data: bytes, peer: str) -> str:
    """What these bytes say, in the words of the peer's protocol."""
    if peer == "pipe" or peer.startswith("own"):
        return "bytes"
    for pattern in (_REQUEST, _REDIS):
        if said := pattern.match(data):
            return _without_names(b" ".join(said.groups()))
    if peer == "postgres":
        letter = chr(data[0]) if data[:1].isalpha() else "startup"
        if letter in _NAMELESS:
            return letter
        words = b" ".join(_PRINTABLE.findall(data[1:]))
        return f"{letter} {_without_names(words)}".strip()
    if peer == "broker" and data[:1] in _AMQP_FRAMES and len(data) >= _AMQP_METHOD.size:
        frame, _, _, family, method = _AMQP_METHOD.unpack_from(data)
        return f"method {family}.{method}" if frame == 1 else f"frame {frame}"
    first = data.split(b"\r\n", 1)[0].split(b" ", 1)[0]
    return _without_names(first) if _PRINTABLE.fullmatch(first) else "data"


def _without_names(words: bytes) -> str:
    return _OWN_NAME.sub("#", " ".join(words.decode("ascii", "replace").split()))[:_SHOWN_CHARACTERS].strip()
