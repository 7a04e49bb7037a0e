"""Mail: Resend, which knows our keys, and SMTP, which knows nothing; both send the same frozen letter."""
