"""Show the Market Analysis tab: influences on prices, and adverts below the model's price."""

from __future__ import annotations

import charts
import pandas as pd
import server
import streamlit as st
import summaries

CHECKED = 500
"""Adverts that the model prices for the table of opportunities."""


def show(table: pd.DataFrame, url: str) -> None:
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Price by model year")
        years = summaries.quartiles(table, table["model_year"])
        st.altair_chart(charts.quartiles(years, x="model_year", title="Model year"))
        st.caption("Line: median. Band: the middle half of the adverts.")
    with right:
        word, offered = summaries.most_offered(table)
        st.subheader(f"Price by {word.lower()}")
        ordered = offered.sort_values("median", ascending=False)
        st.altair_chart(charts.bars(ordered, value="median", name="kind", title="Median price", style="$,.0f"))
    left, right = st.columns(2, gap="large")
    with left:
        _depreciation(table)
    with right:
        st.subheader("Price by mileage")
        mileage = summaries.by_mileage(table)
        st.altair_chart(charts.quartiles(mileage, x="odometer", title="Odometer, miles", style="~s"))
        st.caption("In steps of 20,000 miles, of adverts that state the odometer.")
    _opportunities(table, url)


def _depreciation(table: pd.DataFrame) -> None:
    st.subheader("How models keep their price")
    common = table["model"].value_counts()
    models = common.index[common >= 2 * summaries.ENOUGH].tolist()
    shown = dict(zip(models, summaries.names(table, pd.Series(models, dtype="str")), strict=True))
    chosen = st.multiselect(
        "Models to compare", models, default=models[:3], max_selections=5, key="compared", format_func=shown.__getitem__
    )
    shares = summaries.depreciation(table, chosen)
    shares = shares.assign(model=shares["model"].map(shown))
    if shares.empty:
        st.info("Too few adverts for a curve. Choose a commoner model or widen the filters.")
        return
    titles = ("Years older than the newest", "Of the newest one's price")
    st.altair_chart(charts.curves(shares, x="age", y="share", name="model", titles=titles))


def _opportunities(table: pd.DataFrame, url: str) -> None:
    st.subheader("Adverts below the model's price")
    sample = table.drop_duplicates(["model", "model_year", "odometer"]).sample(frac=1, random_state=1).head(CHECKED)
    try:
        priced = server.priced(url, sample)
    except (server.Unreachable, server.Refused) as error:
        st.warning(f"This table needs the model server. {error}", icon=":material/cloud_off:")
        return
    gap = priced["modelled"] - priced["price"]
    cheap = priced.assign(saved=gap, share=(gap / priced["modelled"]).round(2)).query("0.15 <= share <= 0.6")
    columns = ["make", "model", "model_year", "odometer", "condition", "price", "modelled", "share"]
    rows = cheap.nlargest(12, "saved")[columns].round({"modelled": 0})
    one_make = table["make"].nunique() == 1
    st.dataframe(
        rows.assign(model=summaries.names(table, rows["model"])).drop(columns=["make"] if one_make else []),
        hide_index=True,
        height="content",
        column_config={
            "make": "Make",
            "model": "Model",
            "model_year": st.column_config.NumberColumn("Year", format="%d"),
            "odometer": st.column_config.NumberColumn("Odometer, mi", format="localized"),
            "condition": "Condition",
            "price": st.column_config.NumberColumn("Asked", format="$%,d"),
            "modelled": st.column_config.NumberColumn("By the model", format="$%,d"),
            "share": st.column_config.ProgressColumn("Below it", format="percent", min_value=0.0, max_value=0.6),
        },
    )
    st.caption(
        f"{len(sample):,} cars drawn from the filtered adverts and priced by the served model. A low price often has a "
        "reason that the advert's fields do not hold: damage, a typing error, a first instalment. Gaps over 60 % are "
        "left out for that. Most of these cars also trained the model, which makes gaps look smaller than they are."
    )
