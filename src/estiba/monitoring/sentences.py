"""Sentences for people about a field in a window, in English and Spanish."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from estiba.monitoring.layout import Part, Share
from estiba.monitoring.windows import PartResult

LANGUAGES = ("en", "es")

_TEXTS = {
    "mean": ("{name}: mean {before} before, {now} now", "{name}: media {before} antes, {now} ahora"),
    "spread": (
        "{name}: the mean stays near {now}, the values are spread differently",
        "{name}: la media sigue cerca de {now}, los valores se reparten de otra forma",
    ),
    "narrow": ("{name}: all values lie close to {now}", "{name}: todos los valores están cerca de {now}"),
    "level": (
        "{name}: {level} in {before} of the rows before, {now} now",
        "{name}: {level} en el {before} de las filas antes, {now} ahora",
    ),
    "missing": (
        "{name}: missing in {before} of the rows before, {now} now",
        "{name}: falta en el {before} de las filas antes, {now} ahora",
    ),
    "unseen": (
        "{name}: {now} of the rows have a value that training never saw",
        "{name}: el {now} de las filas tiene un valor que no se vio en el entrenamiento",
    ),
    "outside": (
        "{name}: {now} of the rows are outside the range of the reference, {low} to {high}",
        "{name}: el {now} de las filas está fuera del rango de la referencia, de {low} a {high}",
    ),
    "same": ("{name}: as in the reference", "{name}: como en la referencia"),
    "few": ("{name}: too few rows to compare", "{name}: muy pocas filas para comparar"),
    "since": ("{sentence}, since {time}.", "{sentence}, desde el {time}."),
    "others": ("other values", "otros valores"),
    "answer": ("answer {name}", "respuesta {name}"),
    "length": ("{name} (length)", "{name} (longitud)"),
}

_DAYS = (
    ("Monday", "lunes"),
    ("Tuesday", "martes"),
    ("Wednesday", "miércoles"),
    ("Thursday", "jueves"),
    ("Friday", "viernes"),
    ("Saturday", "sábado"),
    ("Sunday", "domingo"),
)

DAY_SECONDS = 86_400


class Side(NamedTuple):
    """A part in the reference, or in a window; `mean` is None for categories."""

    share: Share
    mean: float | None


def sentences(part: Part, result: PartResult, known: Side, now: Side, at: int) -> dict[str, str]:
    """A sentence about a part by language, such as "age: mean 39 before, 46 now, since Tuesday 14:00 UTC."

    Args:
        at: end of the window, in microseconds since 1970.
    """
    return {language: _sentence(_Words(i), part, result, (known, now), at) for i, language in enumerate(LANGUAGES)}


class _Words:
    """The texts and numbers of one language."""

    def __init__(self, language: int) -> None:
        self.language = language

    def say(self, text: str, **values: str) -> str:
        return _TEXTS[text][self.language].format(**values)

    def number(self, value: float | None, part: Part) -> str:
        if value is None:
            return "?"
        if part.kind == "timestamp":
            return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M")
        size = abs(value)
        text = f"{value:,.0f}" if size >= 1000 else f"{value:.3g}"
        return self._local(text)

    def percent(self, part: float, whole: float) -> str:
        value = 100 * part / whole if whole else 0.0
        text = f"{value:.1f}" if 0 < value < 10 or 90 < value < 100 else f"{value:.0f}"
        return f"{self._local(text)} %"

    def time(self, moment: int, now: int) -> str:
        """A time within a week by the name of its day."""
        when = datetime.fromtimestamp(moment / 1e6, UTC)
        if now - moment < 6 * DAY_SECONDS * 10**6:
            return f"{_DAYS[when.weekday()][self.language]} {when:%H:%M} UTC"
        return when.strftime("%Y-%m-%d")

    def _local(self, text: str) -> str:
        if self.language == 0:
            return text
        return text.replace(",", " ").replace(".", ",").replace(" ", ".")


def _sentence(words: _Words, part: Part, result: PartResult, sides: tuple[Side, Side], at: int) -> str:
    own = part.name.removeprefix("output:")
    kind = "length" if part.kind == "text" else "answer" if part.is_output else ""
    name = words.say(kind, name=own) if kind else own
    if not result.statistics:
        return words.say("few", name=name) + "."
    if not (result.flagged or result.detected):
        return words.say("same", name=name) + "."
    change = _change(words, part, result, sides, name)
    return words.say("since", sentence=change, time=words.time(result.since, at)) if result.since else f"{change}."


def _change(words: _Words, part: Part, result: PartResult, sides: tuple[Side, Side], name: str) -> str:
    """The change that is largest against its floor."""
    known, now = sides[0].share, sides[1].share
    largest = max(result.statistics, key=lambda each: each.value / each.floor)
    if largest.name in ("missing", "unseen", "outside"):
        before, after = getattr(known, largest.name), getattr(now, largest.name)
        low, high = words.number(part.minimum, part), words.number(part.maximum, part)
        shown = {"before": words.percent(before, known.rows), "now": words.percent(after, now.rows)}
        return words.say(largest.name, name=name, low=low, high=high, **shown)
    return _level(words, part, known, now, name) if part.by_level else _mean(words, part, sides, name)


def _level(words: _Words, part: Part, known: Share, now: Share, name: str) -> str:
    """The level whose share has changed most."""
    pairs = zip(known.bins.tolist(), now.bins.tolist(), strict=True)
    changes = [abs(before / max(1, known.valued) - after / max(1, now.valued)) for before, after in pairs]
    i = changes.index(max(changes))
    level = part.labels[i] if i < len(part.labels) else words.say("others")
    before, after = words.percent(known.bins[i], known.valued), words.percent(now.bins[i], now.valued)
    return words.say("level", name=name, level=level, before=before, now=after)


def _mean(words: _Words, part: Part, sides: tuple[Side, Side], name: str) -> str:
    known, now = sides
    after = words.number(now.mean, part)
    if (now.share.bins > 0).sum() == 1 < (known.share.bins > 0).sum():
        return words.say("narrow", name=name, now=after)
    before = words.number(known.mean, part)
    return words.say("spread" if before == after else "mean", name=name, before=before, now=after)
