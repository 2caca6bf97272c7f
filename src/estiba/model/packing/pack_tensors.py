"""Pack an ONNX file as a model of tensors: unchanged, with fields from its inputs and outputs as its own."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from estiba.core.errors import BadInput, BadProject, EstibaError
from estiba.model.artifact import artifact, golden_tensors, model_card
from estiba.model.artifact.artifact import Artifact, Manifest, SourceCard
from estiba.model.coding.tensor_coder import TensorCoder
from estiba.model.engines.tensor_engine import TensorEngine
from estiba.model.inference.load import GOLDEN_FILE, load_artifact
from estiba.model.onnx_import.tensor_graph import Graph, batch_axis, fields_of, head_of
from estiba.model.packing.training_result import Trained, finite_metrics
from estiba.model.schema.infer import FieldOptions, override
from estiba.model.schema.signature import Head, Outputs, Signature
from estiba.model.schema.signature_checks import validated
from estiba.model.schema.tensor_types import BatchAxis, shape_text

BatchOption = Literal["auto", "free", "one", "none"]

MAX_PROOF_RECORDS = 64
"""Records of the sample that are asked of the packed model and of the file."""

Array = npt.NDArray[Any]


def takes_arrays(model: object, sample: object, fields: Mapping[str, FieldOptions]) -> bool:
    """Tell whether a model is to be packed as one of tensors: an ONNX file with arrays as its sample."""
    named = any(options.kind == "tensor" for options in fields.values())
    arrays = isinstance(sample, Mapping) and not hasattr(sample, "columns")
    if (named or arrays) and not isinstance(model, bytes):
        raise BadProject(
            "Only ONNX files can be packed as models of tensors.",
            hint="Export the model to ONNX and pass the file's bytes, or pass a DataFrame as the sample.",
        )
    if named and not arrays:
        raise BadProject(
            "A field is of kind tensor, and the sample is a table.",
            hint="Pass the sample as arrays: a .npy file, a .npz file or a dict with one array for each input.",
        )
    return arrays


def build(
    trained: Trained,
    name: str,
    options: tuple[Mapping[str, FieldOptions], Outputs, BatchOption, float],
    folder: Path,
    description: str = "",
) -> tuple[Artifact, tuple[str, ...]]:
    """Pack an ONNX file into `folder`.

    Args:
        trained: with the file's bytes as model, and as sample one array for each input, as the file takes them: the
            first axis counts records where it does so in the file.
        options: fields, outputs, meaning of the first axis and tolerance, as the project file says.

    Returns:
        The artifact, loaded once and proven, and sentences that whoever packs it should read.

    Raises:
        EstibaError: the file has no form that can be served. BadProject: the sample or an option contradicts it.
        ParityError: records that are sent as JSON are answered otherwise than by the file itself.
    """
    model = trained.model
    assert isinstance(model, bytes)
    _refuse_tables(trained)
    fields, outputs, batch, tolerance = options
    graph, tolerance = Graph(model), max(tolerance, golden_tensors.TOLERANCE)
    chosen = graph.chosen(outputs.tensors)
    if not chosen:
        raise EstibaError(
            f"The ONNX file answers no tensor: {', '.join(f'{p.name} is {p.type}' for p in graph.outputs)}.",
            hint="Export it without ZipMap: options={'zipmap': False} of skl2onnx.",
        )
    sources = [port.name for port in chosen.values()]
    feeds = _feeds(graph, trained.sample)
    meaning, note = (batch, "") if batch != "auto" else batch_axis(graph, sources, feeds, tolerance)
    records = _records(feeds, meaning)
    answers = [graph.run(sources, _alone(record, meaning)) for record in records]
    head = head_of(chosen, meaning, answers[0])
    signature = validated(Signature(fields=override(fields_of(graph, meaning), fields), head=head, outputs=outputs))
    own = [_answer(head, arrays) for arrays in answers]
    parity = _prove(model, signature, records, own, tolerance)
    manifest = Manifest(
        name=name,
        engine="onnx",
        format="onnx",
        model_file="model.onnx",
        framework="ONNX",
        signature=signature,
        metrics=finite_metrics(trained.metrics),
        params=dict(trained.params),
        parity=parity,
        python=platform.python_version(),
        libraries=_libraries(signature),
        source=SourceCard(**vars(trained.source)) if trained.source else None,
        description=description,
        notes="\n\n".join(text for text in (trained.notes, note) if text),
    )
    files = {
        manifest.model_file: model,
        GOLDEN_FILE: golden_tensors.seal(records, own),
        model_card.FILE: model_card.render(manifest).encode(),
    }
    written = artifact.write(folder, manifest, files)
    load_artifact(written, threads=1)  # what cannot be loaded and proven here is never registered
    return written, (note,) if note else ()


def _refuse_tables(trained: Trained) -> None:
    if trained.holdout is not None or trained.threshold is not None:
        raise BadProject(
            "A model of tensors has neither held-out rows nor a threshold.",
            hint="Leave holdout and threshold away: no profile is kept of tensors.",
        )


def _libraries(signature: Signature) -> dict[str, str]:
    names = ["numpy", "onnxruntime"]
    if any(field.image is not None for field in signature.fields):
        names.append("pillow")
    return {name: version(name) for name in names}


def _feeds(graph: Graph, sample: Mapping[str, Any]) -> dict[str, Array]:
    """The sample as arrays of the types that the file takes."""
    named = dict(sample)
    names = [port.name for port in graph.inputs]
    if set(named) == {""}:  # an array without a name
        if len(names) > 1:
            raise BadProject(
                f"The ONNX file takes {len(names)} inputs, and the sample is one array.",
                hint=f"Pass one array for each, as .npz or as a dict: {', '.join(names)}.",
            )
        named = {names[0]: named[""]}
    fields = fields_of(graph, "none")
    whole = tuple(
        msgspec.structs.replace(field, shape=("", *field.shape[1:]) if field.shape else ()) for field in fields
    )
    coder = TensorCoder(Signature(fields=whole, head=Head(kind="tensors", batch="none")))
    try:
        return dict(coder.check([named]).parts[0])
    except BadInput as error:
        shapes = ", ".join(f"{field.name}: {field.dtype} {shape_text(field.shape)}" for field in fields)
        raise BadProject(
            f"The sample does not fit the ONNX file: {error.message.removeprefix('#/records/0/')}",
            hint=f"The file takes {shapes}.",
        ) from None


def _records(feeds: Mapping[str, Array], batch: BatchAxis) -> list[dict[str, Array]]:
    if batch == "none":
        return [dict(feeds)]
    counts = {len(array) if array.ndim else 0 for array in feeds.values()}
    if len(counts) > 1 or 0 in counts:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
        raise BadProject(
            f"The sample does not have as many records of each input: {shapes}.",
            hint="The first axis counts records; if it does not, set batch = 'none'.",
        )
    return [{name: array[i] for name, array in feeds.items()} for i in range(min(counts.pop(), MAX_PROOF_RECORDS))]


def _alone(record: Mapping[str, Array], batch: BatchAxis) -> dict[str, Array]:
    return dict(record) if batch == "none" else {name: array[None] for name, array in record.items()}


def _answer(head: Head, found: Sequence[Array]) -> dict[str, Array]:
    arrays = found if head.batch == "none" else [array[0] for array in found]
    return {output.name: array for output, array in zip(head.tensors, arrays, strict=True)}


def _prove(
    model: bytes, signature: Signature, records: list[dict[str, Array]], own: list[dict[str, Array]], tolerance: float
) -> artifact.Parity:
    """Compare the answers to the records as a caller sends them with those of the file itself, one by one."""
    coder, engine = TensorCoder(signature), TensorEngine(model, signature.head)
    try:
        coded = coder.check([_sent(record) for record in records])
    except BadInput as error:
        raise BadProject(
            f"The sample itself does not match the signature: {error.message}",
            hint="The number after /records/ counts the sample's records from 0. Widen the field's shape.",
        ) from error
    got = engine.run(coded)
    note = f"{len(records)} record{'s' * (len(records) > 1)} of the sample, sent as JSON"
    return golden_tensors.compare(golden_tensors.sampled(own), golden_tensors.sampled(got), tolerance, note=note)


def _sent(record: Mapping[str, Array]) -> dict[str, Any]:
    """The record as JSON brings it; an array with NaN or infinity, which JSON does not have, as it is."""
    plain = {name: array for name, array in record.items() if array.dtype.kind == "f" and not np.isfinite(array).all()}
    lists = {name: array.tolist() for name, array in record.items() if name not in plain}
    return {**msgspec.json.decode(msgspec.json.encode(lists)), **plain}
