"""Two doors, SMTP and Resend-shaped HTTP, over one mailbox that keeps every accepted copy."""
