"""Whether a client's signature is its account's: HMAC-SHA256 in hex, or RSA with a key that the client made itself."""

from __future__ import annotations

import base64
import hashlib
import hmac

from pipeline.sim.settings import Account


def is_signed(account: Account, text: str, signature: str) -> bool:
    """Whether `signature` is that of `text`. Raises `ValueError` for an account whose public key is none."""
    if account.public_key is not None:
        return _is_signed_by_rsa(account.public_key, text.encode(), signature)
    expected = hmac.new(account.secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), signature.encode())


def _is_signed_by_rsa(pem: str, text: bytes, signature: str) -> bool:
    # Few simulations have such an account, and the library takes a while to load.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = load_pem_public_key(pem.encode())
    if not isinstance(key, RSAPublicKey):
        raise ValueError("public_key: not an RSA key")
    try:
        key.verify(base64.b64decode(signature, validate=True), text, PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError):
        return False
    return True
