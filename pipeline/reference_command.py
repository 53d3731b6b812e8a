"""`python -m pipeline reference`: what can be configured, published and measured, printed by the program."""

from __future__ import annotations

import argparse
import sys

from pipeline.sink.settings import KafkaSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `reference`."""
    parser.add_argument(
        "subject",
        choices=("config", "events", "metrics", "asyncapi"),
        help="config: every key of the configuration file, as Markdown; events: every kind of event and field, as "
        "Markdown; metrics: everything that /metrics tells, as Markdown; asyncapi: the topics as an "
        "AsyncAPI document, as YAML",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="take the topics as this configuration has them, instead of the defaults"
    )


def run(subject: str, kafka: KafkaSettings | None) -> int:
    """Print one reference; always succeeds."""
    from pipeline import asyncapi, config_reference, event_reference, metric_reference

    match subject:
        case "config":
            text = config_reference.markdown()
        case "events":
            text = event_reference.markdown(kafka)
        case "metrics":
            text = metric_reference.markdown()
        case _:
            text = asyncapi.text(kafka)
    sys.stdout.write(text)
    return 0
