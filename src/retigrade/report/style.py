"""What every page and plot shares: colours, the caption, and templates that escape what they are given."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from retigrade.text import shown

if TYPE_CHECKING:
    import jinja2
    import markupsafe

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

STAGE_COLOURS: tuple[Colour, ...] = ((82, 183, 136), (188, 208, 92), (244, 180, 68), (238, 120, 62), (222, 66, 82))
"""One for each grade, from calm to alarming."""

PLOT_COLOURS = ("#1b5e8a", "#d1603d", "#4f8a4b", "#7d5ba6", "#8a6d3b", "#5c6670")
INK, FAINT = "#22303a", "#c9d1d6"

CAPTION = "evidence for retinopathy, not a lesion segmentation; research use only, not a medical device"


_BRACKETS = re.compile(r"\([^()<>]*\)")


@cache
def template(package: str, name: str) -> jinja2.Template:
    """Return a template of `package`; see `environment`."""
    return environment(package).get_template(name)


@cache
def environment(*packages: str) -> jinja2.Environment:
    """Return the templates of some packages, the first of a name first, and `style.css` for all of them.

    Whatever they show is escaped unless it is Markup. Every template knows `caption` and `colours`, and the filters
    `shown`, which makes any name fit for a page, and `unbroken`, which keeps what stands in brackets on one line.
    """
    import jinja2  # a quarter of the time in which the command line starts, and few commands write pages

    loaders = [jinja2.PackageLoader(package) for package in (*packages, "retigrade.report")]
    made = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(shown=shown, unbroken=_unbroken)
    made.globals.update(caption=CAPTION, colours=[f"rgb{colour}" for colour in STAGE_COLOURS])
    return made


def _unbroken(text: str) -> markupsafe.Markup:
    import markupsafe

    return markupsafe.Markup(_BRACKETS.sub(r'<span class="unbroken">\g<0></span>', str(markupsafe.escape(text))))
