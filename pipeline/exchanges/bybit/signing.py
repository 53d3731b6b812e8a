"""Signatures: HMAC for secrets that the venue made, RSA for keys of one's own."""

from __future__ import annotations

import hmac
from base64 import b64encode
from functools import lru_cache
from hashlib import sha256

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pipeline.model.errors import Refused

_PEM = "-----BEGIN"


def signature(secret: str, text: str) -> str:
    """HMAC-SHA256 in lower-case hexadecimal; with a private key as PEM text RSA PKCS#1 v1.5 with SHA-256 in base64.

    Raises `Refused` for a key that cannot sign, saying why without showing it.
    """
    if not secret.lstrip().startswith(_PEM):
        return hmac.new(secret.encode(), text.encode(), sha256).hexdigest()
    return b64encode(_private_key(secret).sign(text.encode(), PKCS1v15(), SHA256())).decode()


@lru_cache(maxsize=16)  # reading a key takes a hundred times as long as signing with it
def _private_key(pem: str) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except TypeError:
        raise Refused("bybit: the api_secret is an encrypted private key; it must be one without a password") from None
    except (ValueError, UnsupportedAlgorithm):
        # The library's own text may quote what it could not read.
        raise Refused("bybit: the api_secret starts as a PEM private key and cannot be read as one") from None
    if not isinstance(key, RSAPrivateKey):
        raise Refused("bybit: the api_secret is a private key of another kind than RSA")
    return key
