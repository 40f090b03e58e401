"""Attempts to sign in that are under way at the provider.

What an attempt must come back with lies sealed in a cookie of the browser that began
it: who has not signed in can fill neither the memory nor the database of the page.
"""

import hashlib
import hmac
import json
import secrets
import threading
import time
from base64 import urlsafe_b64encode
from dataclasses import asdict, dataclass
from typing import Final

from cryptography.fernet import Fernet, InvalidToken

from csfd_core.web.security.users import SignInError

LASTS_S: Final = 600
_BYTES: Final = 32

NOT_BEGUN: Final = (
    "This sign-in was not begun in this browser, or too long ago. Begin again."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt.

    Attributes:
        state: Comes back in the address.
        nonce: Comes back in the ID token.
        verifier: Proves towards the provider who began (PKCE).
        back: Address of this page that the provider leads back to.
        to: Page that was wanted.
    """

    state: str
    nonce: str
    verifier: str
    back: str
    to: str

    @property
    def challenge(self) -> str:
        """What the provider is told of the verifier beforehand (RFC 7636, S256)."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return urlsafe_b64encode(digest).rstrip(b"=").decode()


class Attempts:
    """Begins attempts, and takes each back once."""

    def __init__(self) -> None:
        """Make a key that only this process has."""
        self._seal = Fernet(Fernet.generate_key())
        self._used: dict[str, float] = {}  # states, until nobody could bring them
        self._lock = threading.Lock()

    def begin(self, to: str, back: str) -> tuple[Attempt, str]:
        """Return a new attempt, and the content of its cookie."""
        attempt = Attempt(
            state=secrets.token_urlsafe(_BYTES),
            nonce=secrets.token_urlsafe(_BYTES),
            verifier=secrets.token_urlsafe(_BYTES),
            back=back,
            to=to,
        )
        content = json.dumps(asdict(attempt), ensure_ascii=False)
        return attempt, self._seal.encrypt(content.encode()).decode()

    def take(self, cookie: str, state: str) -> Attempt:
        """Return the attempt of a cookie; it cannot be taken again.

        Raises:
            SignInError: If the cookie is none of ours, too old, was used already, or
                belongs to another state.
        """
        try:
            content = self._seal.decrypt(cookie.encode(), ttl=LASTS_S)
        except InvalidToken:
            raise SignInError(NOT_BEGUN) from None
        attempt = Attempt(**json.loads(content))
        is_same = hmac.compare_digest(attempt.state.encode(), state.encode())
        if not is_same or not self._use(attempt.state):
            raise SignInError(NOT_BEGUN)
        return attempt

    def _use(self, state: str) -> bool:
        now = time.time()
        with self._lock:
            for old in [one for one, until in self._used.items() if until < now]:
                del self._used[old]
            if state in self._used:
                return False
            self._used[state] = now + LASTS_S + 1
            return True
