from __future__ import annotations

import re

import pytest

from pipeline.exchanges.okx.codes import WEBSOCKET, Remedy, rest_error
from pipeline.model.errors import LoginFailed, Refused, Retryable, SessionError
from tests.exchanges.okx.samples import VENUE


def test_every_code_of_the_manual_has_its_remedy() -> None:
    by_remedy = {
        remedy: " ".join(sorted(code for code, its in WEBSOCKET.items() if its is remedy)) for remedy in Remedy
    }
    assert by_remedy == {
        Remedy.CONFIGURE: "60005 60007 60024 60026 60031 60032",
        Remedy.ASK: "60004 60006 60009",
        Remedy.WAIT: "60014 60023 63999 64007",
        Remedy.LOG_IN: "60011",
        Remedy.TIER: "60029 60030 64003",
        Remedy.LEAVE: "60008 60012 60013 60018 60019 60027 60028 60033 64000 64001 64002 64004",
    }


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (1009, Retryable, "a request was longer than okx takes"),
        (4001, LoginFailed, "the login failed"),
        (4002, Retryable, "a request was invalid"),
        (4003, Retryable, "more than 100 logins"),
        (4007, LoginFailed, "the key was changed or deleted"),
        (4008, Retryable, "more channels than okx allows in total"),
        (4009, Retryable, "lower max_topics_per_connection"),
    ],
)
def test_close_codes_that_mean_more_than_a_lost_connection(code: int, kind: type[SessionError], text: str) -> None:
    error = VENUE.close_error(code, "their words")
    assert type(error) is kind
    assert re.search(f"^okx closed with {code}, .*{text}.*: their words$", str(error))
    assert str(VENUE.close_error(code, "")).endswith(str(error).split(", ", 1)[1].removesuffix(": their words"))


@pytest.mark.parametrize("code", [1000, 1006, 4004, 4005, 4006, 4999])
def test_other_closes_are_lost_connections(code: int) -> None:
    assert VENUE.close_error(code, "") is None


@pytest.mark.parametrize(
    ("code", "kind", "hint"),
    [
        ("50011", Retryable, ""),
        ("50102", Retryable, ""),
        ("50112", Retryable, ""),
        ("50101", Refused, "; the key belongs to the other environment (production or demo)"),
        ("50110", Refused, "; the key is bound to other addresses than ours"),
        ("50119", Refused, "; the key does not exist in this region"),
        ("50111", Refused, ""),
        ("50113", Refused, ""),
        ("50105", Refused, ""),
        ("51000", Refused, ""),
    ],
)
def test_error_answers_over_rest(code: str, kind: type[SessionError], hint: str) -> None:
    error = rest_error("okx /api/v5/x", code, "their words")
    assert type(error) is kind
    assert str(error) == f"okx /api/v5/x: error {code}: their words{hint}"
