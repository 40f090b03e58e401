"""How a place in a source or a store may be shown: files can be named like patients."""

from typing import Final

from csfd_core.store import layout, moved, paths
from csfd_core.text import safe_name, safe_url

# Names of our own, in a source or in a store.
_LAYOUT: Final = frozenset(
    part
    for module in (layout, moved, paths)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str)
    for part in value.split("/")
)


def shown_place(url: str, path: str) -> str:
    """Return a place below a URL with no name in it but our own."""
    parts = [
        part if part in _LAYOUT else safe_name(part) for part in path.split("/") if part
    ]
    return "/".join([safe_url(url), *parts])
