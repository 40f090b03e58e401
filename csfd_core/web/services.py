"""What every part of the reader's page works with, opened once."""

from dataclasses import dataclass

from csfd_core.settings import Settings, WebSettings
from csfd_core.store.locations import Location
from csfd_core.store.source import Source, Sources
from csfd_core.store.stores import Stores
from csfd_core.web.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Settings, stores and the database.

    Attributes:
        settings: Where everything is.
        web: Of the page itself.
        database: Who reads, what came in, what was said of it.
        stores: What the graph has made.
        sources: Where DICOM files lie: the source, then the inbox.
        inbox: Where uploads and label files go.
    """

    settings: Settings
    web: WebSettings
    database: Database
    stores: Stores
    sources: Sources
    inbox: Location

    @classmethod
    def open(cls) -> "Services":
        """Open them as the environment says.

        Raises:
            SettingsError: If a setting cannot be used.
        """
        settings, web = Settings.read(), WebSettings.read()
        return cls(
            settings=settings,
            web=web,
            database=Database(web.database),
            stores=Stores(Location(settings.store)),
            sources=Sources([Source(settings.source), Source(settings.inbox)]),
            inbox=Location(settings.inbox),
        )
