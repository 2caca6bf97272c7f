"""Show the Price tab, where the server prices any car that is described by the fields of the model's signature."""

from __future__ import annotations

from typing import Any

import cars
import charts
import pandas as pd
import quality
import server
import streamlit as st
import summaries

WIDE = 3
"""Number of fields side by side."""

UNKNOWN_NUMBER = "–"
"""Between its buttons, a number has no space for a word."""

Schema = dict[str, Any]


@st.fragment
def show(table: pd.DataFrame, url: str) -> None:
    """`table` is all adverts; empty where there are none."""
    try:
        fields = server.fields(url)
    except (server.Unreachable, server.Refused) as error:
        quality.unavailable(error, key="again-form")
        return
    left, right = st.columns([5, 4], gap="large")
    with left:
        st.subheader("Describe the car")
        st.caption("The fields are those of the served model. Leave empty what you do not know.")
        _fields(fields, table)
        st.button("Price this car", type="primary", on_click=_ask, args=(url, fields), icon=":material/sell:")
    with right:
        _answer(table, url, fields)


def _fields(fields: dict[str, Schema], table: pd.DataFrame) -> None:
    """A widget for each field, with the server's error below it. Fields that name the car come first."""
    wrong: dict[str, str] = st.session_state.get("wrong", {})
    named = [name for name, schema in fields.items() if _is_open(schema)]
    for name in named:
        _named(name, fields[name], usual=table[name].mode()[0] if name in table else "")
        _complaint(wrong.get(name))
    rest = [name for name in fields if name not in named]
    for start in range(0, len(rest), WIDE):
        for column, name in zip(st.columns(WIDE), rest[start : start + WIDE], strict=False):
            with column:
                _widget(name, fields[name])
                _complaint(wrong.get(name))


def _complaint(text: str | None) -> None:
    if text:
        st.caption(f":red[{_plain(text[0].upper() + text[1:])}]")


def _is_open(schema: Schema) -> bool:
    """Return True if the field has known values, as examples, and accepts others too."""
    return "enum" not in schema and len(schema.get("examples", ())) > 1


def _named(name: str, schema: Schema, *, usual: str) -> None:
    """A field with many known names, such as the car's model: choose a make and then a name, or type another name.

    It begins with the name that most adverts have, or, where there are none, with the signature's example.
    """
    known, key = sorted(schema["examples"]), f"field-{name}"
    example = usual if usual in known else schema["examples"][0]
    by_make: dict[str, list[str]] = {}
    for model in known:
        by_make.setdefault(cars.make(model), []).append(model)

    def first() -> None:
        """Select a model of the new make: the old model would stay, because names that are not listed are allowed."""
        st.session_state[key] = by_make[st.session_state["make"]][0]

    left, right = st.columns(2)
    makes = sorted(by_make)
    make = left.selectbox("Make", makes, index=makes.index(cars.make(example)), on_change=first, key="make")
    st.session_state.setdefault(key, example)
    right.selectbox(_label(name, schema), by_make[make], accept_new_options=True, help=_help(schema), key=key)


def _widget(name: str, schema: Schema) -> None:
    """A widget for a number. Only the server checks ranges, so that its errors are shown."""
    start = schema.get("examples", [None])[0] if schema["required"] else None
    label, help, key = _label(name, schema), _help(schema), f"field-{name}"
    kinds = schema.get("type", [])
    if "enum" in schema:
        options = [value for value in schema["enum"] if value is not None]
        index = options.index(start) if start in options else None
        st.selectbox(label, options, index=index, placeholder="unknown", help=help, key=key)
    elif "integer" in kinds:
        st.number_input(label, value=start, step=1, format="%d", placeholder=UNKNOWN_NUMBER, help=help, key=key)
    elif "number" in kinds:
        step = 1000.0 if schema.get("maximum", 0) >= 10_000 else 1.0
        st.number_input(label, value=start, step=step, format="%.10g", placeholder=UNKNOWN_NUMBER, help=help, key=key)
    elif "boolean" in kinds:
        st.selectbox(label, [True, False], index=None, placeholder="unknown", help=help, key=key)
    else:
        st.text_input(label, value=start, help=help, key=key)


def _label(name: str, schema: Schema) -> str:
    return name.replace("_", " ").capitalize() + (" *" if schema["required"] else "")


def _help(schema: Schema) -> str:
    """The field's description and range."""
    ends = [_number(schema[end]) for end in ("minimum", "maximum") if end in schema]
    text = schema.get("description", "")
    return _plain(f"{text} From {ends[0]} to {ends[1]}." if len(ends) == 2 else text)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10_000 else f"{value:g}"


