"""Text that people wrote travels sealed under the key of its case; erasing the key erases the text in every copy."""

import base64
import re
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated, NewType

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import Field

KEY_BYTES = 32
_NONCE_BYTES = 12
_BYTES_FORM = b"\x01"
_BYTES_HEAD = 5
_FORM = re.compile(r"sealed:1:(\d{1,9}):([A-Za-z0-9_-]+)")

SealedText = NewType("SealedText", str)
Sealed = Annotated[SealedText, Field(pattern=r"^sealed:1:\d{1,9}:[A-Za-z0-9_-]+$")]
"""`sealed:1:<key version>:<base64url(nonce + AES-256-GCM ciphertext)>`."""


class UnsealableError(Exception):
    """The text was sealed under another key or for another case, was altered, or is no sealed text at all."""

    def __init__(self, case_id: str) -> None:
        super().__init__(f"text of case {case_id} cannot be unsealed: wrong key, wrong case, or altered")
        self.case_id = case_id


def seal(text: str, *, key: bytes, key_version: int, case_id: str) -> SealedText:
    """Encrypt `text` for one case.

    Equal text under an equal key gives equal bytes, so that a replay makes the same event.

    The nonce is a keyed digest of case and text (as in AES-SIV): it repeats only with its own plaintext.
    """
    box = _close(text.encode("utf-8", "surrogatepass"), key, case_id)
    return SealedText(f"sealed:1:{key_version}:{base64.urlsafe_b64encode(box).rstrip(b'=').decode()}")


def key_version_of(sealed: str, *, case_id: str) -> int:
    """Which version of the case's key opens this text. Raises UnsealableError for anything not sealed."""
    form = _FORM.fullmatch(sealed)
    if form is None:
        raise UnsealableError(case_id)
    return int(form[1])


def unseal(sealed: str, *, key: bytes, case_id: str) -> str:
    """Decrypt. Raises UnsealableError."""
    form = _FORM.fullmatch(sealed)
    if form is None:
        raise UnsealableError(case_id)
    box = base64.urlsafe_b64decode(form[2] + "=" * (-len(form[2]) % 4))
    return _open(box, key, case_id).decode("utf-8", "surrogatepass")


def seal_bytes(plain: bytes, *, key: bytes, key_version: int, case_id: str) -> bytes:
    """Like `seal`, for bytes that are stored and never travel: form 1, key version in four bytes, nonce, ciphertext."""
    return _BYTES_FORM + key_version.to_bytes(4) + _close(plain, key, case_id)


def key_version_of_bytes(sealed: bytes, *, case_id: str) -> int:
    """Which version of the case's key opens these bytes. Raises UnsealableError for anything not sealed."""
    if len(sealed) < _BYTES_HEAD or not sealed.startswith(_BYTES_FORM):
        raise UnsealableError(case_id)
    return int.from_bytes(sealed[1:_BYTES_HEAD])


def unseal_bytes(sealed: bytes, *, key: bytes, case_id: str) -> bytes:
    """Decrypt what `seal_bytes` made, byte for byte. Raises UnsealableError."""
    key_version_of_bytes(sealed, case_id=case_id)
    return _open(sealed[_BYTES_HEAD:], key, case_id)


def _close(plain: bytes, key: bytes, case_id: str) -> bytes:
    bound = case_id.encode()
    nonce = blake2b(bound + b"\0" + plain, key=key, digest_size=_NONCE_BYTES, person=b"nonce").digest()
    return nonce + _cipher(key).encrypt(nonce, plain, bound)


def _open(box: bytes, key: bytes, case_id: str) -> bytes:
    try:
        return _cipher(key).decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], case_id.encode())
    except (InvalidTag, ValueError) as error:
        raise UnsealableError(case_id) from error


@lru_cache(maxsize=1)
def _cipher(key: bytes) -> AESGCM:
    """The texts of one case come together, and making the cipher costs as much as using it."""
    return AESGCM(key)
