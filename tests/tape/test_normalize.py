from __future__ import annotations

import argparse
import io
import json
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import attrs
import pytest

from pipeline.avro.schemas import HEAD
from pipeline.exchanges import VENUES
from pipeline.model.errors import ConfigError
from pipeline.model.events import KINDS
from pipeline.tape import normalize

DATA = Path(__file__).parent.parent / "data" / "tape"
NOW = 1_700_000_000_000_000


@attrs.frozen
class Result:
    code: int
    events: list[dict[str, Any]]
    problems: list[str]


def run(*arguments: str, stdin: bytes = b"") -> Result:
    parser = argparse.ArgumentParser(exit_on_error=False)
    normalize.add_arguments(parser)
    out, err = io.BytesIO(), io.StringIO()
    code = normalize.run(
        parser.parse_args(arguments), stdin=io.BytesIO(stdin), stdout=out, stderr=err, clock=lambda: NOW
    )
    return Result(code, [json.loads(line) for line in out.getvalue().splitlines()], err.getvalue().splitlines())


def bybit(*arguments: str, stdin: bytes = b"") -> Result:
    return run("--venue", "bybit", "--stream", "linear", *arguments, stdin=stdin)


def okx(*arguments: str, stdin: bytes = b"") -> Result:
    return run("--venue", "okx", "--stream", "public", *arguments, stdin=stdin)


TRADES = (DATA / "bybit.linear.trades.jsonl").read_bytes()


def test_each_event_is_one_object_with_its_kind_and_the_avro_fields() -> None:
    result = bybit(str(DATA / "bybit.linear.trades.jsonl"))
    assert (result.code, result.problems) == (0, [])
    assert len(result.events) == 2
    first = result.events[0]
    own = [name for name in KINDS["trade"].__struct_fields__ if name != "origin"]
    assert list(first) == ["event", *HEAD, *own]
    assert first["event"] == "trade"
    assert first["connection"] == "normalize"
    assert first["receive_time"] == NOW
    assert (first["price"], first["size"]) == ("65485.50", "0.001")
    assert (first["symbol"], first["account"]) == (None, None)


def test_the_receive_time_can_be_fixed() -> None:
    assert [e["receive_time"] for e in bybit("--receive-time", "17", stdin=TRADES).events] == [17, 17]
    assert [e["receive_time"] for e in bybit("--receive-time", "0", stdin=TRADES).events] == [0, 0]


@pytest.mark.parametrize("text", ["-1", "1.5", "now", "", "9223372036854775808", "²"])
def test_a_receive_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentError, match="receive-time"):
        bybit("--receive-time", text)


def test_books_go_through_the_tracker() -> None:
    events = bybit(str(DATA / "bybit.linear.book.jsonl")).events
    assert [(e["event"], e.get("status"), e["sequence"]) for e in events] == [
        ("book_update", None, 1000),
        ("book_update", None, 1001),
        ("book_update", None, 1002),
        ("feed_status", "gap", None),
        ("feed_status", "resynced", None),
        ("book_update", None, 1),
        ("book_update", None, 2),
        ("book_update", None, 3),
    ]
    assert events[0]["is_snapshot"] is True
    assert set(events[0]["bids"][0]) == {"price", "size"}
    assert not any(e.get("is_periodic") for e in events)


def test_a_recording_may_begin_in_the_middle_of_a_book() -> None:
    lines = (DATA / "bybit.linear.book.jsonl").read_bytes().splitlines(keepends=True)
    events = bybit(stdin=b"".join(lines[1:])).events
    assert [(e["event"], e.get("status"), e["sequence"]) for e in events][:3] == [
        ("book_update", None, 1001),
        ("book_update", None, 1002),
        ("feed_status", "gap", None),
    ]
    assert (events[0]["is_snapshot"], events[0]["epoch"]) == (False, 0)
    assert events[-1]["epoch"] > 0


