"""A caller who wants something later: `python -m tests.chaos.servers.late_caller KEY SECONDS`."""

from __future__ import annotations

import sys

from tasks import charge


def main() -> None:
    key, seconds = sys.argv[1:]
    wish = {"amount": 4200, "currency": "eur", "payment_method": "pm_card_visa"}
    print(charge.apply_async(kwargs=wish, dedupe_key=key, countdown=float(seconds)).id)


if __name__ == "__main__":
    main()
