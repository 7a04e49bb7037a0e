"""Honest figures: everything runs side by side in one run, rounds alternate, and what is reported are ratios."""
