"""The wire: a fast, forgetful broker behind which Postgres remembers. The only place that knows Celery's inside."""
