"""Render the model card, the description of an artifact for people, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from estiba.model.artifact.artifact import Manifest, Parity
from estiba.model.schema.answer_text import part_texts
from estiba.model.schema.signature import Field, Signature
from estiba.model.schema.tensor_types import Image, shape_text

FILE = "card.md"


def render(manifest: Manifest, code: Sequence[str] = ()) -> str:
    """Render the card of a manifest; the same manifest gives the same text.

    Args:
        code: paths of the source files of the packer's own, as `manifest.files` is not filled in yet.
    """
    parts = [
        f"# {manifest.name}",
        manifest.description,
        _warning(manifest),
        _data(manifest),
        _metrics(manifest),
        _signature(manifest),
        _answers(manifest),
        _parity(manifest),
        _section("Limits", manifest.notes),
        _code(manifest, code),
        _runs(manifest),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""


def _warning(manifest: Manifest) -> str:
    if manifest.source and manifest.source.simulated:
        return (
            "> **SIMULATED DATA.** This model was trained on rows that a program made up. Its figures say nothing "
            "about the world. Train it on real data before you rely on it."
        )
    return ""


def _data(manifest: Manifest) -> str:
    source = manifest.source
    if source is None:
        return _section("Data", "Not stated.")
    lines = [f"- {source.name}, {source.rows:,} rows{', **simulated**' if source.simulated else ''}"]
    lines += [f"- {label}: {value}" for label, value in (("From", source.url), ("Licence", source.licence)) if value]
    return _section("Data", "\n".join(lines) + (f"\n\n{source.notes}" if source.notes else ""))


def _metrics(manifest: Manifest) -> str:
    if not manifest.metrics:
        return _section("Metrics", "Not stated.")
    rows = [f"| {name} | {value:.6g} |" for name, value in sorted(manifest.metrics.items())]
    params = "".join(f"\n- {name}: {value}" for name, value in sorted(manifest.params.items()))
    return _section(
        "Metrics", "\n".join(["| metric | value |", "|---|---|", *rows]) + (f"\n{params}" if params else "")
    )


def _signature(manifest: Manifest) -> str:
    if manifest.signature.is_tensors:
        return _section("Input", _tensors(manifest.signature))
    head = [
        "| field | kind | may be missing | accepted | in training | unseen level |",
        "|---|---|---|---|---|---|",
    ]
    return _section("Input", "\n".join(head + [_row(field) for field in manifest.signature.fields]))


_BATCH = {
    "free": "Many records run together.",
    "one": "The model takes one record at a time.",
    "none": "A record is all that the model takes in one run.",
}


def _tensors(signature: Signature) -> str:
    lines = ["| field | type | shape of a record | image |", "|---|---|---|---|"]
    for field in signature.fields:
        cells = (field.name, field.dtype, shape_text(field.shape), _image(field.image) if field.image else "no")
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + (
        f"\n\n{_BATCH[signature.head.batch]} Tensors have no distribution by field, so there is no profile of them."
    )


def _image(image: Image) -> str:
    steps = [image.mode, f"times {image.scale:.6g}" if image.scale != 1 else ""]
    steps += [f"minus {', '.join(f'{mean:g}' for mean in image.mean)}" if image.mean else ""]
    steps += [f"divided by {', '.join(f'{std:g}' for std in image.std)}" if image.std else ""]
    return ", ".join(step for step in (*steps, "stretched to the size" if image.resize else "") if step)


def _row(field: Field) -> str:
    accepted = ", ".join(str(level) for level in field.levels[:8]) + (", ..." if len(field.levels) > 8 else "")
    if field.minimum is not None or field.maximum is not None:
        ends = [f"{end:g}" if end is not None else "" for end in (field.minimum, field.maximum)]
        accepted = " to ".join(ends).strip() if all(ends) else (f"from {ends[0]}" if ends[0] else f"up to {ends[1]}")
    observed = f"{field.observed[0]:g} to {field.observed[1]:g}" if field.observed else ""
    missing = "yes" if field.nullable else "no"
    cells = [
        field.name if field.column is None else f"{field.name} (column `{field.column}`)",
        field.kind,
        missing,
        accepted,
        observed,
        field.unseen if field.kind == "category" else "",
    ]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _answers(manifest: Manifest) -> str:
    signature = manifest.signature
    if signature.is_single:
        return _section("Output", "\n".join(_answer(signature)))
    if signature.head.kind == "values" and not signature.outputs.bands and not signature.outputs.each:
        return _section("Outputs", f"- kind: values\n- targets: {', '.join(signature.head.names)}")
    parts = ["\n".join([f"### {output.name}\n", *_answer(output.signature)]) for output in signature.each]
    return _section("Outputs", "\n\n".join(parts))


def _answer(signature: Signature) -> list[str]:
    """Lines about a single output."""
    head = signature.head
    lines = [f"- kind: {'cluster, ' if head.clusters else ''}{head.kind}"]
    lines += [f"- {tensor.name}: {tensor.dtype} of shape {shape_text(tensor.shape)}" for tensor in head.tensors]
    if head.name:
        lines.append(f"- target: {head.name}")
    if head.classes:
        lines.append(f"- {'clusters' if head.clusters else 'classes'}: {', '.join(map(str, head.classes))}")
    return lines + [f"- {part.name}: {part.text}" for part in part_texts(signature)]


def _parity(manifest: Manifest) -> str:
    parity = manifest.parity
    if manifest.tail and parity is not None:
        return _section("Proof", f"{_steps(manifest)}\n\n{_compared(parity, 'The whole was compared')}")
    if manifest.engine == "python":
        return _section("Proof", f"The original estimator answers (the python engine). {manifest.reason}".strip())
    if parity is None:
        return ""
    if manifest.signature.is_tensors:
        worst = max(parity.max_abs_error.values(), default=0.0)
        return _section(
            "Proof",
            f"The ONNX file is packed unchanged and was compared with itself on {parity.note}: largest difference "
            f"{worst:.3g}; accepted up to {parity.tolerance:g}.",
        )
    return _section("Proof", _compared(parity, "Converted to ONNX and compared"))


def _compared(parity: Parity, what: str) -> str:
    worst = max(parity.max_abs_error.values(), default=0.0)
    labels = f", {parity.labels_equal:,} of {parity.labels_total:,} labels equal" if parity.labels_total else ""
    return (
        f"{what} with the original on {parity.rows:,} rows ({parity.note}): "
        f"largest difference {worst:.3g}{labels}; accepted up to {parity.tolerance:g}."
    )


def _steps(manifest: Manifest) -> str:
    """The steps of a pipeline that run in Python, and those that were converted."""
    why = f" The reason: {manifest.reason.removesuffix('.')}." if manifest.reason else ""
    return f"{manifest.engine_summary[0].upper()}{manifest.engine_summary[1:]}.{why}"


def _code(manifest: Manifest, code: Sequence[str]) -> str:
    if not (code or manifest.by_value):
        return ""
    parts = ["It runs Python code of its author, so loading it needs trust."]
    if code:
        parts.append("Source files, which are imported from here:\n\n" + "\n".join(f"- `{path}`" for path in code))
    if manifest.by_value:
        names = "\n".join(f"- {name}" for name in manifest.by_value)
        parts.append(
            f"Held by value in `{manifest.model_file}`, as bytecode of Python {manifest.python} that can be read "
            f"nowhere else:\n\n{names}"
        )
    return _section("Code", "\n\n".join(parts))


def _runs(manifest: Manifest) -> str:
    libraries = ", ".join(f"{name} {version}" for name, version in sorted(manifest.libraries.items()))
    return _section("Made with", f"{manifest.framework}, Python {manifest.python}. Needed to serve it: {libraries}.")
