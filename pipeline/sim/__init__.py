"""Simulated exchanges: an independent reading of the venues' protocols, to develop and to test against.

Nothing here imports `pipeline.exchanges`: what the connector understands is checked against a second opinion.
"""
