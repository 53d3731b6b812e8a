"""Signatures, against the reference's vectors and against the other half of a key."""

from __future__ import annotations

from base64 import b64decode
from functools import cache

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_curve_key
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from pipeline.exchanges.accounts import Credentials
from pipeline.exchanges.bybit.private_side import BybitAccounts
from pipeline.exchanges.bybit.signing import signature
from pipeline.model.errors import Refused
from pipeline.model.events import Micros

ACCOUNTS = BybitAccounts()


@cache
def rsa_key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


def pem(encryption: KeySerializationEncryption | None = None) -> str:
    return rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()).decode()


def test_a_login_by_shared_secret() -> None:
    expected = "0275f66dd946f3d1fc4b8958ea3f134c6702284d719ff4acb110e927415cca6e"
    assert signature("TESTSECRET", "GET/realtime1662350400000") == expected


def test_a_request_by_shared_secret() -> None:
    path = "/v5/order/realtime?category=option&symbol=BTC-29JUL22-25000-C"
    assert ACCOUNTS.sign(Credentials("XXXXXXXXXX", "TESTSECRET"), path, Micros(1658384314791_999)) == {
        "X-BAPI-API-KEY": "XXXXXXXXXX",
        "X-BAPI-TIMESTAMP": "1658384314791",
        "X-BAPI-RECV-WINDOW": "5000",
        "X-BAPI-SIGN": "faf76debd29add8316b0b1cec70b5eb111d9fa21ce62719d1f47011b7c4814ef",
    }


def test_a_posted_body_is_signed_instead_of_a_query() -> None:
    credentials, body = Credentials("XXXXXXXXXX", "TESTSECRET"), b'{"category": "option"}'
    headers = ACCOUNTS.sign(credentials, "/v5/order/cancel-all", Micros(1658385579423_000), body)
    assert headers["X-BAPI-SIGN"] == "bcc45c89edffbaa387fde5ec8a44193c8fb0f20746d4b73eed9ade333d66649a"


def test_a_request_without_a_query_signs_what_stands_before_it() -> None:
    headers = ACCOUNTS.sign(Credentials("KEY", "TESTSECRET"), "/v5/account/info", Micros(1_000))
    assert headers["X-BAPI-SIGN"] == signature("TESTSECRET", "1KEY5000")


def test_the_query_is_signed_as_it_is_sent() -> None:
    headers = ACCOUNTS.sign(Credentials("KEY", "TESTSECRET"), "/v5/x?cursor=132766%3A2%2C&a=?b", Micros(1_000))
    assert headers["X-BAPI-SIGN"] == signature("TESTSECRET", "1KEY5000cursor=132766%3A2%2C&a=?b")


@pytest.mark.parametrize("space", ["", "\n  "])
def test_a_private_key_signs_what_its_public_key_proves(space: str) -> None:
    proof = b64decode(signature(space + pem(), "GET/realtime1662350400000"), validate=True)
    rsa_key().public_key().verify(proof, b"GET/realtime1662350400000", PKCS1v15(), SHA256())


def test_the_older_form_of_a_private_key_is_read_too() -> None:
    older = rsa_key().private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    assert older.startswith("-----BEGIN RSA PRIVATE KEY-----")
    assert signature(older, "text") == signature(pem(), "text")


def test_keys_that_cannot_sign_are_refused_without_being_shown() -> None:
    curve = generate_curve_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    middle = pem().splitlines()[5]
    cases = {
        pem(BestAvailableEncryption(b"password")): "encrypted",
        pem().replace(middle, middle[:10]): "cannot be read",
        "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----": "cannot be read",
        curve: "another kind than RSA",
    }
    for key, why in cases.items():
        with pytest.raises(Refused, match=why) as raised:
            ACCOUNTS.sign(Credentials("KEY", key), "/v5/account/info", Micros(1_000))
        assert raised.value.__cause__ is None
        assert not any(line in str(raised.value) for line in key.splitlines())


def test_credentials_do_not_show_themselves() -> None:
    assert "S3CRET" not in repr(Credentials("S3CRET", "S3CRET", "S3CRET"))
