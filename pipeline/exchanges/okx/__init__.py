"""OKX v5: public market data over WebSocket, instruments over REST."""

from pipeline.exchanges.okx.venue import OkxVenue

__all__ = ["OkxVenue"]
