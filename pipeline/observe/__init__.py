"""Metrics, health, status and logs. Reads counters that others keep; nobody waits for it."""
