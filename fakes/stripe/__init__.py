"""A Stripe that stripe-python talks to unchanged: objects, money, events, webhooks, and an honest ledger."""
