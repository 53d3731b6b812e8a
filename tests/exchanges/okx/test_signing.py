from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.exchanges.accounts import Credentials, Login
from pipeline.exchanges.okx.signing import login_request, signature, signed_headers, timestamp
from pipeline.model.errors import Refused
from pipeline.model.events import Micros

KEYS = Credentials("key", "22582BD0CFF14C41EDBF1AB98506286D", "phrase")
TIME = Micros(1607418537715999)


def test_a_posted_body_is_signed_after_the_path() -> None:
    headers = signed_headers(KEYS, "/api/v5/trade/cancel-all-after", TIME, b'{"timeOut":"60"}')
    text = f'{timestamp(TIME)}POST/api/v5/trade/cancel-all-after{{"timeOut":"60"}}'
    assert headers["OK-ACCESS-SIGN"] == signature(KEYS, text)


def test_a_login_of_the_manual() -> None:
    (arg,) = json.loads(login_request(Login(KEYS, 1704876900.0), 47.9))["args"]
    assert arg == {
        "apiKey": "key",
        "passphrase": "phrase",
        "timestamp": "1704876947",
        "sign": "5/36BgGV6m/6pmdc20zdqk0mzF5ZalmzzPD2fo3wavU=",
    }


def test_a_request_of_the_manual() -> None:
    assert signed_headers(KEYS, "/api/v5/account/balance?ccy=BTC", TIME) == {
        "OK-ACCESS-KEY": "key",
        "OK-ACCESS-SIGN": "HiZhvSfMtWJA3uUIVXV3a/bSXNPCWvYFXoGCVS8V4zY=",
        "OK-ACCESS-TIMESTAMP": "2020-12-08T09:08:57.715Z",
        "OK-ACCESS-PASSPHRASE": "phrase",
    }


def test_a_request_with_a_body_of_the_manual() -> None:
    text = timestamp(TIME) + "POST/api/v5/account/set-leverage"
    text += '{"instId":"BTC-USDT","lever":"5","mgnMode":"isolated"}'
    assert signature(KEYS, text) == "eCnnCgWLjlQ9XnpUkrcny3qNq3WW/81KNrDr/XR6Xv8="


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_999, "1970-01-01T00:00:00.001Z"),
        (1_704_067_199_999_999, "2023-12-31T23:59:59.999Z"),
        (1_709_164_800_007_000, "2024-02-29T00:00:00.007Z"),
    ],
)
def test_timestamps_have_milliseconds_and_are_not_rounded_up(micros: int, text: str) -> None:
    assert timestamp(Micros(micros)) == text


@given(secret=st.text("abc019é"), phrase=st.text(), seconds=st.integers(0, 4_000_000_000))
def test_any_login_is_json_that_proves_itself(secret: str, phrase: str, seconds: int) -> None:
    request = json.loads(login_request(Login(Credentials("k", secret, phrase), float(seconds)), 0.0))
    (arg,) = request["args"]
    digest = hmac.new(secret.encode(), f"{seconds}GET/users/self/verify".encode(), hashlib.sha256).digest()
    assert (request["op"], arg["passphrase"], arg["timestamp"]) == ("login", phrase, str(seconds))
    assert base64.b64decode(arg["sign"]) == digest


@pytest.mark.parametrize(
    ("keys", "field"),
    [
        (Credentials("kéy", "s", "p"), "api_key"),
        (Credentials("k\n", "s", "p"), "api_key"),
        (Credentials("k", "s", "p\u00df"), "passphrase"),
    ],
    ids=range(3),
)
def test_keys_that_no_header_can_carry_are_named_and_not_shown(keys: Credentials, field: str) -> None:
    with pytest.raises(Refused, match=f"^okx: {field} is no plain ASCII text$"):
        signed_headers(keys, "/api/v5/account/balance", TIME)
