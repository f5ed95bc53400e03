"""Deeds of the supervisor: files, wake-ups, the keeper's client, the log. Decides nothing."""
