"""Rules: pure functions of (state, event, now)."""
