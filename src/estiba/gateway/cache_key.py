"""The key of a cached answer: the version of the model, and the row in one form for all ways to write it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from estiba.model.coding.coder import Coded
from estiba.model.inference.load import Model


class Keys:
    """The keys of one version of a model.

    A key is the digest of the artifact, the coded row and its texts, in full: equal keys are equal rows.
    """

    def __init__(self, model: Model) -> None:
        """Take the digest of the artifact."""
        self._digest = bytes.fromhex(model.digest.rpartition(":")[2])
        self._texts = tuple(field.name for field in model.signature.fields if field.kind == "text")
        self._encode = msgspec.msgpack.Encoder().encode

    def of(self, coded: Coded) -> Sequence[bytes]:
        """The keys of rows. -0.0 is 0.0, and all NaN are one: both mean the same to whoever sends them."""
        matrix = coded.matrix + 0.0
        missing = np.isnan(matrix)
        if missing.any():
            matrix[missing] = np.nan
        content, width = matrix.tobytes(), matrix.shape[1] * 8
        if len(matrix) == 1 and not self._texts:
            return (self._digest + content,)
        keys = [self._digest + content[start : start + width] for start in range(0, len(content), width)]
        if self._texts:
            texts = zip(*(coded.texts[name] for name in self._texts), strict=True)
            keys = [key + self._encode(each) for key, each in zip(keys, texts, strict=True)]
        return keys
