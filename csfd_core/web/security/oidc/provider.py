"""The provider: what it says of itself, where it is asked, and who signs in there.

Source: OpenID Connect Core 1.0 and Discovery 1.0; RFC 7636 (PKCE), RFC 9207.
"""

import threading
import time
from base64 import b64encode
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from csfd_core.errors import SettingsError
from csfd_core.settings import OidcSettings, variable_of
from csfd_core.web.security.oidc.asking import (
    UNEXPECTED,
    UNREACHABLE,
    ProviderError,
    ask,
    is_safe,
)
from csfd_core.web.security.oidc.attempts import Attempt
from csfd_core.web.security.oidc.id_tokens import (
    UNPROVEN,
    check_id_token,
    read_keys,
)
from csfd_core.web.security.users import SignInError

_DISCOVERY: Final = "/.well-known/openid-configuration"
_NEEDED: Final = ("issuer", "client_id", "client_secret")
_KEPT_S: Final = 600.0  # the discovery document
_LONGEST_SUBJECT: Final = 255  # OpenID Connect Core, section 2

REFUSED: Final = "The sign-in service has refused, or you have gone back. Begin again."
SET_UP: Final = (
    "The sign-in service does not accept this page: it is registered there otherwise. "
    "Tell an administrator."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Where the provider is asked for what."""

    authorization: str
    token: str
    keys: str
    takes_basic: bool
    names_itself: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a browser brings back from the provider."""

    code: str
    error: str
    issuer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who has signed in at the provider.

    Attributes:
        issuer: The provider.
        subject: The account there: it is never given to somebody else.
        name: What the account is called; "" where nothing can be relied on.
    """

    issuer: str
    subject: str
    name: str


def open_provider(settings: OidcSettings) -> "Provider | None":
    """Return the provider; ``None`` where none is set. Asks nobody yet.

    Raises:
        SettingsError: If a setting is missing, or anybody could read along.
    """
    missing = [name for name in _NEEDED if not getattr(settings, name)]
    if len(missing) == len(_NEEDED):
        return None
    if missing:
        names = ", ".join(variable_of(OidcSettings, name) for name in missing)
        raise SettingsError(
            f"Signing in with OpenID Connect is set up by half: {names} is missing. "
            "Set it, or none of them."
        )
    for name in ("issuer", "address"):
        url = getattr(settings, name)
        if url and not is_safe(url):
            raise SettingsError(
                f"{variable_of(OidcSettings, name)} must begin with https://, unless "
                f"it is this machine. Received: {url}."
            )
    return Provider(settings)


class Provider:
    """Asks one provider."""

    def __init__(self, settings: OidcSettings) -> None:
        """Take who it is, and who this page is there."""
        self._settings = settings
        self._lock = threading.Lock()
        self._known: tuple[float, Endpoints] | None = None

    @property
    def settings(self) -> OidcSettings:
        """How it was set up."""
        return self._settings

    @property
    def host(self) -> str:
        """What people are told of it."""
        return urlsplit(self._settings.issuer).netloc.rpartition("@")[2]

    @property
    def _document(self) -> str:
        return self._settings.issuer.rstrip("/") + _DISCOVERY

    def endpoints(self) -> Endpoints:
        """Return where it is asked, from its discovery document.

        Raises:
            ProviderError: If the document cannot be read or used.
        """
        with self._lock:
            if self._known is not None and time.monotonic() < self._known[0]:
                return self._known[1]
        status, document = ask(self._document)
        if status != 200 or document.get("issuer") != self._settings.issuer:
            raise ProviderError(UNEXPECTED)
        endpoints = _endpoints(document)
        with self._lock:
            self._known = (time.monotonic() + _KEPT_S, endpoints)
        return endpoints

    def require_usable(self) -> None:
        """Require that the provider can be asked, in words for who sets this up.

        Raises:
            SettingsError: If it cannot.
        """
        try:
            self.endpoints()
        except ProviderError as error:
            told = (
                "it cannot be read. Check the address, the network and the provider's "
                "certificate."
                if str(error) == UNREACHABLE
                else "it names another issuer, or places without https. Set "
                "CSFD_OIDC_ISSUER to what the document calls `issuer`, to the letter."
            )
            raise SettingsError(
                "The OpenID Connect provider's discovery document "
                f"{self._document} cannot be used: {told}"
            ) from None

    def address_for(self, attempt: Attempt) -> str:
        """Return where a browser signs in.

        Raises:
            ProviderError: If the provider cannot be asked.
        """
        endpoint = self.endpoints().authorization
        is_email = self._settings.name_claim == "email"
        query = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": attempt.back,
            "scope": "openid email" if is_email else "openid profile",
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": attempt.challenge,
            "code_challenge_method": "S256",
        }
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    def identify(self, attempt: Attempt, answer: Answer) -> Identity:
        """Return who has signed in.

        Args:
            attempt: That was begun here.
            answer: With which it has come back.

        Raises:
            ProviderError: If the provider cannot be asked.
            SignInError: If it has refused, or has proven nothing.
        """
        endpoints = self.endpoints()
        is_named = answer.issuer or endpoints.names_itself
        if is_named and answer.issuer != self._settings.issuer:
            raise SignInError(UNPROVEN)
        if answer.error or not answer.code:
            raise SignInError(REFUSED)
        token = self._exchange(endpoints, attempt, answer.code)
        # Anew each time: a key that was taken back proves nothing from then on.
        _, keys = ask(endpoints.keys)
        claims = check_id_token(
            token,
            read_keys(keys),
            issuer=self._settings.issuer,
            client_id=self._settings.client_id,
            nonce=attempt.nonce,
            now=time.time(),
        )
        return self._identity(claims)

    def _exchange(self, endpoints: Endpoints, attempt: Attempt, code: str) -> str:
        name, secret = self._settings.client_id, self._settings.client_secret
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": attempt.back,
            "code_verifier": attempt.verifier,
        }
        headers = {}
        if endpoints.takes_basic:  # RFC 6749, section 2.3.1
            pair = f"{quote(name, safe='')}:{quote(secret, safe='')}"
            headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        else:
            form |= {"client_id": name, "client_secret": secret}
        status, told = ask(endpoints.token, form, headers)
        token, error = told.get("id_token"), told.get("error")
        if status == 200 and isinstance(token, str):
            return token
        if error == "invalid_grant":
            raise SignInError(REFUSED)
        is_set_up = status != 401 and error != "invalid_client"
        raise ProviderError(UNEXPECTED if is_set_up else SET_UP)

    def _identity(self, claims: dict[str, Any]) -> Identity:
        subject, claim = claims.get("sub"), self._settings.name_claim
        is_text = isinstance(subject, str) and 0 < len(subject) <= _LONGEST_SUBJECT
        if not is_text:
            raise SignInError(UNPROVEN)
        name = claims.get(claim)
        # An address that nobody has confirmed may be somebody else's.
        is_sure = claim != "email" or claims.get("email_verified") is True
        return Identity(
            issuer=self._settings.issuer,
            subject=str(subject),
            name=name if isinstance(name, str) and is_sure else "",
        )


def _endpoints(document: dict[str, Any]) -> Endpoints:
    names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
    urls = [document.get(name) for name in names]
    if not all(isinstance(url, str) and is_safe(url) for url in urls):
        raise ProviderError(UNEXPECTED)
    ways = document.get("token_endpoint_auth_methods_supported")
    has_other = isinstance(ways, list) and "client_secret_post" in ways
    return Endpoints(
        authorization=str(urls[0]),
        token=str(urls[1]),
        keys=str(urls[2]),
        takes_basic=not has_other or "client_secret_basic" in (ways or ()),
        names_itself=document.get("authorization_response_iss_parameter_supported")
        is True,
    )
