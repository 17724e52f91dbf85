"""What every page shares: one style sheet, one caption, and templates that escape what they are given."""

from __future__ import annotations

from functools import cache

import jinja2

from retigrade.report.style import CAPTION, STAGE_COLOURS
from retigrade.text import shown


@cache
def template(package: str, name: str) -> jinja2.Template:
    """Return a template of `package`; it may include `style.css`, whatever it shows is escaped unless it is Markup.

    Every template knows `caption` and `colours`, and the filter `shown`, which makes any name fit for a page.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package), jinja2.PackageLoader("retigrade.report")]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    environment.globals.update(caption=CAPTION, colours=[f"rgb{colour}" for colour in STAGE_COLOURS])
    return environment.get_template(name)
