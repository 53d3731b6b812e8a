"""OKX v5: market data and accounts over WebSocket; instruments, open orders, fills and starts of books over REST."""

from pipeline.exchanges.okx.venue import OkxVenue

__all__ = ["OkxVenue"]
