"""Stripe: one SDK client, one reading of its answers, four kinds of effect, and its books for look-ups and audits."""
