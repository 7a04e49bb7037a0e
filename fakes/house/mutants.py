"""Fakes that are wrong on purpose, so that a suite can be asked whether it would notice.

A suite that stays green in front of one of these proves nothing about keys. They are chosen with `--mutant` on the
command line only: a running fake cannot be turned into one, and `/_fake/health` always says which it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from fakes.house.idempotency import KeyRules

MUTANTS: Mapping[str, Callable[[KeyRules], KeyRules]] = {
    # Every request is the first with its key: each retry charges again.
    "forgets_keys": lambda rules: replace(rules, retention_seconds=-math.inf),
    # A 500 frees the key, as if it proved that nothing happened.
    "no_stored_500": lambda rules: replace(rules, failures="not_500"),
    # The same key with other parameters gets the first answer.
    "no_compare": lambda rules: replace(rules, compares_parameters=False),
    # A key protects for ever, so that a client without a horizon looks safe.
    "never_expires": lambda rules: replace(rules, retention_seconds=math.inf),
}
