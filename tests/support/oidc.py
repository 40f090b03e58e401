"""A small OpenID Connect provider on this machine, which also lies when told to.

It signs by its own code with ``cryptography`` alone, so that it shares no mistake with
what reads its tokens.
"""

import hashlib
import json
import secrets
import threading
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlsplit

from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

CLIENT = "csfd page"
SECRET = "a secret: with+signs/100%25"
Signer = Callable[[bytes], bytes]


def base64url(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()


@cache
def rsa_key(number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def ec_key(number: int) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def rsa_signer(number: int, digest: hashes.HashAlgorithm | None = None) -> Signer:
    return lambda text: rsa_key(number).sign(
        text, padding.PKCS1v15(), digest or hashes.SHA256()
    )


def ec_signer(number: int) -> Signer:
    def sign(text: bytes) -> bytes:
        pair = decode_dss_signature(
            ec_key(number).sign(text, ec.ECDSA(hashes.SHA256()))
        )
        return b"".join(value.to_bytes(32, "big") for value in pair)

    return sign


def hmac_signer(secret: bytes) -> Signer:
    def sign(text: bytes) -> bytes:
        made = hmac.HMAC(secret, hashes.SHA256())
        made.update(text)
        return made.finalize()

    return sign


def public_pem(number: int) -> bytes:
    return (
        rsa_key(number)
        .public_key()
        .public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def _number(value: int) -> str:
    return base64url(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def rsa_jwk(number: int, kid: str) -> dict[str, Any]:
    public = rsa_key(number).public_key().public_numbers()
    return {
        "kty": "RSA", "kid": kid, "use": "sig",
        "n": _number(public.n), "e": _number(public.e),
    }  # fmt: skip


def ec_jwk(number: int, kid: str) -> dict[str, Any]:
    public = ec_key(number).public_key().public_numbers()
    return {
        "kty": "EC", "kid": kid, "use": "sig", "crv": "P-256",
        "x": base64url(public.x.to_bytes(32, "big")),
        "y": base64url(public.y.to_bytes(32, "big")),
    }  # fmt: skip


def token_of(header: object, claims: object, sign: Signer) -> str:
    """Return a token; the claims as they are, or as text."""
    text = claims if isinstance(claims, str) else json.dumps(claims)
    signed = f"{base64url(json.dumps(header).encode())}.{base64url(text.encode())}"
    return f"{signed}.{base64url(sign(signed.encode()))}"


@dataclass
class Provider:
    """What it does, and what it was asked.

    Attributes:
        port: On this machine.
        host: By which it calls itself; "localhost" is another site than "127.0.0.1".
        user: Claims of who signs in there.
        said: What the claims of the next token are changed to; ``None``: left out; a
            time: from now.
        header: Of the next token.
        sign: How it is signed.
        keys: That it shows.
        document: What the discovery document is changed to.
        answers: What a path answers with instead: status, headers, body.
        checks_pkce: Whether it compares challenge and verifier.
        asked: Paths, in turn.
        tokens: That it has given.
        codes: That it has given, and with what.
    """

    port: int
    host: str = "127.0.0.1"
    user: dict[str, Any] = field(
        default_factory=lambda: {"sub": "248-ann", "preferred_username": "ann"}
    )
    said: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(
        default_factory=lambda: {"alg": "RS256", "kid": "one", "typ": "JWT"}
    )
    sign: Signer = field(default_factory=lambda: rsa_signer(1))
    keys: list[Any] = field(default_factory=lambda: [rsa_jwk(1, "one")])
    document: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    checks_pkce: bool = True
    asked: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def issuer(self) -> str:
        return f"http://{self.host}:{self.port}/realm"

    def discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize?theme=dark",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            **self.document,
        }

    def authorize(self, location: str, **changed: str) -> str:
        """Let somebody sign in whom a page has sent here; return where they go back."""
        place, _, query = location.partition("?")
        assert place == f"{self.issuer}/authorize"
        asked = {name: value for name, (value,) in parse_qs(query).items()}
        assert asked["theme"] == "dark"
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT
        assert "openid" in asked["scope"].split()
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        given = {"code": code, "state": asked["state"], **changed}
        return f"{asked['redirect_uri']}?" + "&".join(
            f"{name}={value}" for name, value in given.items()
        )

    def exchange(self, form: dict[str, str], authorization: str) -> dict[str, Any]:
        """Return what the token endpoint answers, as RFC 6749 and 7636 ask."""
        kind, _, pair = authorization.partition(" ")
        if kind == "Basic":
            name, _, secret = b64decode(pair).decode().partition(":")
            name, secret = unquote_plus(name), unquote_plus(secret)
        else:
            name, secret = form.get("client_id", ""), form.get("client_secret", "")
        usual = ["client_secret_basic"]
        ways = self.document.get("token_endpoint_auth_methods_supported", usual)
        way = "client_secret_basic" if kind == "Basic" else "client_secret_post"
        if (name, secret) != (CLIENT, SECRET) or way not in ways:
            return {"error": "invalid_client"}
        asked = self.codes.pop(form["code"], None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        if asked is None or asked["redirect_uri"] != form["redirect_uri"]:
            return {"error": "invalid_grant"}
        if self.checks_pkce and base64url(digest) != asked["code_challenge"]:
            return {"error": "invalid_grant"}
        self.tokens.append(
            token_of(self.header, self.claims(asked["nonce"]), self.sign)
        )
        return {
            "access_token": "x",
            "token_type": "Bearer",
            "id_token": self.tokens[-1],
        }

    def claims(self, nonce: str) -> dict[str, Any]:
        now = int(time.time())
        claims = {
            "iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300,
            "nonce": nonce, **self.user, **self.said,
        }  # fmt: skip
        return {
            name: now + value.total_seconds() if isinstance(value, timedelta) else value
            for name, value in claims.items()
            if value is not None
        }


@contextmanager
def served_provider() -> Iterator[Provider]:
    """Serve a provider on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802 - http.server's name
            path = urlsplit(self.path).path.removeprefix("/realm")
            provider.asked.append(path)
            if path == "/authorize":  # at once, as who has signed in already
                back = provider.authorize(f"http://{self.headers['Host']}{self.path}")
                provider.answers[path] = (302, {"Location": back}, b"")
            self._answer(
                path,
                {
                    "/.well-known/openid-configuration": provider.discovery(),
                    "/keys": {"keys": provider.keys},
                }.get(path),
            )

        def do_POST(self) -> None:  # noqa: N802 - http.server's name
            path = urlsplit(self.path).path.removeprefix("/realm")
            provider.asked.append(path)
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: value for name, (value,) in parse_qs(body).items()}
            if path in provider.answers:
                self._answer(path, None)
                return
            self._answer(
                path, provider.exchange(form, self.headers.get("Authorization", ""))
            )

        def _answer(self, path: str, content: dict[str, Any] | None) -> None:
            status = 404 if content is None else 400 if "error" in content else 200
            usual = (status, {}, json.dumps(content).encode())
            status, headers, body = provider.answers.get(path, usual)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        provider = Provider(server.server_address[1])
        thread = threading.Thread(target=lambda: server.serve_forever(0.01))
        thread.start()
        try:
            yield provider
        finally:
            server.shutdown()
            thread.join()
