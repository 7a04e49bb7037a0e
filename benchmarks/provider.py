"""A provider that costs next to nothing: it waits, answers, and counts the keys it has seen.

Speaks just enough of Resend (`POST /emails`) and Stripe (create, confirm, retrieve a PaymentIntent) for the real
clients. It is the weather of the benchmark, not a fake to test against: see `fakes/` for those.
"""

from __future__ import annotations

import asyncio
import json
import sys
from urllib.parse import parse_qs

Intent = dict[str, object]
intents: dict[str, Intent] = {}
by_key: dict[str, str] = {}
calls: dict[str, int] = {}


def intent(key: str, form: dict[str, list[str]]) -> Intent:
    """The PaymentIntent of a create: the same one for the same key."""
    known = by_key.setdefault(key, f"pi_{len(by_key):012d}")
    metadata = {name[9:-1]: value[0] for name, value in form.items() if name.startswith("metadata[")}
    confirmed = form.get("confirm") == ["true"]
    return intents.setdefault(
        known,
        {
            "id": known,
            "object": "payment_intent",
            "livemode": False,
            "amount": int(form["amount"][0]),
            "currency": form["currency"][0],
            "metadata": metadata,
            "status": "succeeded" if confirmed else "requires_confirmation",
            "latest_charge": f"ch_{known[3:]}" if confirmed else None,
        },
    )


def answer(method: str, path: str, key: str, body: bytes) -> bytes:
    """The JSON of one request."""
    if path == "/calls":
        return json.dumps(calls).encode()
    if path == "/emails":
        return b'{"id":"%s"}' % key.encode()
    parts = path.split("/")
    if len(parts) == 3 and method == "POST":
        return json.dumps(intent(key, parse_qs(body.decode()))).encode()
    found = intents[parts[3]]
    if method == "POST":
        found.update(status="succeeded", latest_charge=f"ch_{parts[3][3:]}")
    return json.dumps(found).encode()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """One connection, requests one after another, each after `delay` seconds."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            lines = head.split("\r\n")
            method, path, _ = lines[0].split(" ")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            key = headers.get("idempotency-key", "")
            if method == "POST":
                calls[f"{path.split('/')[-1]}:{key}"] = calls.get(f"{path.split('/')[-1]}:{key}", 0) + 1
                await asyncio.sleep(delay)
            out = answer(method, path, key, body)
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nRequest-Id: req_1\r\nContent-Length: %d\r\n\r\n"
                % len(out)
            )
            writer.write(out)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main(delay: float) -> None:
    """Listen on a free loopback port and print it."""
    server = await asyncio.start_server(lambda r, w: serve(r, w, delay), "127.0.0.1", 0, limit=1 << 20)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