def _plain(text: str) -> str:
    """Escape dollar signs for Markdown, where they would begin a formula."""
    return text.replace("$", r"\$")


def _ask(url: str, fields: dict[str, Schema]) -> None:
    """Request the price when the button is pressed, before the page is drawn again."""
    state = st.session_state
    record = {name: _tidy(state.get(f"field-{name}"), schema) for name, schema in fields.items()}
    state["wrong"], state["failed"], state["priced"] = {}, "", None
    try:
        state["priced"] = (record, server.price(url, [record]))
    except server.Refused as error:
        state["wrong"], state["failed"] = error.fields, str(error)
    except server.Unreachable as error:
        state["failed"] = str(error)


def _tidy(value: Any, schema: Schema) -> Any:
    """A typed name, in lower case if all names of training are in lower case."""
    if isinstance(value, str) and _is_open(schema) and all(one == one.lower() for one in schema["examples"]):
        return value.strip().lower()
    return value


def _answer(table: pd.DataFrame, url: str, fields: dict[str, Schema]) -> None:
    if failed := st.session_state.get("failed"):
        st.subheader("No price")
        wrong: dict[str, str] = st.session_state["wrong"]
        marked = " See what is marked in red on the left." if wrong.keys() & fields.keys() else ""
        st.error(_plain(failed) + marked, icon=":material/error:")
        others = {name: text for name, text in wrong.items() if name not in fields}
        for name, text in others.items():
            st.markdown(f"- `{name}`: {_plain(text)}")
    elif priced := st.session_state.get("priced"):
        _price(*priced, table=table, url=url)
        if {"model_year", "odometer"} <= fields.keys():
            _what_if(priced[0], fields, url, table)
    else:
        st.subheader("Its price")
        st.info("Describe a car and ask for its price.", icon=":material/sell:")


def _price(record: dict[str, Any], priced: server.Priced, *, table: pd.DataFrame, url: str) -> None:
    st.subheader("Its price")
    price = priced.prices[0]
    title = f"{record.get('model')}, {record.get('model_year')}, by model version {priced.version}"
    st.metric(title, f"${price:,.0f}", border=True)
    if doubt := _doubt(record, url):
        st.caption(doubt)
    for name, text in priced.remarks.items():
        st.warning(f"{name.replace('_', ' ').capitalize()}: {text}", icon=":material/help:")
    near = summaries.similar(table, str(record.get("model")), record.get("model_year")) if len(table) else table
    if len(near) < summaries.ENOUGH:
        st.caption("Too few adverts of this model and age to compare with.")
        return
    below = (near["price"] < price).mean()
    st.caption(f"{below:.0%} of the {len(near):,} adverts of this model, up to two years older or newer, ask less.")
    st.altair_chart(charts.marked(near["price"], price, title="Asked for similar cars"))


def _doubt(record: dict[str, Any], url: str) -> str:
    """Describe the model's error for this record, from the metrics of the server."""
    try:
        metrics = server.about(url)["metrics"]
    except (server.Refused, server.Unreachable):
        return ""
    sentence = f"On held-out cars, the model is off by {metrics['mape']:.0%} on average." if "mape" in metrics else ""
    if record.get("odometer") is None and {"rmse", "rmse_no_odometer"} <= metrics.keys():
        more = metrics["rmse_no_odometer"] / metrics["rmse"] - 1
        sentence += f" Without the odometer its error is {more:.0%} larger."
    return sentence


def _what_if(record: dict[str, Any], fields: dict[str, Schema], url: str, table: pd.DataFrame) -> None:
    """Charts of the model's price for the same car with other years and mileages; one request for each chart."""
    year = int(record["model_year"])
    newest = max(year, int(table["model_year"].max())) if len(table) else year
    ranges: dict[str, tuple[str, list[Any]]] = {
        "model_year": ("Model year", list(range(year - 10, newest + 1))),
        "odometer": ("Odometer, miles", [float(miles) for miles in range(10_000, 240_001, 10_000)]),
    }
    st.caption("The same car with another model year or another mileage:")
    for name, (title, values) in ranges.items():  # one below the other: side by side they are too narrow
        here = record.get(name)
        allowed = sorted({v for v in [*values, here] if v is not None and _within(v, fields[name])})
        try:
            prices = server.price(url, [{**record, name: value} for value in allowed]).prices
        except (server.Refused, server.Unreachable):
            continue  # the price itself stands; this is an extra
        st.altair_chart(charts.what_if(pd.DataFrame({name: allowed, "price": prices}), x=name, title=title, here=here))


def _within(value: float, schema: Schema) -> bool:
    return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
