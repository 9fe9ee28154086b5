"""Numbers as a person reads them: what the templates call."""

import json
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from deepsky.report import charts
from deepsky.report.results import flat_params
from deepsky.report.sky import legacy_viewer_url, sdss_navigate_url


def make_environment() -> Environment:
    """Return the templates with what they call."""
    environment = Environment(
        loader=PackageLoader("deepsky.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        training_charts=charts.training_charts,
        compared_charts=charts.compared_charts,
        class_charts=charts.class_charts,
        property_charts=charts.property_charts,
        reliability_chart=charts.reliability_chart,
        colour=charts.colour,
        chart_size=(charts.WIDTH, charts.HEIGHT),
        sdss=sdss_navigate_url,
        legacy=legacy_viewer_url,
    )
    environment.filters.update(
        score=lambda value: f"{value:.3f}",
        fine=lambda value: f"{value:.4f}",
        two=lambda value: f"{value:.2f}".replace("-", "−"),
        signed=_signed,
        percent=lambda value: f"{value:.0%}",
        duration=_duration,
        count=_count,
        megabytes=lambda n_bytes: f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e5 else f"{n_bytes / 1e3:.1f} kB",
        short=_short,
        flat=flat_params,
        shade=_shade,
        chance=chance,
    )
    return environment


def chance(share: float) -> str:
    """Return a share of replicates; 2000 of them do not make it 0 or 1."""
    return "above 99.9 %" if share > 0.999 else "below 0.1 %" if share < 0.001 else f"{100 * share:.3g} %"


def _signed(value: float, digits: str = "%.3f") -> str:
    return digits.replace("%", "%+") % value if value >= 0 else "−" + digits % -value


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _count(n: int) -> str:
    """Return a large number with three digits: 3.23 M."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if n >= 0.9995 * size:
            return f"{n / size:.3g} {unit}" if n < 999.5 * size else f"{n / size:.0f} {unit}"
    return str(n)


def _short(value: Any) -> str:
    """Return a parameter's value with the digits that tell something."""
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value).strip('"')


def _shade(share: float) -> int:
    """Return how strongly a cell is coloured, 0 to 46 percent: text stays readable on it in both themes."""
    return round(46 * min(max(share, 0.0), 1.0))
