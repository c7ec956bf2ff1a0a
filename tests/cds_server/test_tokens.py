"""What a token's text may be: one spelling, and a header that holds what the standard knows."""

from __future__ import annotations

from typing import Any

import pytest
from joserfc.jwk import Key

from cds_server.trust.tokens import Untrusted, check_signature, read_keys, take_apart
from tests.peers.ehr_keys import public_set, signing_key, token

DOOR = "https://cds.example.org/cds-services/some-service"


@pytest.fixture(scope="module")
def key() -> Key:
    return signing_key("ES384", "k")


@pytest.mark.parametrize("header", [{"of-its-own": "x"}, {"x5t": "x" * 512}])
def test_a_header_with_more_than_the_standard_knows_is_not_believed(header: dict[str, Any], key: Key) -> None:
    """RFC 7515, 4.1 names what a header may hold; and 512 characters are enough for it."""
    public = read_keys(public_set(key))["k"]
    check_signature(take_apart(token(key, DOOR, {"x5t": "x", "cty": "JWT"})), public)
    presented = take_apart(token(key, DOOR, header))
    with pytest.raises(Untrusted, match="signature"):
        check_signature(presented, public)


def test_a_token_has_one_spelling(key: Key) -> None:
    """Bits of the last character that say nothing are zero (RFC 4648, 3.5): else one token had several texts."""
    texts = [token(key, DOOR, jti="x" * length) for length in range(3)]
    public = read_keys(public_set(key))["k"]
    spelled = 0
    for place in (0, 1):
        for text in texts:
            parts = text.split(".")
            alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
            parts[place] = parts[place][:-1] + alphabet[alphabet.index(parts[place][-1]) + 1]
            if len(parts[place]) % 4:
                spelled += 1
                with pytest.raises(Untrusted, match="is not JSON"):
                    take_apart(".".join(parts))
        check_signature(take_apart(texts[place]), public)
    assert spelled >= 2
