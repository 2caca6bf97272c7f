"""Show the Overview tab with the adverts and the quality of the data."""

from __future__ import annotations

import charts
import pandas as pd
import streamlit as st
import summaries
from cars import Adverts


def show(adverts: Adverts, table: pd.DataFrame) -> None:
    """Show the tab for `table`, the adverts that match the sidebar's filters."""
    _figures(table)
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Prices")
        top = float(table["price"].quantile(0.99))
        step = 1_000 if top < 80_000 else 2_500
        st.altair_chart(charts.histogram(table["price"], title="Price asked", step=step, top=top // step * step + step))
    with right:
        word, offered = summaries.most_offered(table)
        st.subheader(f"{word}s on offer")
        st.altair_chart(charts.bars(offered, value="adverts", name="kind", title="Adverts"))
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Model years")
        years = table["model_year"].value_counts().sort_index().rename("adverts").reset_index()
        st.altair_chart(charts.columns(years, x="model_year", y="adverts", title="Model year"))
    with right:
        _quality(adverts, table)


def _figures(table: pd.DataFrame) -> None:
    figures = {
        "Adverts": f"{len(table):,}",
        "Median price": f"${table['price'].median():,.0f}",
        "Median miles": _miles(table["odometer"].median()),
        "Median model year": f"{table['model_year'].median():.0f}",
        "Models of cars": f"{table['model'].nunique():,}",
    }
    for column, (label, value) in zip(st.columns(len(figures)), figures.items(), strict=True):
        column.metric(label, value, border=True)


def _miles(value: float) -> str:
    return "unknown" if pd.isna(value) else f"{value:,.0f}"


def _quality(adverts: Adverts, table: pd.DataFrame) -> None:
    st.subheader("Quality of the data")
    missing = summaries.missing(table)
    if missing.empty:
        st.write("No field is missing in any advert.")
    else:
        labels = missing.assign(field=missing["field"].str.replace("_", " "))
        chart = charts.bars(labels, value="share", name="field", title="Adverts without it", style=".0%")
        st.altair_chart(chart.properties(height=280))
    dropped = adverts.rows - len(adverts.table)
    st.caption(
        f"Of {adverts.rows:,} adverts in the file, {dropped:,} are left out here and in training: no model year or one "
        f"before 1990, a price that cannot be true, or a double. {adverts.reposts:,} of those that stay repeat an "
        "earlier advert of the same car."
    )
