from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from pipeline.book.checksum import okx_checksum

RECORDING = Path(__file__).parent.parent / "data" / "okx" / "recording.books.jsonl"


@pytest.mark.parametrize(
    ("bids", "asks", "expected"),
    [
        pytest.param(
            [("3366.1", "7"), ("3366", "6")], [("3366.8", "9"), ("3368", "8")], -1881014294, id="even sides, negative"
        ),
        pytest.param([("3366.1", "7")], [("3366.8", "9"), ("3368", "8"), ("3372", "8")], 831078360, id="uneven sides"),
        pytest.param(
            [("3366.1", "7")], [("3366.8", "9.50"), ("3368", "8"), ("3372", "8")], -1263025330, id="zeros are kept"
        ),
        pytest.param([], [("3366.8", "9.50"), ("3368", "8"), ("3372", "8")], 1092861659, id="one side empty"),
    ],
)
def test_okx_vectors(bids: list[tuple[str, ...]], asks: list[tuple[str, ...]], expected: int) -> None:
    assert okx_checksum(bids, asks) == expected


def test_only_price_size_and_the_best_25_count() -> None:
    bids = [(str(100 - i), "1") for i in range(25)]
    asks = [(str(200 + i), "2") for i in range(25)]
    longer = [(*row, "0", "7") for row in bids] + [("1", "1", "0", "1")]
    assert okx_checksum(longer, [*asks, ("999", "1")]) == okx_checksum(bids, asks)
    assert okx_checksum(bids[:24], asks) != okx_checksum(bids, asks)


def test_every_checksum_of_a_recording_holds() -> None:
    sides: dict[str, dict[str, tuple[str, ...]]] = {"bids": {}, "asks": {}}
    verified = 0
    for line in RECORDING.read_bytes().splitlines():
        message = json.loads(line)
        (data,) = message["data"]
        for side, levels in sides.items():
            if message["action"] == "snapshot":
                levels.clear()
            for row in data[side]:
                if row[1] == "0":
                    levels.pop(row[0], None)
                else:
                    levels[row[0]] = tuple(row)
        best = {
            side: sorted(levels.values(), key=lambda row: Decimal(row[0]), reverse=side == "bids")
            for side, levels in sides.items()
        }
        assert okx_checksum(best["bids"], best["asks"]) == data["checksum"]
        verified += 1
    assert verified == 99
