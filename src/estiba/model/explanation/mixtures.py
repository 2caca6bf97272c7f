"""Mixtures of the explained row and background rows: some fields of the first, the others of one of the second."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from estiba.model.coding.coder import Coded, Matrix

Masks = npt.NDArray[np.bool_]


class Mixer:
    """Builds mixtures of one row with background rows.

    Args:
        row: the explained row, in coded form.
        background: rows of the same fields.
        text_fields: by name of a text field, its position among the fields.
    """

    def __init__(self, row: Coded, background: Coded, text_fields: dict[str, int]) -> None:
        self.row = row
        self.background = background
        self._text_fields = text_fields

    @property
    def fields(self) -> int:
        return int(self.row.matrix.shape[1])

    def mix(self, masks: Masks, background: npt.NDArray[np.int_]) -> Coded:
        """One row for each mask: true fields are those of the explained row, the others of a background row.

        Args:
            masks: of shape (rows, fields).
            background: for each mask, the position of its background row.
        """
        matrix: Matrix = np.where(masks, self.row.matrix[0], self.background.matrix[background])
        texts = {}
        for name, column in self._text_fields.items():
            own, others = self.row.texts[name][0], self.background.texts[name]
            chosen = zip(masks[:, column].tolist(), background.tolist(), strict=True)
            texts[name] = [own if mine else others[other] for mine, other in chosen]
        return Coded(np.ascontiguousarray(matrix), texts)

    def with_every_background(self, masks: Masks) -> Coded:
        """Each mask with each background row, the rows of a mask side by side."""
        count = len(self.background)
        return self.mix(np.repeat(masks, count, axis=0), np.tile(np.arange(count), len(masks)))

    def differing(self) -> npt.NDArray[np.int_]:
        """The fields in which the explained row differs from any background row."""
        own, others = self.row.matrix[0], self.background.matrix
        differs = ((others != own) & ~(np.isnan(others) & np.isnan(own))).any(axis=0)
        for name, column in self._text_fields.items():
            differs[column] = any(text != self.row.texts[name][0] for text in self.background.texts[name])
        return np.flatnonzero(differs)
