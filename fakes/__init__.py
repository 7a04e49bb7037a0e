"""Real servers with bad manners: a Stripe, a mail service. They share no code with the service."""
