"""Charts of summarised tables. Colours come from the theme, so that they fit light and dark."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd
import streamlit as st

TALL = 300
"""Height of a chart in pixels."""

MAIN, OTHER, QUIET = "#0f9488", "#d97706", "#94a3b8"
MONEY = "$,.0f"


def text_color() -> str:
    """The colour of text inside a chart, which unlike that of axes does not come from the theme."""
    return "#cbd5e1" if st.context.theme.type == "dark" else "#475569"


def histogram(values: pd.Series, *, title: str, step: float, top: float) -> alt.Chart:
    """Counts of values in steps; the last step includes the few values beyond `top`."""
    edges = np.arange(0, top + step, step)
    counts, _ = np.histogram(values.clip(upper=top), edges)
    table = pd.DataFrame({"from": edges[:-1], "to": edges[1:], "adverts": counts})
    return (
        alt.Chart(table)
        .mark_bar(color=MAIN, binSpacing=1)
        .encode(
            x=alt.X("from:Q", bin="binned", title=title, axis=alt.Axis(format="$~s")),
            x2="to:Q",
            y=alt.Y("adverts:Q", title="Adverts"),
            tooltip=[
                alt.Tooltip("from:Q", format=MONEY, title="From"),
                alt.Tooltip("to:Q", format=MONEY, title="To"),
                alt.Tooltip("adverts:Q", format=",", title="Adverts"),
            ],
        )
        .properties(height=TALL)
    )


def bars(table: pd.DataFrame, *, value: str, name: str, title: str, style: str = ",") -> alt.Chart:
    """Horizontal bars in the order of the rows. `style` is a d3 number format."""
    tooltip = [alt.Tooltip(f"{name}:N"), alt.Tooltip(f"{value}:Q", format=style, title=title)]
    return (
        alt.Chart(table)
        .mark_bar(color=MAIN, cornerRadiusEnd=3)
        .encode(
            x=alt.X(f"{value}:Q", title=title, axis=alt.Axis(format=_short(style), tickCount=5)),
            y=alt.Y(f"{name}:N", title=None, sort=None, axis=alt.Axis(labelOverlap=False, labelLimit=200)),
            tooltip=tooltip,
        )
        .properties(height=max(TALL, 60 + 27 * len(table)))
    )


def _short(style: str) -> str:
    """The format of an axis for values that are shown as `style` elsewhere."""
    return f"{style[0]}~s" if "$" in style else style


def columns(table: pd.DataFrame, *, x: str, y: str, title: str) -> alt.Chart:
    """Vertical bars over whole numbers, such as years."""
    return (
        alt.Chart(table)
        .mark_bar(color=MAIN)
        .encode(
            x=alt.X(f"{x}:O", title=title, axis=alt.Axis(labelOverlap=True, labelAngle=0)),
            y=alt.Y(f"{y}:Q", title="Adverts"),
            tooltip=[alt.Tooltip(f"{x}:O", title=title), alt.Tooltip(f"{y}:Q", format=",", title="Adverts")],
        )
        .properties(height=TALL)
    )


def quartiles(table: pd.DataFrame, *, x: str, title: str, style: str = "d") -> alt.LayerChart:
    """The median as a line in a band from the lower to the upper quartile: columns `low`, `median`, `high`."""
    across = alt.X(f"{x}:Q", title=title, axis=alt.Axis(format=style), scale=alt.Scale(zero=False, nice=False))
    base = alt.Chart(table).encode(x=across)
    tooltip = [
        alt.Tooltip(f"{x}:Q", title=title, format=style),
        *(alt.Tooltip(f"{name}:Q", format=MONEY, title=name.title()) for name in ("low", "median", "high")),
        alt.Tooltip("adverts:Q", format=","),
    ]
    money = alt.Axis(format="$~s", tickCount=6)
    band = base.mark_area(opacity=0.22, color=MAIN).encode(y=alt.Y("low:Q", title="Price", axis=money), y2="high:Q")
    line = base.mark_line(color=MAIN, point=alt.OverlayMarkDef(size=28, color=MAIN)).encode(y="median:Q")
    return (band + line.encode(tooltip=tooltip)).properties(height=TALL)


def curves(table: pd.DataFrame, *, x: str, y: str, name: str, titles: tuple[str, str]) -> alt.Chart:
    """A line per `name`, each value a share."""
    return (
        alt.Chart(table)
        .mark_line(point=alt.OverlayMarkDef(size=24))
        .encode(
            x=alt.X(f"{x}:Q", title=titles[0], axis=alt.Axis(tickMinStep=1)),
            y=alt.Y(f"{y}:Q", title=titles[1], axis=alt.Axis(format="%", tickCount=6)),
            color=alt.Color(
                f"{name}:N", title=None, sort=None, legend=alt.Legend(orient="top", columns=3, labelLimit=110)
            ),
            tooltip=[alt.Tooltip(f"{name}:N", title="Model"), f"{x}:Q", alt.Tooltip(f"{y}:Q", format=".0%")],
        )
        .properties(height=TALL)
    )


def agreement(table: pd.DataFrame) -> alt.LayerChart:
    """Asked and modelled prices on logarithmic scales, with the line of equal prices."""
    ends = [float(table[["price", "modelled"]].min().min()), float(table[["price", "modelled"]].max().max())]
    scale = alt.Scale(type="log", domain=ends, nice=False)
    axis = alt.Axis(format="$~s", tickCount=6)
    points = (
        alt.Chart(table)
        .mark_circle(size=26, opacity=0.5, color=MAIN)
        .encode(
            x=alt.X("price:Q", title="Price asked", scale=scale, axis=axis),
            y=alt.Y("modelled:Q", title="Price by the model", scale=scale, axis=axis),
            tooltip=[
                "model",
                "model_year",
                alt.Tooltip("price:Q", format=MONEY, title="Asked"),
                alt.Tooltip("modelled:Q", format=MONEY, title="Model"),
            ],
        )
    )
    same = pd.DataFrame({"price": ends, "modelled": ends})
    line = alt.Chart(same).mark_line(color=QUIET, strokeDash=[5, 4]).encode(x="price:Q", y="modelled:Q")
    return (line + points).properties(height=TALL + 40)


def marked(values: pd.Series, at: float, *, title: str) -> alt.LayerChart:
    """A histogram of prices with a line at one of them."""
    top = float(max(values.quantile(0.99), at * 1.05))
    step = max(500.0, round(top / 25 / 500) * 500.0)
    rule = alt.Chart(pd.DataFrame({"at": [at]})).mark_rule(color=OTHER, strokeWidth=3)
    line = rule.encode(x="at:Q", tooltip=[alt.Tooltip("at:Q", format=MONEY, title="This car")])
    return (histogram(values, title=title, step=step, top=top) + line).properties(height=240)


def what_if(table: pd.DataFrame, *, x: str, title: str, here: float | None) -> alt.LayerChart:
    """The model's price over one field, with a point for the current car."""
    style = "d" if x == "model_year" else ",.0f"
    base = alt.Chart(table).encode(
        x=alt.X(
            f"{x}:Q",
            title=title,
            axis=alt.Axis(format="d" if x == "model_year" else "~s", tickCount=5),
            scale=alt.Scale(zero=False),
        ),
        y=alt.Y("price:Q", title="Price by the model", axis=alt.Axis(format="$~s", tickCount=5)),
        tooltip=[alt.Tooltip(f"{x}:Q", format=style, title=title), alt.Tooltip("price:Q", format=MONEY, title="Price")],
    )
    line = base.mark_line(color=MAIN)
    if here is None:
        return alt.layer(line).properties(height=200)
    point = base.mark_circle(color=OTHER, size=110, opacity=1).transform_filter(alt.datum[x] == here)
    return (line + point).properties(height=200)
