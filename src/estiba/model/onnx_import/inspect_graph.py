"""Read the inputs and outputs of a user's ONNX graph from its file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from estiba.core.errors import EstibaError
from estiba.model.schema.signature import Label

NUMBERS = ("float", "double", "float16")
WHOLE = ("int64", "int32", "int16", "int8", "uint8")


@dataclass(frozen=True)
class Input:
    """One input of a graph: `width` columns of one type; `levels` that an encoder right behind it lists."""

    name: str
    type: str
    width: int
    flat: bool
    levels: tuple[str, ...] = ()
    forgiving: bool = False


@dataclass(frozen=True)
class Output:
    """The outputs of a graph: `scores` is a tensor, and `shown` the output that holds it or its ZipMap."""

    label: str
    scores: str
    shown: str
    classes: tuple[tuple[Label, ...], ...]


def read(model: bytes) -> Any:
    import onnx

    try:
        proto = onnx.load_model_from_string(model)
    except Exception as error:  # protobuf raises its own types
        raise EstibaError(f"This is no ONNX file: {error}") from error
    if any(t.data_location == onnx.TensorProto.EXTERNAL for t in proto.graph.initializer):
        raise EstibaError(
            "The ONNX file keeps its weights in other files.",
            hint="Save it in one file: onnx.save(onnx.load(path), path).",
        )
    oldest = min((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=13)
    if oldest < 9:
        raise EstibaError(
            f"The ONNX file is of opset {oldest}.", hint="Export it with opset 9 or newer; 17 is a good one."
        )
    return proto


def inputs_of(proto: Any, columns: int | None) -> tuple[Input, ...]:
    """The graph's inputs. `columns`: how many there are in all, where one input leaves it open."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    given = [value for value in proto.graph.input if value.name not in constants]
    return tuple(_input(proto, value, columns if len(given) == 1 else None) for value in given)


def _input(proto: Any, value: Any, columns: int | None) -> Input:
    tensor = value.type.tensor_type
    type_name = _type(tensor)
    dims = (
        [d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim]
        if tensor.HasField("shape")
        else [0, 0]
    )
    if type_name not in (*NUMBERS, *WHOLE, "bool", "string") or len(dims) not in (1, 2):
        raise EstibaError(
            f"The ONNX input {value.name!r} is {type_name or 'not a tensor'} of {len(dims)} dimensions.",
            hint="With a table as its sample, a model takes inputs of shape [rows, columns] or [rows]. Pass the sample "
            "as arrays, in a .npy or .npz file, to pack it as a model of tensors.",
        )
    if dims[0] > 0:
        raise EstibaError(
            f"The ONNX input {value.name!r} takes exactly {dims[0]} row{'s' * (dims[0] > 1)} at a time.",
            hint="Pass the sample as arrays, in a .npy or .npz file: the file then runs on one record after the other. "
            "Or export it with a free first dimension: dynamic_axes of torch.onnx.export, FloatTensorType([None, 4]) "
            "of skl2onnx.",
        )
    width = 1 if len(dims) == 1 else dims[1] or columns or 0
    if not width:
        raise EstibaError(
            f"The ONNX input {value.name!r} does not say how many columns it has.",
            hint="Pass a sample of rows, or export the model with its number of columns.",
        )
    levels, forgiving = _levels(proto, value.name) if type_name == "string" and width == 1 else ((), False)
    return Input(value.name, type_name, width, len(dims) == 1, levels, forgiving)


def element_type(value: Any) -> str:
    """The element type of an input or output, as ONNX calls it in small letters; empty where it is no tensor."""
    return _type(value.type.tensor_type)


def _type(tensor: Any) -> str:
    import onnx

    name = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    return "" if name == "undefined" else name


def _levels(proto: Any, name: str) -> tuple[tuple[str, ...], bool]:
    """Levels that an encoder fed by this input lists, and whether it takes others too."""
    import onnx

    for node in proto.graph.node:
        if name in node.input:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type in ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Gather"):
                return _levels(proto, node.output[0])
            listed = attributes.get("cats_strings") or attributes.get("keys_strings") or []
            return tuple(level.decode() for level in listed), attributes.get("zeros", 0) == 1
    return (), False


def spread(inputs: Sequence[Input]) -> list[Input]:
    """The input of each column."""
    return [part for part in inputs for _ in range(part.width)]


def output_of(proto: Any) -> Output:
    import onnx

    zips = {node.output[0]: node for node in proto.graph.node if node.op_type == "ZipMap"}
    label, scores = [], []
    for value in proto.graph.output:
        type_name = _type(value.type.tensor_type)
        if value.name in zips or type_name in NUMBERS:
            scores.append(value.name)
        elif type_name in (*WHOLE, "string"):
            label.append(value.name)
    if len(scores) != 1 or len(label) > 1:
        names = ", ".join(value.name for value in proto.graph.output)
        what = "only labels" if label and not scores else "something else than one label and one set of numbers"
        raise EstibaError(
            f"The ONNX model answers {what}: its outputs are {names}.",
            hint="Choose its outputs: outputs.tensors of the model, such as {probability = 'the name in the file'}.",
        )
    shown = scores[0]
    classes = list(_listed_classes(proto))
    if shown in zips:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in zips[shown].attribute}
        classes.insert(0, _plain(attributes.get("classlabels_strings") or attributes.get("classlabels_int64s") or []))
    source = zips[shown].input[0] if shown in zips else shown
    return Output(label[0] if label else "", source, shown, tuple(classes))


def _listed_classes(proto: Any) -> Iterator[tuple[Label, ...]]:
    """Every list in the graph that could be its classes."""
    import onnx

    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.name in ("classlabels_strings", "classlabels_int64s", "classlabels_ints", "values_strings"):
                yield _plain(onnx.helper.get_attribute_value(attribute))
    for tensor in proto.graph.initializer:
        if len(tensor.dims) == 1 and tensor.data_type in (onnx.TensorProto.INT64, onnx.TensorProto.STRING):
            yield _plain(onnx.numpy_helper.to_array(tensor).tolist())


def _plain(values: Sequence[Any]) -> tuple[Label, ...]:
    return tuple(v.decode() if isinstance(v, bytes) else v for v in values)


def bare(proto: Any, output: Output) -> Any:
    """The graph without ZipMap, and with its tensors as outputs."""
    import onnx

    left = onnx.ModelProto()
    left.CopyFrom(proto)
    nodes = [node for node in proto.graph.node if node.op_type != "ZipMap"]
    del left.graph.node[:], left.graph.output[:], left.opset_import[:]
    left.graph.node.extend(nodes)
    left.graph.output.extend(onnx.ValueInfoProto(name=name) for name in (output.scores, output.label) if name)
    versions = {"": 17, **{("" if e.domain == "ai.onnx" else e.domain): e.version for e in proto.opset_import}}
    versions.setdefault("ai.onnx.ml", 2)
    left.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in sorted(versions.items()))
    left.ir_version = max(proto.ir_version, 8)
    return left
