"""Programs that run beside the supervisor, each its own process: nothing here is imported by the supervisor."""
