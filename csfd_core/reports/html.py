"""Templates of pages: HTML that escapes what it is given and needs nothing else."""

from importlib.resources import files

STYLE = "page"  # of every page


def render_html(name: str, *styles: str, **facts: object) -> str:
    """Render a template of ``templates`` as HTML.

    Args:
        name: Of the template, without its ending.
        styles: Style sheets beside that of every page, without their ending.
        facts: What the template needs. It knows ``style`` besides.

    Raises:
        jinja2.UndefinedError: If it needs a fact that is not given.
    """
    import jinja2

    folder = files("csfd_core.reports") / "templates"
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sheets = (
        (folder / f"{style}.css").read_text("utf-8") for style in (STYLE, *styles)
    )
    template = environment.from_string((folder / f"{name}.html").read_text("utf-8"))
    return template.render(style="\n".join(sheets), **facts)