def test_instruments_give_symbols_and_exact_sizes(tmp_path: Path) -> None:
    trades, instruments = DATA / "okx.trades.jsonl", DATA / "okx.rest.instruments.jsonl"
    unknown, known = okx(str(trades)).events, okx("--instruments", str(instruments), str(trades)).events
    assert (unknown[1]["size"], unknown[1]["symbol"], unknown[1]["quote_size"]) == ("2", None, None)
    assert (known[1]["size"], known[1]["symbol"], known[1]["quote_size"]) == ("2", "BTC-USD-20220527", "200")
    # One indented body per file says the same.
    files = []
    for number, line in enumerate(instruments.read_text("utf-8").splitlines()):
        (tmp_path / str(number)).write_text(json.dumps(json.loads(line), indent=2), "utf-8")
        files += ["--instruments", str(tmp_path / str(number))]
    assert okx(*files, str(trades)).events == known


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b"", ": is empty", id="nothing"),
        pytest.param(b"\n \n", ": is empty", id="blanks"),
        pytest.param(b"{]", ":1: not JSON", id="no JSON"),
        pytest.param(b'\n{"code":"0","data":[]}\n\n{"code":', ":4: not JSON", id="cut short"),
        pytest.param(b"\xff", ": byte 0: not UTF-8", id="no UTF-8"),
        pytest.param(b'{"code":"0","data":[]}\n{"code":"50011","msg":"Too many","data":[]}', ":2: ", id="refusal"),
    ],
)
def test_a_faulty_file_of_instruments_is_named_before_anything_is_written(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    path = tmp_path / "instruments.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        okx("--instruments", str(path), str(DATA / "okx.trades.jsonl"))
    assert caught.value.problems[0].startswith(f"{path}{problem}")
    with pytest.raises(ConfigError) as caught:
        okx("--instruments", str(tmp_path / "none"))
    assert caught.value.problems == [f"{tmp_path / 'none'}: No such file or directory"]


def test_what_cannot_be_read_is_reported_with_its_place_and_the_rest_is_done(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    path.write_bytes(b"\n".join([b"", b"{nonsense", TRADES.strip(), b'{"topic":"kline.1.X"}', TRADES.strip()]))
    result = bybit(str(path), str(tmp_path / "none"), str(DATA / "bybit.linear.trades.jsonl"))
    assert result.code == 1
    assert len(result.events) == 6
    places = [problem.split(" ")[0] for problem in result.problems]
    assert places == [f"{path}:2:", f"{path}:4:", f"{tmp_path / 'none'}:"]
    assert result.problems[2] == f"{tmp_path / 'none'}: No such file or directory"
    assert bybit(str(tmp_path)).problems == [f"{tmp_path}: Is a directory"]


def test_a_value_that_could_not_be_published_is_reported_like_an_unreadable_one() -> None:
    result = bybit(stdin=TRADES.replace(b'"65485.50"', b'"a lot"'))
    assert result.code == 1
    assert [event["price"] for event in result.events] == ["65485.60"]
    (problem,) = result.problems
    assert problem.startswith("<stdin>:1: trade.price: ")


@pytest.mark.parametrize("arguments", [(), ("-",)], ids=["none", "dash"])
def test_standard_input(arguments: tuple[str, ...]) -> None:
    result = bybit(*arguments, stdin=TRADES + b"oops")
    assert len(result.events) == 2
    assert result.code == 1
    assert result.problems[0].startswith("<stdin>:2: ")


def test_control_messages_and_blank_lines_say_nothing() -> None:
    assert bybit(str(DATA / "bybit.control.jsonl")) == Result(0, [], [])
    assert okx(str(DATA / "okx.control.jsonl")) == Result(0, [], [])
    assert okx(stdin=b"pong\r\n\n  \r\npong") == Result(0, [], [])


@pytest.mark.parametrize(
    ("venue", "stream"), [(venue.name, stream) for venue in VENUES.values() for stream in venue.streams]
)
def test_every_stream_of_every_venue_is_offered(venue: str, stream: str) -> None:
    assert run("--venue", venue, "--stream", stream) == Result(0, [], [])


@pytest.mark.parametrize(
    ("venue", "stream", "hint"),
    [
        pytest.param("bybit", "liner", 'did you mean "linear"?', id="a slip"),
        pytest.param("okx", "linear", "known: public, business, private", id="of another venue"),
    ],
)
def test_an_unknown_stream_is_refused(venue: str, stream: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run("--venue", venue, "--stream", stream)
    assert caught.value.problems == [f'--stream: {venue} has no stream "{stream}"; {hint}']


class Chunks(io.BufferedIOBase):
    """Gives prepared chunks, as a pipe would."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)

    def read1(self, size: int = -1, /) -> bytes:
        return next(self._chunks, b"")


@pytest.mark.parametrize("width", [1, 2, 3, 7, 100])
def test_lines_do_not_depend_on_how_they_arrive(width: int) -> None:
    text = b"one\n\ntwo\r\nthree is longer\n\n\nfour"
    chunks = [text[start : start + width] for start in range(0, len(text), width)]
    assert [line for lines in normalize.read_lines(Chunks(chunks)) for line in lines] == text.split(b"\n")


def test_a_last_line_feed_adds_no_line() -> None:
    assert list(normalize.read_lines(Chunks([b"a\nb\n"]))) == [[b"a", b"b"]]


def test_what_has_arrived_is_written_before_the_next_wait() -> None:
    written: list[int] = []
    out = io.BytesIO()
    buffered = io.BufferedWriter(cast("io.RawIOBase", out), 1_000_000)

    def chunks() -> Iterable[bytes]:
        yield TRADES
        written.append(out.getvalue().count(b"\n"))
        yield TRADES[:50]
        written.append(out.getvalue().count(b"\n"))
        yield TRADES[50:]
        written.append(out.getvalue().count(b"\n"))

    arguments = argparse.Namespace(venue="bybit", stream="linear", instruments=[], receive_time=1, files=[])
    source = Chunks(chunks())
    assert normalize.run(arguments, stdin=source, stdout=buffered, stderr=io.StringIO(), clock=lambda: NOW) == 0
    assert written == [2, 2, 4]


def test_memory_does_not_grow_with_the_input() -> None:
    class Nothing(io.BytesIO):
        def write(self, data: Any, /) -> int:
            return len(data)

    arguments = argparse.Namespace(venue="bybit", stream="linear", instruments=[], receive_time=1, files=[])
    peaks = []
    for repetitions in (10, 60):
        source = Chunks(TRADES * 100 for _ in range(repetitions))
        tracemalloc.start()
        normalize.run(arguments, stdin=source, stdout=Nothing(), stderr=io.StringIO(), clock=lambda: NOW)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.5
