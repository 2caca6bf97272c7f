"""Show the Model Metrics tab: the quality of the served model, by its metrics and by its predictions."""

from __future__ import annotations

from typing import Any

import altair as alt
import charts
import pandas as pd
import server
import streamlit as st

SAMPLE = 400
"""Adverts that the model prices for the chart."""


def show(table: pd.DataFrame, url: str) -> None:
    """`table` is all adverts; empty where there are none."""
    try:
        about, parity, card = server.about(url), server.parity(url), server.card(url)
    except (server.Unreachable, server.Refused) as error:
        unavailable(error, key="again-metrics")
        return
    metrics: dict[str, float] = about["metrics"]
    _figures(metrics)
    left, right = st.columns(2, gap="large")
    with left:
        _against_baselines(metrics)
    with right:
        _against_adverts(table, url)
    _proof(about, parity)
    with st.expander("Model card", icon=":material/description:"):
        st.markdown(card.replace("$", r"\\$"))


def unavailable(error: Exception, *, key: str) -> None:
    """Show the reason why the model cannot be reached, with a button to try again."""
    st.error(str(error), icon=":material/cloud_off:")
    st.button("Ask again", key=key, icon=":material/refresh:")


def _figures(metrics: dict[str, float]) -> None:
    st.subheader("Errors on held-out cars")
    shown = {
        "rmse": ("Root mean square error", "${:,.0f}", "Large errors count more; a few mistyped adverts dominate it."),
        "mae": ("Mean error", "${:,.0f}", "The mean distance between the price asked and the model's."),
        "mape": ("Mean error, relative", "{:.1%}", "The mean distance as a share of the price asked."),
        "r2": ("R²", "{:.3f}", "The share of the variance of prices that the model explains."),
    }
    known = {name: about for name, about in shown.items() if name in metrics}
    for column, (name, (label, style, help)) in zip(st.columns(len(shown)), known.items(), strict=False):
        column.metric(label, style.format(metrics[name]), help=help, border=True)


def baselines(metrics: dict[str, float]) -> pd.DataFrame:
    """The errors, in US dollars, of the model, of the model with fewer fields, and of a constant price.

    Naming the mean price for every car has R² = 0 by definition, so its error follows from that of the model.
    """
    rows = [
        ("The model", metrics.get("rmse")),
        ("without the odometer", metrics.get("rmse_no_odometer")),
        ("without the model's name", metrics.get("rmse_unknown_model")),
    ]
    if "rmse" in metrics and metrics.get("r2", 1.0) < 1.0:
        rows.append(("No model: always the mean price", metrics["rmse"] / (1 - metrics["r2"]) ** 0.5))
    return pd.DataFrame([row for row in rows if row[1] is not None], columns=["who", "rmse"])


def _against_baselines(metrics: dict[str, float]) -> None:
    st.subheader("Comparison with fewer fields and without a model")
    comparison = baselines(metrics)
    if comparison.empty:
        st.info("The packed model has no error figures in dollars.")
        return
    base = alt.Chart(comparison).encode(
        y=alt.Y("who:N", sort=None, title=None, axis=alt.Axis(labelLimit=260)),
        x=alt.X("rmse:Q", title="Root mean square error", axis=alt.Axis(format="$~s", tickCount=5)),
    )
    own = alt.condition(alt.datum.who == "The model", alt.value(charts.MAIN), alt.value(charts.QUIET))
    bars = base.mark_bar(cornerRadiusEnd=3).encode(color=own)
    text = base.mark_text(align="left", dx=6, color=charts.text_color()).encode(
        text=alt.Text("rmse:Q", format=charts.MONEY)
    )
    st.altair_chart((bars + text).properties(height=240))
    if "cv_rmse_mean" in metrics:
        st.caption(
            f"Cross-validated inside the training part, mean and deviation of 5 folds: "
            f"R² {metrics['cv_r2_mean']:.3f} ± {metrics['cv_r2_sd']:.3f}, "
            f"error \\${metrics['cv_rmse_mean']:,.0f} ± \\${metrics['cv_rmse_sd']:,.0f}."
        )


def _against_adverts(table: pd.DataFrame, url: str) -> None:
    st.subheader("Comparison with the adverts")
    if table.empty:
        st.info("There are no adverts here to compare with.")
        return
    sample = table.sample(min(SAMPLE, len(table)), random_state=7)
    try:
        priced = server.priced(url, sample)
    except (server.Unreachable, server.Refused) as error:
        st.warning(str(error), icon=":material/cloud_off:")
        return
    st.altair_chart(charts.agreement(priced))
    off = (priced["modelled"] - priced["price"]).abs()
    st.caption(
        f"{len(priced)} adverts, priced now by the served model; half of them within \\${off.median():,.0f}. "
        "Four fifths of the cars trained the model, so this picture flatters it: judge by the figures above."
    )


def _proof(about: dict[str, Any], parity: dict[str, Any]) -> None:
    st.subheader("The served model and its proof")
    packed, loaded = parity.get("packed") or {}, parity.get("loaded") or {}
    facts = {
        "Served": f"**{about['name']}@{about['version']}** by the `{about['engine']}` engine",
        "Made with": about["framework"],
        "Digest": f"`{about['digest'][:26]}…`",
        "When packed": _agreement(packed),
        "When loaded": _agreement(loaded),
        "Training data": "**simulated**" if about["simulated_data"] else "real adverts",
    }
    for column, part in zip(st.columns(2), (list(facts.items())[:3], list(facts.items())[3:]), strict=True):
        column.markdown("\n".join(f"- {name}: {value}" for name, value in part))


def _agreement(parity: dict[str, Any]) -> str:
    if not parity:
        return "not compared"
    worst = max(parity["max_abs_error"].values(), default=0.0)
    return f"{parity['rows']:,} rows asked of both, largest difference \\${worst:.1e}"
