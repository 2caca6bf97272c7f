"""Open the dashboard with Streamlit's AppTest, in the dashboard's environment, and print the content of the page.

The argument is JSON: `app`; optionally `choose`, by widget key what to enter; and `price`, whether to press the button.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from streamlit.testing.v1 import AppTest


def seen(page: AppTest) -> dict[str, Any]:
    return {
        "exceptions": [one.value for one in page.exception],
        "tabs": [one.label for one in page.tabs],
        "metrics": {one.label: one.value for one in page.metric},
        "headings": [one.value for one in page.subheader],
        "texts": [one.value for one in (*page.markdown, *page.caption)],
        "errors": [one.value for one in page.error],
        "warnings": [one.value for one in page.warning],
        "infos": [one.value for one in page.info],
        "options": {one.key: one.options for one in (*page.selectbox, *page.multiselect)},
        "keys": [one.key for one in (*page.selectbox, *page.number_input)],
        "rows": [len(one.value) for one in page.dataframe],
    }


def choose(page: AppTest, key: str, value: Any) -> None:
    for kind in ("selectbox", "number_input", "multiselect"):
        for widget in getattr(page, kind):
            if widget.key == key:
                widget.set_value(value).run()
                return
    raise AssertionError(f"there is no widget {key}")


def main(asked: dict[str, Any]) -> None:
    page = AppTest.from_file(asked["app"], default_timeout=60).run()
    for key, value in asked.get("choose", {}).items():
        choose(page, key, value)
    if asked.get("price"):
        next(one for one in page.button if one.label == "Price this car").click().run()
    print(json.dumps(seen(page)))


main(json.loads(sys.argv[1]))
