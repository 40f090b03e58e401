"""How figures look, and how they become bytes.

Charts are drawn once and written twice: as a PNG file on white, and as SVG inside a
page, where their greys become CSS variables and so follow light and dark. Pictures (CT
slices) stand on black in both. Matplotlib is imported when something is drawn, never
when this module is.
"""

import base64
import functools
import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, TypeAlias, TypeVar

from PIL import Image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Greys of charts. Each is used for nothing else, as pages replace them in the SVG.
INK: Final = "#1b1c1d"
MUTED: Final = "#5b5c5d"
GRID: Final = "#d9dadb"
_CSS: Final = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)"}

NEUTRAL: Final = "#0072B2"  # bars that stand for no vertebra; Okabe and Ito's blue
WIDTH_IN: Final = 5.6  # of a chart; its text stays readable 390 pixels wide
_CHART_DPI: Final = 150
_PICTURE_DPI: Final = 150
_JPEG_QUALITY: Final = 86

_Style: TypeAlias = Any  # of rc_context, whose keys are 300 literals

_CHART: Final[_Style] = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.size": 10,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "csfd",
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}
_PICTURE: Final[_Style] = {
    **_CHART,
    "axes.edgecolor": "#777777",
    "axes.facecolor": "black",
    "axes.grid": False,
    "axes.labelcolor": "#dddddd",
    "axes.titlecolor": "#eeeeee",
    "axes.titlesize": 10,
    "axes.titleweight": "normal",
    "figure.facecolor": "black",
    "text.color": "#eeeeee",
    "xtick.color": "#999999",
    "xtick.labelcolor": "#dddddd",
    "ytick.color": "#999999",
    "ytick.labelcolor": "#dddddd",
}

P = ParamSpec("P")
R = TypeVar("R")


def chart(plot: Callable[P, R]) -> Callable[P, R]:
    """Draw in the style of charts. Decorates functions that return a figure."""
    return _styled(plot, _CHART)


def picture(plot: Callable[P, R]) -> Callable[P, R]:
    """Draw in the style of pictures: light on black."""
    return _styled(plot, _PICTURE)


def _styled(plot: Callable[P, R], style: _Style) -> Callable[P, R]:
    @functools.wraps(plot)
    def styled(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib as mpl

        with mpl.rc_context(style):
            return plot(*args, **kwargs)

    return styled


def new_figure(height_in: float, width_in: float = WIDTH_IN) -> "Figure":
    """Return an empty figure whose parts arrange themselves."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), layout="constrained")


def say_nothing_to_show(axes: "Axes", text: str = "nothing to show") -> None:
    """Mark a panel that has no data."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)


def chart_png(figure: "Figure") -> bytes:
    """Return a chart as PNG on white."""
    return _save(figure, "png", _CHART, dpi=_CHART_DPI, facecolor="white")


def picture_png(figure: "Figure") -> bytes:
    """Return a picture as PNG on black."""
    return _save(figure, "png", _PICTURE, dpi=_PICTURE_DPI)


def chart_svg(figure: "Figure") -> str:
    """Return a chart as SVG to stand inside HTML, its greys as CSS variables."""
    svg = _save(figure, "svg", _CHART, metadata={"Date": None}).decode()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)  # HTML knows SVG without
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1">', svg)
    for grey, variable in _CSS.items():
        svg = svg.replace(grey, variable)
    return svg


def to_jpeg(png: bytes) -> bytes:
    """Return a picture as JPEG, to be carried inside a page."""
    sink = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(
        sink, "JPEG", quality=_JPEG_QUALITY, optimize=True
    )
    return sink.getvalue()


def data_uri(content: bytes, kind: str) -> str:
    """Return content as a ``data:`` URI.

    Args:
        content: Any bytes.
        kind: Media type, such as ``image/png``.
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _save(
    figure: "Figure",
    form: Literal["png", "svg"],
    style: _Style,
    **options: Any,  # noqa: ANN401 - of savefig
) -> bytes:
    import matplotlib as mpl

    sink = io.BytesIO()
    with mpl.rc_context(style):
        if (engine := figure.get_layout_engine()) is not None:
            # Once for all forms of the figure; the second pass sees the first's labels.
            for _ in range(2):
                engine.execute(figure)
            figure.set_layout_engine("none")
        figure.savefig(sink, format=form, **options)
    return sink.getvalue()
