"""`python -m fakes stripe|mail --state DIR`: a provider with bad manners, in a process of its own."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

MILLISECONDS = 1000


def main() -> None:
    """Read the command line and serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m fakes", description=__doc__)
    kinds = parser.add_subparsers(dest="fake", required=True)
    stripe = kinds.add_parser("stripe", help="PaymentIntents over HTTP")
    stripe.add_argument("--port", type=int, default=0, help="0 takes a free one")
    mail = kinds.add_parser("mail", help="SMTP and Resend-shaped HTTP over one mailbox")
    mail.add_argument("--smtp-port", type=int, default=0)
    mail.add_argument("--http-port", type=int, default=0)
    for kind in (stripe, mail):
        kind.add_argument("--state", type=Path, required=True, help="folder that survives restarts")
        kind.add_argument("--admin-port", type=int, default=0)
        kind.add_argument("--latency-ms", type=float, default=0.0, help="added before every effect")
    given = parser.parse_args()
    latency_seconds = given.latency_ms / MILLISECONDS
    if given.fake == "stripe":
        from fakes import stripe_server

        asyncio.run(stripe_server.serve(given.state, given.port, given.admin_port, latency_seconds))
    else:
        from fakes import mail as mail_server

        ports = mail_server.Ports(given.smtp_port, given.http_port, given.admin_port)
        asyncio.run(mail_server.serve(given.state, ports, latency_seconds))


if __name__ == "__main__":
    main()
