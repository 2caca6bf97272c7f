"""Tensors of a caller are exactly of the field's type and shape, or refused with both; sizes are limited."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from estiba.core.errors import BadInput, BadProject, BadRequest
from estiba.model.coding import images, tensor_coder
from estiba.model.coding.tensor_coder import TensorCoder, TooManyElements, tensors_of
from estiba.model.schema.signature import Field, Head, Signature
from estiba.model.schema.signature_checks import validated
from estiba.model.schema.tensor_types import MAX_ELEMENTS, BatchAxis, Image, TensorOutput


def coder(*fields: Field, batch: BatchAxis = "free") -> TensorCoder:
    head = Head(kind="tensors", tensors=(TensorOutput(name="y", dtype="float32"),), batch=batch)
    return TensorCoder(validated(Signature(fields=fields, head=head)))


def field(dtype: str = "float32", shape: tuple[int | str, ...] = (3,), **more: Any) -> Field:
    return Field(name="x", kind="tensor", dtype=dtype, shape=shape, **more)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("float32", [1, 2.5, -3]),
        ("float64", [0.1, 1e300, 5]),
        ("float16", [1.5, 0, 2]),
        ("int64", [2**62, -(2**63), 0]),
        ("int8", [-128, 127, 0]),
        ("uint8", [0, 255, 1]),
        ("uint64", [2**64 - 1, 0, 1]),
        ("bool", [True, False, True]),
        ("string", ["a", "", "ñ"]),
    ],
)
def test_lists_become_arrays_of_the_type(dtype: str, value: list[Any]) -> None:
    (part,) = coder(field(dtype)).check([{"x": value}]).parts
    assert part["x"].dtype == np.dtype(object if dtype == "string" else dtype)
    assert part["x"].tolist() == [value]


@pytest.mark.parametrize(
    ("given", "value", "reason"),
    [
        (field(), [1, 2], "expected float32 of shape [3], got shape [2]"),
        (field(), [[1, 2, 3]], "expected float32 of shape [3], got shape [1, 3]"),
        (field(), 1.0, "expected float32 of shape [3], got 1"),
        (field(), [1, "2", 3], "expected float32 of shape [3], got a string at [1]"),
        (field(), [1, None, 3], "expected float32 of shape [3], got null at [1]"),
        (field(), [1, True, 3], "expected float32 of shape [3], got a boolean at [1]"),
        (field(), None, "expected float32 of shape [3], got null"),
        (field(), [1, 1e39, 3], "has a value that does not fit into float32: 1e+39"),
        (field("int32"), [1, 2.5, 3], "expected int32 of shape [3], got a number at [1]"),
        (field("int32"), [1, 2**31, 3], "has a value that does not fit into int32: 2147483648"),
        (field("int64"), [1, 2**63, 3], "has a value that does not fit into int64"),
        (field("uint8"), [1, -1, 3], "has a value that does not fit into uint8"),
        (field("bool"), [1, 0, 1], "expected bool of shape [3], got an integer at [0]"),
        (field("string"), ["a", 1, "c"], "expected string of shape [3], got an integer at [1]"),
        (field(shape=(2, "w")), [[1, 2], [3]], "expected float32 of shape [2, w], got arrays of unequal lengths"),
        (field(shape=(2, "")), [[], []], "expected float32 of shape [2, ?], got shape [2, 0]"),
        (field(shape=()), [1], "expected float32 of shape [], got shape [1]"),
        (field(), np.zeros((3, 1), np.float32), "expected float32 of shape [3], got float32 of shape [3, 1]"),
        (field("int32"), np.zeros(3), "expected int32 of shape [3], got float64 of shape [3]"),
        (field("float32"), np.array([1, 2**24 + 1, 3]), "has a value that does not fit into float32: 16777217"),
        (field("bool"), np.zeros(3, np.int8), "expected bool of shape [3], got int8 of shape [3]"),
        (field(max_elements=4, shape=("n",)), [0] * 5, "expected at most 4 elements, got 5"),
        (field(), "AAAA", 'expected float32 of shape [3], got "AAAA"'),
        (field(), b"AAAA", "expected float32 of shape [3], got bytes; the field takes no images"),
    ],
)
def test_what_is_not_the_field_is_named_with_both(given: Field, value: Any, reason: str) -> None:
    with pytest.raises(BadInput) as caught:
        coder(given).check([{"x": value}])
    assert [(p.pointer, p.detail) for p in caught.value.problems] == [("#/records/0/x", reason)]


def test_wrong_keys_are_named_beside_wrong_values() -> None:
    with pytest.raises(BadInput) as caught:
        coder(field(), Field(name="why", kind="tensor", dtype="bool")).check([{"x": [1], "wy": True}, 3])
    told = {p.pointer: p.detail for p in caught.value.problems}
    assert told == {
        "#/records/0/x": "expected float32 of shape [3], got shape [1]",
        "#/records/0/wy": "the model has no such field; did you mean 'why'?",
        "#/records/0/why": "missing; expected bool of shape []",
        "#/records/1": "expected an object, got 3",
    }


def test_records_of_equal_shapes_are_stacked_and_others_are_not() -> None:
    coded = coder(field(shape=("n",))).check([{"x": [1, 2]}, {"x": [3, 4]}, {"x": [5]}, {"x": [6, 7]}])
    assert coded.counts == (2, 1, 1)
    assert [part["x"].tolist() for part in coded.parts] == [[[1, 2], [3, 4]], [[5]], [[6, 7]]]
    whole = coder(field(shape=("n",)), batch="none").check([{"x": [1, 2]}, {"x": [3, 4]}])
    assert whole.counts == (1, 1)
    assert [part["x"].tolist() for part in whole.parts] == [[1, 2], [3, 4]]


def test_elements_of_one_request_are_limited_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_coder, "MAX_REQUEST_ELEMENTS", 5)
    with pytest.raises(TooManyElements, match="record 1 is beyond"):
        coder(field()).check([{"x": [1, 2, 3]}, {"x": [1, 2, 3]}])
    with pytest.raises(TooManyElements):
        coder(field()).check_stacked({"x": np.zeros((2, 3), np.float32)})


def test_pixels_of_one_request_are_limited_together(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    Pillow.new("RGB", (50, 40)).save(file, "PNG")
    pixels = coder(field("uint8", (2, 2, 3), image=Image(resize=True)))
    monkeypatch.setattr(images, "MAX_REQUEST_PIXELS", 4000)
    assert len(pixels.check([{"x": file.getvalue()}] * 2)) == 2
    with pytest.raises(TooManyElements, match="4,000 pixels together"):
        pixels.check([{"x": file.getvalue()}] * 3)


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i4"])
def test_the_other_byte_order_is_turned(dtype: str) -> None:
    found = tensors_of(coder(field()), np.array([[1, 2, 3]], dtype)).parts[0]["x"]
    assert found.dtype.isnative
    assert found.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("rows", [{"x": np.ones((2, 3))}, np.ones((2, 3)), [np.ones(3), np.ones(3)], [[1, 1, 1]] * 2])
def test_rows_as_a_notebook_has_them(rows: Any) -> None:
    coded = tensors_of(coder(field()), rows)
    assert len(coded) == 2
    assert np.array_equal(np.concatenate([part["x"] for part in coded.parts]), np.ones((2, 3)))


def test_arrays_of_many_records_are_checked_as_one() -> None:
    two = coder(field(), Field(name="t", kind="tensor", dtype="int64"))
    coded = two.check_stacked({"x": np.ones((4, 3), np.float32), "t": np.arange(4)})
    assert (coded.counts, len(coded)) == ((4,), 4)
    with pytest.raises(BadInput, match="expected as many records of each field, got 4 of x, 3 of t"):
        two.check_stacked({"x": np.ones((4, 3), np.float32), "t": np.arange(3)})
    with pytest.raises(BadInput, match=r"expected float32 of shape \[records, 3\], got float32 of shape \[4, 2\]"):
        two.check_stacked({"x": np.ones((4, 2), np.float32), "t": np.arange(4)})
    with pytest.raises(BadRequest):
        tensors_of(two, 5)


PIXELS = np.random.default_rng(0).integers(0, 256, (5, 4, 3)).astype(np.uint8)


def encoded(pixels: Any = PIXELS, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, kind)
    return file.getvalue()


def image_field(shape: tuple[int | str, ...] = (3, "h", "w"), dtype: str = "float32", **image: Any) -> Field:
    return field(dtype, shape, image=Image(**image))


def one(given: Field, value: Any) -> Any:
    return coder(given).check([{"x": value}]).parts[0]["x"][0]


@pytest.mark.parametrize("form", [encoded(), base64.b64encode(encoded()).decode()])
def test_an_image_becomes_its_pixels(form: Any) -> None:
    assert np.array_equal(one(image_field(), form), PIXELS.transpose(2, 0, 1).astype(np.float32))
    assert np.array_equal(one(image_field(("h", "w", 3), "uint8"), form), PIXELS)
    assert np.array_equal(one(image_field((5, 4, 3), "uint8", mode="bgr"), form), PIXELS[..., ::-1])
    gray = np.asarray(Pillow.fromarray(PIXELS).convert("L"))
    assert np.array_equal(one(image_field(("h", "w"), "uint8", mode="gray"), form), gray)
    assert np.array_equal(one(image_field((1, 5, 4), "uint8", mode="gray"), form), gray[None])


def test_an_image_is_scaled_and_centred_by_channel() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    got = one(image_field(scale=1 / 255, mean=mean, std=std), encoded())
    expected = (PIXELS.astype(np.float32) * np.float32(1 / 255) - np.float32(mean)) / np.float32(std)
    assert got.dtype == np.float32
    assert np.array_equal(got, expected.transpose(2, 0, 1))


def test_an_image_of_another_size_is_stretched_only_if_asked() -> None:
    with pytest.raises(BadInput, match=r"expected an image of height and width \[8, 6\], got \[5, 4\]"):
        one(image_field((3, 8, 6)), encoded())
    got = one(image_field((8, 6, 3), "uint8", resize=True), encoded())
    assert np.array_equal(got, np.asarray(Pillow.fromarray(PIXELS).resize((6, 8), Pillow.Resampling.BILINEAR)))


def test_a_jpeg_is_read_too() -> None:
    content = encoded(kind="JPEG")
    assert np.array_equal(
        one(image_field(("h", "w", 3), "uint8"), content), np.asarray(Pillow.open(io.BytesIO(content)))
    )


def bomb() -> bytes:
    """A PNG of a few kilobytes that says it has 400 million pixels."""
    file = io.BytesIO()
    Pillow.new("1", (20_000, 20_000)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"not an image", "expected a JPEG or PNG, and these bytes are not one"),
        (encoded()[:60], "expected a JPEG or PNG"),
        (encoded(kind="GIF"), "expected a JPEG or PNG"),
        ("%%%", "in base64, got a string that is not base64"),
        (bomb(), "pixels"),
    ],
)
def test_what_is_no_image_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(BadInput) as caught:
        one(image_field(), value)
    assert caught.value.problems[0].pointer == "#/records/0/x"
    assert reason in caught.value.problems[0].detail


def test_an_image_of_more_elements_than_the_field_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(BadInput, match="an image of 4 x 5 in rgb has more than 59 elements"):
        one(field("uint8", ("h", "w", 3), image=Image(), max_elements=59), encoded())


@pytest.mark.parametrize(
    "wrong",
    [
        image_field((4, "h", "w")),
        image_field(("h", "w")),
        image_field((3, "h", "w"), "int64"),
        image_field((3, "h", "w"), "uint8", scale=0.5),
        image_field(std=(0.0,)),
        image_field(mean=(1.0, 2.0)),
        image_field(resize=True),
        field(shape=(1,) * 9),
        field(shape=(2**25,)),
        field(max_elements=MAX_ELEMENTS + 1),
        field(nullable=True),
        field(minimum=1.0),
    ],
)
def test_a_field_that_contradicts_itself_is_refused(wrong: Field) -> None:
    with pytest.raises(BadProject):
        coder(wrong)
