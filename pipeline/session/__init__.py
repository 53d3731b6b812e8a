"""One connection's life on Trio: transport, deadlines, supervision, rate limits. Knows no venue."""
