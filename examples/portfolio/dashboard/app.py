"""Show a dashboard of used cars in the United States and of CarVision, the model that prices them.

    streamlit run dashboard/app.py --server.port 8501

The model is asked over HTTP at $CARVISION_URL, by default where `estiba up` serves all models.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeGuard

import cars
import form
import market
import overview
import pandas as pd
import quality
import server
import streamlit as st
import summaries

URL = "http://127.0.0.1:8000"


@st.cache_data(show_spinner="Reading the adverts…", max_entries=2)
def adverts_of(path: Path, changed: float) -> cars.Adverts:
    """The adverts, read again when the file changed."""
    return cars.read(path)


def load() -> cars.Adverts | str:
    """The adverts, or the reason why there are none."""
    try:
        path = cars.find()
        return adverts_of(path, path.stat().st_mtime)
    except cars.NoAdverts as error:
        return str(error)


def sidebar(adverts: cars.Adverts | str, url: str) -> pd.DataFrame:
    """Show the sources of data and prices, and return the adverts that match the filters."""
    with st.sidebar:
        st.title("CarVision")
        st.caption("Used cars in the United States: asking prices, and the prices of a model.")
        _state(url)
        if isinstance(adverts, str):
            return pd.DataFrame()
        table = _filtered(adverts.table)
        st.divider()
        st.caption(f"**Data:** {adverts.name}. {adverts.about}")
        return table


def _state(url: str) -> None:
    try:
        about = server.about(url)
    except server.Refused as error:
        st.badge("Model not served", icon=":material/error:", color="red")
        st.caption(str(error))
    except server.Unreachable:
        st.badge("Model server does not answer", icon=":material/cloud_off:", color="red")
        st.caption(f"Looked for at {url}")
    else:
        st.badge(f"Model {about['name']}@{about['version']} ready", icon=":material/check:", color="green")


def _filtered(table: pd.DataFrame) -> pd.DataFrame:
    word, kind = summaries.kinds(table)
    offered = kind.value_counts().index.tolist()
    chosen = st.multiselect(f"{word}s", offered, placeholder=f"All {word.lower()}s", key=f"{word.lower()}s")
    first, last = int(table["model_year"].min()), int(table["model_year"].max())
    years = st.slider("Model years", first, last, (first, last), key="years")
    top = int(table["price"].quantile(0.999) // 5_000 * 5 + 5)
    low, high = st.slider("Price asked, thousands", 0, top, (0, top), format="$%dk", key="prices")
    keep = table["model_year"].between(*years) & (table["price"] >= low * 1_000)
    if high < top:  # at its end the slider means no limit
        keep &= table["price"] <= high * 1_000
    return table[keep & (kind.isin(chosen) if chosen else True)]


def main() -> None:
    st.set_page_config(page_title="CarVision", page_icon="🚗", layout="wide")
    url = os.environ.get("CARVISION_URL", "").rstrip("/") or URL
    adverts = load()
    table = sidebar(adverts, url)
    first, second, third, fourth = st.tabs(["Overview", "Market Analysis", "Model Metrics", "Price a car"])
    with first:
        if _any(adverts, table):
            overview.show(adverts, table)
    with second:
        if _any(adverts, table):
            market.show(table, url)
    every = pd.DataFrame() if isinstance(adverts, str) else adverts.table
    with third:
        quality.show(every, url)
    with fourth:
        form.show(every, url)


def _any(adverts: cars.Adverts | str, table: pd.DataFrame) -> TypeGuard[cars.Adverts]:
    """Return True if there are adverts; else show the reason why there are none."""
    if isinstance(adverts, str):
        st.info(adverts, icon=":material/info:")
    elif table.empty:
        st.info("No advert matches the filters. Widen them on the left.", icon=":material/filter_alt:")
    return not isinstance(adverts, str) and not table.empty


main()
