"""The configuration file: what can be in it, and reading it with every fault reported at once."""

from pipeline.config.load import load
from pipeline.config.settings import Config

__all__ = ["Config", "load"]
