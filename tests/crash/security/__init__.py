"""Attacks by another user, in folders that both may write to, and trees made to do harm when removed."""
