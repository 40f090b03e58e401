"""ID tokens: what the provider says of somebody, believed only as far as it is proven.

Source: OpenID Connect Core 1.0, section 3.1.3.7, ID Token Validation.
"""

import logging
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key, KeySet
from joserfc.jws import JWSRegistry

from csfd_core.web.security.users import SignInError

_logger: Final = logging.getLogger(__name__)

ALGORITHMS: Final = ("RS256", "ES256")  # with keys that only the provider has
_KINDS: Final = ("RSA", "EC")
_LEEWAY_S: Final = 60.0
_OLDEST_S: Final = 600.0  # it was made for this sign-in, a moment ago

UNPROVEN: Final = (
    "What the sign-in service says of you cannot be believed. Tell an administrator."
)
CLOCK: Final = (
    "The clock of this machine and that of the sign-in service differ. Tell an "
    "administrator."
)


def _unproven(what: str) -> SignInError:
    """Note what is wrong, in a word of ours, and return what people are told."""
    _logger.warning("The %s of an ID token is not as it must be.", what)
    return SignInError(UNPROVEN)


def read_keys(answer: dict[str, Any]) -> KeySet:
    """Return the keys of a key set that can prove something; others are passed over."""
    listed = answer.get("keys")
    keys = [
        key
        for data in (listed if isinstance(listed, list) else [])
        if isinstance(data, dict) and data.get("kty") in _KINDS
        for key in _imported(data)
    ]
    return KeySet(keys)


def _imported(data: dict[str, Any]) -> list[Key]:
    try:
        return [JWKRegistry.import_key(data)]
    except (JoseError, ValueError, TypeError, KeyError):
        return []


def check_id_token(
    token: str,
    keys: KeySet,
    *,
    issuer: str,
    client_id: str,
    nonce: str,
    now: float,
) -> dict[str, Any]:
    """Return the claims of a token that proves them.

    Args:
        token: As the provider has sent it.
        keys: Of the provider.
        issuer: Who must have made it.
        client_id: For whom.
        nonce: For which attempt to sign in.
        now: In seconds since 1970.

    Raises:
        SignInError: If anything of it is not as it must be.
    """
    registry = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
    try:
        claims = jwt.decode(token, keys, ALGORITHMS, registry).claims
    except (JoseError, ValueError, TypeError, KeyError, RecursionError):
        raise _unproven("signature") from None
    if claims.get("iss") != issuer:
        raise _unproven("issuer")
    if not _is_for(claims, client_id):
        raise _unproven("audience")
    if claims.get("nonce") != nonce:
        raise _unproven("nonce")
    _require_now(claims, now)
    return claims


def _is_for(claims: dict[str, Any], client_id: str) -> bool:
    """Say whether a token is for this page; where for others too, given to it."""
    audience, party = claims.get("aud"), claims.get("azp")
    listed = audience if isinstance(audience, list) else [audience]
    if client_id not in listed:
        return False
    return party == client_id or (party is None and len(listed) == 1)


def _require_now(claims: dict[str, Any], now: float) -> None:
    ends, made = _moment(claims.get("exp")), _moment(claims.get("iat"))
    begins = _moment(claims.get("nbf", made))
    if ends is None or made is None or begins is None:
        raise _unproven("times")
    is_early = max(made, begins) > now + _LEEWAY_S
    if is_early or ends <= now - _LEEWAY_S or made < now - _OLDEST_S:
        raise SignInError(CLOCK)


def _moment(value: object) -> float | None:
    """Return a NumericDate; ``None`` for what is none, as NaN or far beyond a date."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < 1e11 else None
