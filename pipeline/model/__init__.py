"""What the outside world sees: events, instruments, errors, counters. Imports nothing of ours."""
