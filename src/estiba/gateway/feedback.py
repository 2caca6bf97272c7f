"""Keep labels that become known after a prediction: sent to the server, or read from a file."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from estiba.core.errors import BadInput, BadRequest, Problem
from estiba.gateway.answer_form import AnswerForm
from estiba.state.database import Database, Row, Transaction

MAX_LABELS = 100_000
"""Labels of one request."""

LOOKUP_LABELS = 300
"""Labels that one statement looks up."""

MAX_PROBLEMS = 20
"""Wrong labels that an answer names."""

MAX_ID_CHARACTERS = 200

LOG_DELAY_SECONDS = 0.5
"""Time after which the log has a prediction that was just answered."""


class GivenLabel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A label as it is sent.

    Args:
        id: of the request that the prediction answered.
        label: the class or value that turned out to be right.
        row: the row within the request; may be left out where the request had only one.
    """

    id: Annotated[str, Meta(max_length=MAX_ID_CHARACTERS, pattern="^[^\\x00]+$")]
    label: bool | int | float | str
    row: Annotated[int, Meta(ge=0, lt=2**31)] | None = None


class Recorded(msgspec.Struct, frozen=True):
    """The count of labels that were kept.

    Args:
        accepted: all of them. repeated: those of predictions that had a label before.
        unknown: left out, as no prediction of the log has their id.
    """

    accepted: int
    repeated: int
    unknown: int


class _Logged(NamedTuple):
    """A prediction that a label may belong to."""

    model: str
    version: str
    digest: str
    at: int
    output: bytes
    form: AnswerForm


class _Match(NamedTuple):
    """A label that belongs to a prediction. `label` and `predicted` are JSON."""

    request: str
    row: int
    label: str
    predicted: str
    probability: float | None
    logged: _Logged


