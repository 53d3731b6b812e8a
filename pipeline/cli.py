"""The command line: `python -m pipeline [COMMAND] …`.

Exit codes: 0 all went well, 1 something failed, 2 the configuration or the usage is wrong (the problems are on
standard error, one per line), 130 interrupted. What a command needs is imported when it runs, so that `--help`
answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from pipeline import __version__

if TYPE_CHECKING:
    from io import BufferedReader

    from pipeline.config import Config

PROGRAM = "python -m pipeline"

OK, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130

Run = Callable[[argparse.Namespace], int]


class Command(NamedTuple):
    """One subcommand."""

    summary: str
    prepare: Callable[[argparse.ArgumentParser], Run]
    """Adds the command's options and gives what runs it."""


def main(argv: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    from pipeline.model.errors import ConfigError, PipelineError

    try:
        return _dispatch(list(argv))
    except SystemExit as exit_:  # argparse: 0 after --help, 2 for wrong usage
        return exit_.code if isinstance(exit_.code, int) else WRONG_USAGE
    except BrokenPipeError:
        # Whoever read our output has enough of it. What is still buffered would fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except ConfigError as error:
        return _complain(error.problems, WRONG_USAGE)
    except (PipelineError, KeyboardInterrupt, BaseExceptionGroup) as error:
        leaves = list(_leaves(error))
        if all(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
            return INTERRUPTED
        if all(isinstance(leaf, ConfigError) for leaf in leaves):
            return _complain([str(leaf) for leaf in leaves], WRONG_USAGE)
        if all(isinstance(leaf, PipelineError) for leaf in leaves):
            return _complain([str(leaf) for leaf in leaves], FAILED)
        raise


def _dispatch(argv: list[str]) -> int:
    if argv and not argv[0].startswith("-"):
        name = argv.pop(0)
        if name not in COMMANDS:
            return _complain([f'unknown command "{name}"; {_suggestion(name)}'], WRONG_USAGE)
        command = COMMANDS[name]
        parser = argparse.ArgumentParser(prog=f"{PROGRAM} {name}", description=command.summary, allow_abbrev=False)
    else:
        command = Command("", _service)
        parser = argparse.ArgumentParser(
            prog=PROGRAM,
            usage=f"{PROGRAM} --config FILE [--live]\n       {PROGRAM} COMMAND [--help] …",
            description="Crypto exchange WebSocket streams, normalized and delivered to Kafka as Avro.",
            epilog="commands:\n" + "\n".join(f"  {name:<10} {each.summary}" for name, each in COMMANDS.items()),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        parser.add_argument("--version", action="version", version=f"exchange-pipeline {__version__}")
    run = command.prepare(parser)
    return run(parser.parse_args(argv))


def _service(parser: argparse.ArgumentParser) -> Run:
    _add_config(parser, "run the service with this configuration until SIGTERM or SIGINT")
    parser.add_argument(
        "--live",
        action="store_true",
        help="show on standard output how it goes: a table, or lines if that is no terminal",
    )
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)  # see `pipeline.worker`

    def run(arguments: argparse.Namespace) -> int:
        path = arguments.config
        if arguments.worker is not None:
            from pipeline.worker import run_worker

            return run_worker(path, arguments.worker, sys.stdin.buffer)
        config, text = _load_with_text(path)
        from pipeline.reloader import Source, check_authorities

        with _problems_of(path):
            config.share()
            check_authorities(config.venues)
        from functools import partial

        import trio

        if config.workers > 1:
            from pipeline import workers

            return trio.run(partial(workers.run, config, text, path, is_live=arguments.live))
        from pipeline import app

        return trio.run(partial(app.run, config, app.Seat(), Source(path, text), is_live=arguments.live))

    return run


def _check(parser: argparse.ArgumentParser) -> Run:
    _add_config(parser)
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    parser.add_argument("--connect", action="store_true", help="also try to reach the venues and Kafka")
    parser.add_argument(
        "--share", type=int, metavar="K", help="of the plan only what this one of several workers or shards takes"
    )

    def run(arguments: argparse.Namespace) -> int:
        config = _load(arguments.config)
        from functools import partial

        import trio

        from pipeline import check

        return trio.run(
            partial(check.run, config, as_json=arguments.json, connect=arguments.connect, share=arguments.share)
        )

    return run


def _normalize(parser: argparse.ArgumentParser) -> Run:
    from pipeline.session.clock import system_clock
    from pipeline.tape import normalize

    normalize.add_arguments(parser)

    def run(arguments: argparse.Namespace) -> int:
        stdin = cast("BufferedReader", sys.stdin.buffer)
        return normalize.run(arguments, stdin=stdin, stdout=sys.stdout.buffer, stderr=sys.stderr, clock=system_clock)

    return run


def _replay(parser: argparse.ArgumentParser) -> Run:
    from pipeline import replay_command

    replay_command.add_arguments(parser)

    def run(arguments: argparse.Namespace) -> int:
        config = _load(arguments.config) if arguments.config is not None else None
        from functools import partial

        import trio

        kafka = config.kafka if config is not None else None
        if config is None:
            _log("warning")
        return trio.run(partial(replay_command.run, arguments, kafka, stdout=sys.stdout.buffer, stderr=sys.stderr))

    return run


def _tail(parser: argparse.ArgumentParser) -> Run:
    from pipeline.sink import tail

    _add_config(parser)
    tail.add_arguments(parser)

    def run(arguments: argparse.Namespace) -> int:
        config = _load(arguments.config)
        import trio

        return trio.run(tail.run, arguments, config.kafka, config.written_kinds)

    return run


def _schemas(parser: argparse.ArgumentParser) -> Run:
    from pipeline import schemas_command

    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser("check", help="say what is registered, what would be, and whether it is compatible")
    register = actions.add_parser("register", help="register what is missing, also where the service may only look")
    show = actions.add_parser("show", help="print a schema as registries and readers get it")
    for each in (check, register):
        _add_config(each)
        each.add_argument("--json", action="store_true", help="print JSON")
    schemas_command.add_show_arguments(show)

    def run(arguments: argparse.Namespace) -> int:
        if arguments.action == "show":
            return schemas_command.show(arguments.kind, arguments.decimals)
        config = _load(arguments.config)
        from functools import partial

        import trio

        return trio.run(
            partial(schemas_command.run, config.kafka, arguments.action, as_json=arguments.json),
        )

    return run


def _reference(parser: argparse.ArgumentParser) -> Run:
    from pipeline import reference_command

    reference_command.add_arguments(parser)

    def run(arguments: argparse.Namespace) -> int:
        kafka = _load(arguments.config).kafka if arguments.config is not None else None
        return reference_command.run(arguments.subject, kafka)

    return run


def _order(parser: argparse.ArgumentParser) -> Run:
    from pipeline import order_command

    order_command.add_arguments(parser, _add_config)

    def run(arguments: argparse.Namespace) -> int:
        config = _load(arguments.config)
        return order_command.run(arguments, config, stdin=sys.stdin, stdout=sys.stdout, stderr=sys.stderr)

    return run


def _simulate(parser: argparse.ArgumentParser) -> Run:
    from pipeline.sim import command

    command.add_arguments(parser)

    def run(arguments: argparse.Namespace) -> int:
        import trio

        _log("info")
        return trio.run(command.run, arguments)

    return run


def _demo(parser: argparse.ArgumentParser) -> Run:
    from pipeline import demo

    demo.add_arguments(parser)

    def run(arguments: argparse.Namespace) -> int:
        import trio

        _log("warning")  # the screen belongs to the demo
        return trio.run(demo.run, arguments)

    return run


def _bench(parser: argparse.ArgumentParser) -> Run:
    from pipeline.bench import command

    command.add_arguments(parser)
    return command.run


COMMANDS = {
    "demo": Command("Watch simulated exchanges go through the connector into an in-process Kafka.", _demo),
    "check": Command("Print what a configuration amounts to, or everything that is wrong with it.", _check),
    "normalize": Command("Turn recorded wire messages into events.", _normalize),
    "replay": Command("Turn an archive of wire messages back into events.", _replay),
    "schemas": Command("Check or register the schemas of events, or print one.", _schemas),
    "reference": Command("Print what can be configured, what is published, or an AsyncAPI description.", _reference),
    "tail": Command("Print events as they arrive in Kafka.", _tail),
    "order": Command("Give an order command by hand and follow it.", _order),
    "simulate": Command("Serve a simulated exchange on this machine.", _simulate),
    "bench": Command("Measure what a message costs, beside other ways into Kafka.", _bench),
}


def _add_config(parser: argparse.ArgumentParser, text: str = "the service's configuration") -> None:
    parser.add_argument("--config", metavar="FILE", required=True, help=text)


def _load(path: str) -> Config:
    """Read the configuration and set up the logs; raises `ConfigError` with the file's name before each problem."""
    return _load_with_text(path)[0]


def _load_with_text(path: str) -> tuple[Config, str]:
    """The same, with what the file holds."""
    from pipeline.config import loads, read_text
    from pipeline.observe.logs import configure

    with _problems_of(path):
        text = read_text(path)
        config = loads(text)
    configure(config.log)
    return config, text


@contextmanager
def _problems_of(path: str) -> Iterator[None]:
    """Put the file's name before each problem."""
    from pipeline.model.errors import ConfigError

    try:
        yield
    except ConfigError as error:
        raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from None


def _log(level: Literal["info", "warning"]) -> None:
    from pipeline.observe.logs import configure
    from pipeline.observe.settings import LogSettings

    configure(LogSettings(level=level))


def _suggestion(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, COMMANDS, n=1)
    return f'did you mean "{close[0]}"?' if close else f"known: {', '.join(COMMANDS)}"


def _complain(problems: Sequence[str], code: int) -> int:
    for problem in problems:
        print(problem, file=sys.stderr)
    return code


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
