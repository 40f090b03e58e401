"""The settings of the reader's page and of the DICOM node."""

from typing import Annotated, Final, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from csfd_core.settings.environment import PREFIX, Count, Environment, Folder
from csfd_core.settings.graph import Settings


class WebSettings(Environment):
    """The reader's page: ``csfd serve``."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}WEB_")

    host: str = Field(
        default="127.0.0.1",
        description="Address to listen at. One that other machines reach needs TLS in "
        "front (CSFD_WEB_BEHIND_TLS).",
        json_schema_extra={"allowed": "an address of this machine"},
    )
    port: int = Field(default=8080, ge=1, le=65535, description="Port to listen at.")
    database: str = Field(
        default_factory=lambda: f"sqlite:///{Settings.read().home}/data/web.db",
        description="Users, worklist, reviews and the audit log.",
        json_schema_extra={
            "shown": "`sqlite:///data/web.db`",
            "allowed": "sqlite:///file or postgresql+psycopg://user:password@host/name",
        },
    )
    behind_tls: bool = Field(
        default=False,
        description="A proxy in front of the page speaks TLS: cookies are sent through "
        "it alone.",
    )
    trusted_proxies: str = Field(
        default="127.0.0.1",
        description="Addresses whose X-Forwarded-For is believed, with commas between.",
        json_schema_extra={"allowed": "addresses with commas between"},
    )
    session_hours: Annotated[int, Field(ge=1, le=168)] = Field(
        default=12, description="Hours after which a reader signs in again."
    )
    idle_minutes: Annotated[int, Field(ge=1, le=1440)] = Field(
        default=60, description="Minutes without a request that end a session."
    )
    max_wait: Count = Field(
        default=240,
        validation_alias=f"{PREFIX}MAX_WAIT",
        description="Minutes after which an unread study is listed with the suspicious "
        "ones, whatever its prediction.",
    )
    max_upload_mb: Count = Field(default=4096, description="Megabytes of one upload.")
    max_waiting: Count = Field(
        default=200,
        description="Studies that may wait for their prediction; more uploads are "
        "refused until some are done.",
    )
    keep_days: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="Days after which a study that came in and that nobody has signed "
        "is withdrawn; 0: never.",
    )
    predictor_socket: str = Field(
        default="",
        validation_alias=f"{PREFIX}PREDICTOR_SOCKET",
        description="Where a process that keeps the models in memory listens; "
        "`csfd serve` sets it for the runs that it starts.",
        json_schema_extra={"shown": "none", "allowed": "the path of a socket"},
    )
    blind: bool = Field(
        default=False,
        description="Readers see no prediction before they have signed. For patients "
        "of the locked test set it is so in any case.",
    )


class OidcSettings(Environment):
    """Signing in to the reader's page at an OpenID Connect provider."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}OIDC_")

    issuer: str = Field(
        default="",
        pattern=r"^(https?://[^\s?#]+)?$",
        description="OpenID Connect provider at which readers may sign in, as it calls "
        "itself; without it they sign in with passwords alone.",
        json_schema_extra={"shown": "none", "allowed": "https://…"},
    )
    client_id: str = Field(
        default="",
        description="What the page is called there.",
        json_schema_extra={"shown": "none"},
    )
    client_secret: str = Field(
        default="",
        description="Its secret there.",
        json_schema_extra={"shown": "none", "secret": True},
    )
    name_claim: str = Field(
        default="preferred_username",
        description="Claim of the ID token that is a user's name here. Nobody may be "
        "able to choose it freely there.",
        json_schema_extra={"allowed": "the name of a claim"},
    )
    role: Literal["none", "reader"] = Field(
        default="none",
        description="What somebody may do who is not known yet; none: an administrator "
        "must add them first.",
    )
    address: str = Field(
        default="",
        pattern=r"^(https?://[^\s/?#]+/?)?$",
        description="Address of the page as browsers reach it; the provider leads back "
        "to /sign-in/oidc/back there.",
        json_schema_extra={"shown": "that of the request", "allowed": "https://host"},
    )


AE_TITLE: Final = (
    r"^[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?$"
)


class DicomSettings(Environment):
    """The DICOM node: ``csfd receive``."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}DICOM_")

    ae_title: str = Field(
        default="CSFD",
        pattern=AE_TITLE,
        description="Application entity title of this node.",
        json_schema_extra={"allowed": "1 to 16 printable characters"},
    )
    host: str = Field(
        default="127.0.0.1",
        description="Address to listen at. One that other machines reach needs "
        "CSFD_DICOM_CALLERS.",
        json_schema_extra={"allowed": "an address of this machine"},
    )
    port: int = Field(default=11112, ge=1, le=65535, description="Port to listen at.")
    callers: str = Field(
        default="",
        description="Who may send: application entity titles, each with its address or "
        "network where that is known.",
        json_schema_extra={
            "shown": "anybody on this machine",
            "allowed": "AE, AE@address or AE@network/bits, with commas between",
        },
    )
    priorities: str = Field(
        default="",
        description="Application entities whose studies are urgent (1) or STAT (2).",
        json_schema_extra={"shown": "none", "allowed": "AE=1 or AE=2, with commas"},
    )
    quiet_s: float = Field(
        default=15.0,
        ge=1,
        le=3600,
        validation_alias=f"{PREFIX}QUIET_S",
        description="Seconds after its last image that make a study complete.",
    )
    max_associations: Count = Field(
        default=16, description="Associations at once; further ones are refused."
    )
    tls_certificate: Folder | None = Field(
        default=None,
        description="Certificate of this node (PEM). With it, only TLS is spoken.",
        json_schema_extra={"shown": "none", "allowed": "a file"},
    )
    tls_key: Folder | None = Field(
        default=None,
        description="Its private key (PEM).",
        json_schema_extra={"shown": "none", "allowed": "a file"},
    )
    tls_authorities: Folder | None = Field(
        default=None,
        description="Certificates of who may send, or who has signed theirs (PEM). "
        "Without it, senders show none.",
        json_schema_extra={"shown": "none", "allowed": "a file"},
    )
    peers: str = Field(
        default="",
        description="Where results may be sent, beside the peers of the administration "
        "page.",
        json_schema_extra={
            "shown": "none",
            "allowed": "name=AE@host:port, name=tls:AE@host:port or name=https://…, "
            "with commas between",
        },
    )
    vault_key: str = Field(
        default="",
        pattern=r"^([0-9a-fA-F]{64})?$",
        validation_alias=f"{PREFIX}VAULT_KEY",
        description="Key of the vault that keeps how a study was called by its sender, "
        "so that results go back to the patient; without it they can be downloaded "
        "alone.",
        json_schema_extra={
            "shown": "none",
            "allowed": "64 hexadecimal digits",
            "secret": True,
        },
    )
    vault_days: Count = Field(
        default=30,
        validation_alias=f"{PREFIX}VAULT_DAYS",
        description="Days after which the vault forgets a study.",
    )