def read_labels(body: bytes, content_type: str, *, limit: int | None = MAX_LABELS) -> list[GivenLabel]:
    """Read labels: JSON of one or a list of them, JSON lines, or CSV with the columns id, label and perhaps row.

    Args:
        limit: number of labels at most; None for any.

    Raises:
        BadRequest: it cannot be read, or there are too many.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/csv":
        labels = list(_of_csv(body))
    elif kind in ("application/x-ndjson", "application/jsonl"):
        labels = [_of_json(line, f"Line {number}: ") for number, line in enumerate(body.splitlines(), 1) if line]
    elif kind == "application/json":
        many = body.lstrip()[:1] == b"["
        labels = _of_json(body, "", list[GivenLabel]) if many else [_of_json(body, "")]
    else:
        hint = "Send Content-Type: application/json, application/x-ndjson or text/csv."
        raise BadRequest(f"Labels cannot be read as {kind or 'a body without Content-Type'}.", hint=hint)
    if limit is not None and len(labels) > limit:
        raise BadRequest(f"There are {len(labels):,} labels.", hint=f"Send at most {limit:,} at once.")
    if not labels:
        raise BadRequest("There is no label in it.", hint="Send the id of a prediction and its label.")
    return labels


def record(
    database: Database,
    labels: Sequence[GivenLabel],
    *,
    source: str = "",
    models: Collection[str] = (),
    skip_unknown: bool = False,
) -> Recorded:
    """Keep labels, all of them or none.

    Args:
        database: the log of predictions.
        source: name of the key that sent them.
        models: those that the key may use; empty for all.
        skip_unknown: leave out labels of predictions that are not in the log.

    Raises:
        BadInput: an id is not in the log, or a label is impossible; each is named. EstibaError: the log cannot be used.
    """
    matches, unknown, problems = _matched(database, labels, models)
    if unknown:  # a label may come before the log has written its prediction
        time.sleep(LOG_DELAY_SECONDS)
        matches, unknown, problems = _matched(database, labels, models)
    if not skip_unknown:
        problems = sorted([*problems, *((i, _unknown(labels[i])) for i in unknown)])
    if problems:
        shown = [Problem(f"#/{number}/{field}", detail) for number, (field, detail) in problems[:MAX_PROBLEMS]]
        raise BadInput(shown, hint=f"{len(problems)} of {len(labels)} labels are wrong; none was kept.")
    with database.transaction() as writing:
        repeated = _write(writing, matches, source)
    return Recorded(len(matches), repeated, len(unknown))


_Problems = list[tuple[int, tuple[str, str]]]


def _matched(
    database: Database, labels: Sequence[GivenLabel], models: Collection[str]
) -> tuple[list[_Match], list[int], _Problems]:
    """The predictions that labels belong to, the positions of labels without one, and of labels that are impossible."""
    matches: dict[tuple[str, int], _Match] = {}
    unknown: list[int] = []
    problems: _Problems = []
    for start in range(0, len(labels), LOOKUP_LABELS):
        part = labels[start : start + LOOKUP_LABELS]
        with database.transaction(write=False) as reading:
            logged = _look_up(reading, part)
        for number, given in enumerate(part, start):
            row = given.row or 0
            prediction = logged.get((given.id, row))
            if prediction is None or (models and prediction.model not in models):
                unknown.append(number)
                continue
            if given.row is None and (given.id, 1) in logged:
                problems.append((number, ("row", f"The request {given.id} had several rows: say which, from 0 on.")))
                continue
            match, reason = _match(given, row, prediction)
            earlier = matches.get((given.id, row))
            if match is None:
                problems.append((number, ("label", reason)))
            elif earlier is not None and earlier.label != match.label:
                problems.append((number, ("label", f"Another label of {given.id} stands before: {earlier.label}.")))
            else:
                matches[given.id, row] = match
    return list(matches.values()), unknown, problems


def _look_up(reading: Transaction, labels: Sequence[GivenLabel]) -> dict[tuple[str, int], _Logged]:
    """The logged predictions of some labels by request and row; of a repeated id, the newest."""
    ids = sorted({label.id for label in labels})
    rows = sorted({0, 1, *(label.row for label in labels if label.row is not None)})
    statement = (
        "SELECT request, row, prediction.model, prediction.version, prediction.digest, at, output, answer"
        " FROM prediction JOIN deployment"
        " ON deployment.digest = prediction.digest AND deployment.version = prediction.version"
        f" WHERE request IN ({_marks(ids)}) AND row IN ({_marks(rows)}) AND variant <> 'shadow' ORDER BY at"
    )
    forms: dict[str, AnswerForm] = {}
    return {(line[0], int(line[1])): _logged(line, forms) for line in reading.execute(statement, [*ids, *rows])}


def _logged(line: Row, forms: dict[str, AnswerForm]) -> _Logged:
    _, _, model, version, digest, at, output, answer = line
    if answer not in forms:
        old = AnswerForm("none", reason=f"{model}@{version} was logged by an older Estiba, which kept no classes.")
        forms[answer] = msgspec.json.decode(answer, type=AnswerForm) if answer else old
    return _Logged(model, version, digest, int(at), output, forms[answer])


def _match(given: GivenLabel, row: int, logged: _Logged) -> tuple[_Match | None, str]:
    """The label beside its prediction, and otherwise why it is impossible."""
    label, reason = logged.form.label(given.label)
    if reason:
        return None, reason
    predicted, probability = logged.form.predicted(msgspec.msgpack.decode(logged.output))
    return _Match(given.id, row, _json(label), _json(predicted), probability, logged), ""


def _write(writing: Transaction, matches: Sequence[_Match], source: str) -> int:
    """Write labels, and return how many predictions had one before."""
    now, repeated = time.time_ns() // 1000, 0
    for match in matches:
        parameters = (match.request, match.row)
        before = writing.execute("SELECT max(at) FROM feedback WHERE request = ? AND row = ?", parameters)[0][0]
        at = now if before is None else max(now, int(before) + 1)
        if before is not None:
            repeated += 1
            writing.execute("UPDATE feedback SET newest = 0 WHERE request = ? AND row = ?", parameters)
        logged = match.logged
        about = (logged.model, logged.version, logged.digest, logged.at, match.predicted, match.probability, 1)
        values = (match.request, match.row, at, source, match.label, *about)
        writing.execute(f"INSERT INTO feedback VALUES ({_marks(values)})", values)
    return repeated


def _unknown(given: GivenLabel) -> tuple[str, str]:
    row = f", row {given.row}" if given.row is not None else ""
    return "id", f"The log has no prediction {given.id}{row}: it is not of this server, not sampled, or too old."


def _of_json(content: bytes, where: str, kind: Any = GivenLabel) -> Any:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        hint = 'Send {"id": "...", "label": ...}, with "row" where the request had several, or a list of them.'
        raise BadRequest(f"{where}The labels cannot be read: {error}.", hint=hint) from None


def _of_csv(body: bytes) -> Iterator[GivenLabel]:
    hint = "Give the columns id and label, and row where requests had several rows, with a header."
    try:
        lines = csv.DictReader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
        columns = lines.fieldnames or []
        missing = [name for name in ("id", "label") if name not in columns]
        odd = [name for name in columns if name not in ("id", "label", "row")]
        if missing or odd or len(set(columns)) != len(columns):
            stated = f"has no column {missing[0]!r}" if missing else f"has the columns {', '.join(columns)}"
            raise BadRequest(f"The CSV file {stated}.", hint=hint)
        for cells in lines:
            yield _of_cells(cells, lines.line_num, hint)
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadRequest(f"The labels cannot be read as CSV: {error}.", hint=hint) from None


def _of_cells(cells: dict[str, Any], line: int, hint: str) -> GivenLabel:
    row = cells.get("row") or ""
    if None in cells or cells["label"] is None or not cells["id"]:
        raise BadRequest(f"Line {line} of the CSV file has not as many cells as the header.", hint=hint)
    if row and not (row.isascii() and row.isdigit() and len(row) < 10):
        raise BadRequest(f"Line {line} of the CSV file: row is {row!r}, not a whole number from 0 on.", hint=hint)
    given = {"id": cells["id"], "label": cells["label"], "row": int(row) if row else None}
    try:
        return msgspec.convert(given, GivenLabel)
    except msgspec.ValidationError as error:
        raise BadRequest(f"Line {line} of the CSV file: {error}.", hint=hint) from None


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _marks(values: Iterable[object]) -> str:
    return ", ".join("?" for _ in values)
