"""`python -m fakes stripe|mail --state DIR`: a provider with bad manners, in a process of its own."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import get_args

from fakes.house.mutants import MUTANTS
from fakes.house.profiles import PROFILES, Habits, Orphans

MILLISECONDS = 1000


def main() -> None:
    """Read the command line and serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m fakes", description=__doc__)
    kinds = parser.add_subparsers(dest="fake", required=True)
    stripe = kinds.add_parser("stripe", help="PaymentIntents over HTTP")
    stripe.add_argument("--port", type=int, default=0, help="0 takes a free one")
    stripe.add_argument("--strict-accounts", action="store_true", help="customers and payment methods must exist")
    mail = kinds.add_parser("mail", help="SMTP and Resend-shaped HTTP over one mailbox")
    mail.add_argument("--smtp-port", type=int, default=0)
    mail.add_argument("--http-port", type=int, default=0)
    for kind in (stripe, mail):
        kind.add_argument("--state", type=Path, required=True, help="folder that survives restarts")
        kind.add_argument("--admin-port", type=int, default=0)
        kind.add_argument("--latency-ms", type=float, default=0.0, help="added before every effect")
        kind.add_argument("--profile", choices=PROFILES, help="whose rules the keys follow")
        kind.add_argument("--orphans", choices=get_args(Orphans), help="what a restart makes of keys in flight")
        kind.add_argument("--mutant", choices=MUTANTS, help="be wrong on purpose, to see whether a suite notices")
    given = parser.parse_args()
    habits = Habits(given.latency_ms / MILLISECONDS, given.profile, given.orphans, given.mutant)
    if given.fake == "stripe":
        from fakes.stripe import server as stripe_server

        serving = stripe_server.serve(
            given.state, given.port, given.admin_port, habits, strict_accounts=given.strict_accounts
        )
        asyncio.run(serving)
    else:
        from fakes.mail import server as mail_server

        ports = mail_server.Ports(given.smtp_port, given.http_port, given.admin_port)
        asyncio.run(mail_server.serve(given.state, ports, habits))


if __name__ == "__main__":
    main()
