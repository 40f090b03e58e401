"""Tokens of an OpenID Connect provider: which are believed."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from support.oidc import (
    CLIENT,
    SECRET,
    Provider,
    Signer,
    base64url,
    ec_jwk,
    ec_signer,
    hmac_signer,
    public_pem,
    rsa_jwk,
    rsa_signer,
    token_of,
)
from support.oidc_page import (
    CLOCK,
    OTHERS,
    UNPROVEN,
    begin,
    browser,
    entries,
    through,
    told,
    who,
)
from support.web import WebUnderTest

from csfd_core.web.audit import Action


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"nonce": "another"}, UNPROVEN),
        ({"nonce": None}, UNPROVEN),
        ({"iss": OTHERS}, UNPROVEN),
        ({"iss": None}, UNPROVEN),
        ({"aud": "another page"}, UNPROVEN),
        ({"aud": ["another page"]}, UNPROVEN),
        ({"aud": None}, UNPROVEN),
        ({"aud": {CLIENT: 1}}, UNPROVEN),
        ({"aud": [CLIENT, "another page"]}, UNPROVEN),
        ({"aud": [CLIENT, "another page"], "azp": "another page"}, UNPROVEN),
        ({"azp": "another page"}, UNPROVEN),
        ({"exp": timedelta(seconds=-120)}, CLOCK),
        ({"exp": None}, UNPROVEN),
        ({"exp": float("nan")}, UNPROVEN),
        ({"exp": float("inf")}, UNPROVEN),
        ({"exp": True}, UNPROVEN),
        ({"exp": "9999999999"}, UNPROVEN),
        ({"iat": timedelta(seconds=600)}, CLOCK),
        ({"iat": timedelta(seconds=-3600)}, CLOCK),
        ({"iat": None}, UNPROVEN),
        ({"nbf": timedelta(seconds=600)}, CLOCK),
        ({"sub": None}, UNPROVEN),
        ({"sub": ""}, UNPROVEN),
        ({"sub": 248}, UNPROVEN),
        ({"sub": "x" * 256}, UNPROVEN),
    ],
)
def test_a_token_that_says_something_else_is_refused(
    attacked: tuple[WebUnderTest, Provider], said: dict[str, Any], sentence: str
) -> None:
    page, provider = attacked
    provider.said = said
    client = browser(page)
    assert sentence in told(through(client, provider))
    assert len(provider.tokens) == 1
    assert who(client) is None
    assert entries(page)[-1] == (Action.SIGN_IN_FAILED, None, "")


@pytest.mark.parametrize(
    "said",
    [
        {"aud": [CLIENT]},
        {"aud": [CLIENT, "another page"], "azp": CLIENT},
        {"exp": timedelta(seconds=0.5)},
        {
            "iat": timedelta(seconds=30),
            "exp": timedelta(seconds=31),
        },  # clocks differ a little
    ],
)
def test_a_token_that_says_enough_is_accepted(
    attacked: tuple[WebUnderTest, Provider], said: dict[str, Any]
) -> None:
    page, provider = attacked
    provider.said = said
    client = browser(page)
    through(client, provider)
    assert who(client) == "ann"


FORGERIES: dict[str, tuple[dict[str, Any], Callable[[], Signer]]] = {
    "none": ({"alg": "none"}, lambda: lambda _: b""),
    "None": ({"alg": "None", "kid": "one"}, lambda: lambda _: b""),
    "no alg": ({"kid": "one"}, lambda: rsa_signer(1)),
    "HS256 with the public key": (
        {"alg": "HS256", "kid": "one"},
        lambda: hmac_signer(public_pem(1)),
    ),
    "HS256 with n of the key": (
        {"alg": "HS256", "kid": "one"},
        lambda: hmac_signer(rsa_jwk(1, "one")["n"].encode()),
    ),
    "HS256 with the secret": (
        {"alg": "HS256", "kid": "one"},
        lambda: hmac_signer(SECRET.encode()),
    ),
    "RS512": ({"alg": "RS512", "kid": "one"}, lambda: rsa_signer(1, hashes.SHA512())),
    "another key": ({"alg": "RS256", "kid": "one"}, lambda: rsa_signer(2)),
    "its own key": (
        {"alg": "RS256", "kid": "two", "jwk": rsa_jwk(2, "two")},
        lambda: rsa_signer(2),
    ),
    "a key elsewhere": (
        {"alg": "RS256", "kid": "two", "jku": f"{OTHERS}/keys"},
        lambda: rsa_signer(2),
    ),
    "unknown key": ({"alg": "RS256", "kid": "../one"}, lambda: rsa_signer(1)),
    "critical": (
        {"alg": "RS256", "kid": "one", "crit": ["x"], "x": 1},
        lambda: rsa_signer(1),
    ),
    "no signature": ({"alg": "RS256", "kid": "one"}, lambda: lambda _: b""),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_token_that_the_provider_has_not_signed_is_refused(
    attacked: tuple[WebUnderTest, Provider], forgery: str
) -> None:
    page, provider = attacked
    provider.header, signer = FORGERIES[forgery]
    provider.sign = signer()
    client = browser(page)
    assert UNPROVEN in told(through(client, provider))
    assert len(provider.tokens) == 1
    assert who(client) is None


@pytest.mark.parametrize(
    "token",
    ["", "a.b", "a.b.c", "ä.ö.ü", "." * 3, "e30.e30.", "x" * 200_000, "[" * 5000],
)
def test_what_is_no_token_is_refused(
    attacked: tuple[WebUnderTest, Provider], token: str
) -> None:
    page, provider = attacked
    body = json.dumps({"id_token": token}).encode()
    provider.answers["/token"] = (200, {}, body)
    client = browser(page)
    assert UNPROVEN in told(through(client, provider))


def test_a_token_of_which_a_letter_was_changed_is_refused(
    page: WebUnderTest, provider: Provider
) -> None:
    client = browser(page)
    back = provider.authorize(begin(client))
    nonce = next(iter(provider.codes.values()))["nonce"]
    header, _, signature = token_of(
        provider.header, provider.claims(nonce), provider.sign
    ).split(".")
    changed = {**provider.claims(nonce), "preferred_username": "admin"}
    payload = base64url(json.dumps(changed).encode())
    body = json.dumps({"id_token": f"{header}.{payload}.{signature}"}).encode()
    provider.answers["/token"] = (200, {}, body)
    assert UNPROVEN in told(client.get(back))


def test_keys_may_change_at_any_time(page: WebUnderTest, provider: Provider) -> None:
    through(browser(page), provider)
    provider.keys, provider.sign = [rsa_jwk(2, "one")], rsa_signer(2)  # the same name
    client = browser(page)
    through(client, provider)
    assert who(client) == "ann"
    provider.keys = ["x", {}, {"kty": "OKP"}, {"kty": "RSA"}, ec_jwk(1, "three")]
    provider.header, provider.sign = {"alg": "ES256", "kid": "three"}, ec_signer(1)
    client = browser(page)
    through(client, provider)
    assert who(client) == "ann"


def test_a_key_that_was_taken_back_proves_nothing_any_more(
    page: WebUnderTest, provider: Provider
) -> None:
    through(browser(page), provider)
    provider.keys = [rsa_jwk(2, "two")]
    client = browser(page)
    assert UNPROVEN in told(through(client, provider))
    provider.keys = []
    assert UNPROVEN in told(through(client, provider))
