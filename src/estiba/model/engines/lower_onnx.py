"""Lower a graph of ONNX to columns.

Operations that only arrange numbers cost nothing; the rest runs once for each row."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from estiba.model.engines import trees
from estiba.model.engines.columns import Columns, Numbers
from estiba.model.engines.onnx_reader import DOUBLE, FLOAT, INT64, Graph, Node, NotRecognised
from estiba.model.engines.rules import RULES, Minimum, Rows, Tensor

TREES = "ai.onnx.ml:TreeEnsemble"


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Trees to walk: parts of a forest one after the other, and where leaves are vectors, those."""

    parts: tuple[tuple[trees.Forest, trees.Ranks], ...]
    rows: Numbers | None


@dataclass(frozen=True, eq=False)
class Walked:
    """A forest as the graph has it, and the columns that hold its answers.

    Args:
        rows: where leaves are positions in a table of vectors, that table.
    """

    forest: trees.Forest
    rows: Numbers | None
    answers: tuple[int, ...]


def lower(
    graph: Graph, columns: Columns, width: int, text_columns: int = 0, *, walked: list[Walked] | None = None
) -> tuple[int, ...]:
    """The columns that form the graph's output `y`.

    Args:
        columns: with the inputs that make up `x`, (rows, fields) in float64.
        width: how many columns `y` must have.
        text_columns: how many inputs at the end make up `t`, the numbers of texts.
        walked: receives the forests of the graph, which are large.

    Raises:
        NotRecognised: some node has no exact form here.
    """
    lowering = _Lowering(graph, columns, text_columns, walked)
    lowering.run()
    y = lowering.tensors.get("y")
    if not isinstance(y, Rows) or y.type != DOUBLE or y.columns.shape != (1, width):
        raise NotRecognised("the output is not what the signature says")
    return tuple(int(c) for c in y.columns[0])


class _Lowering:
    def __init__(self, graph: Graph, columns: Columns, text_columns: int, walked: list[Walked] | None) -> None:
        self.graph = graph
        self.walked = walked
        self.columns = columns
        fields = len(columns.inputs) - text_columns
        inputs = np.asarray([columns.inputs], np.int64)
        self.tensors: dict[str, Tensor] = {"x": Rows(inputs[:, :fields]), **graph.constants}
        if text_columns:
            self.tensors["t"] = Rows(inputs[:, fields:])
        self.uses = Counter(name for node in graph.nodes for name in node.inputs)
        self.done: set[int] = set()

    def run(self) -> None:
        for node in self.graph.nodes:
            if id(node) in self.done:
                continue
            try:
                with np.errstate(all="ignore"):
                    self.tensors[node.outputs[0]] = self._node(node)
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                raise NotRecognised(f"{node.kind} has a form without a rule: {error}") from error

    def _node(self, node: Node) -> Tensor:
        if len(node.outputs) != 1:
            raise NotRecognised(f"{node.kind} has several outputs")
        if node.kind == TREES:
            return self._trees(node)
        if node.kind == "If":
            return self._if(node)
        rule = RULES.get(node.kind)
        if rule is None:
            raise NotRecognised(f"there is no rule for {node.kind}")
        return rule(self.columns, [self._tensor(name) for name in node.inputs], node.attributes)

    def _tensor(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise NotRecognised(f"the graph asks for {name!r}, which nothing makes")
        return self.tensors[name]

    def _follower(self, name: str, kind: str) -> Node:
        """The only node that uses a tensor, of that kind; raises NotRecognised."""
        found = [node for node in self.graph.nodes if name in node.inputs]
        if len(found) != 1 or self.uses[name] != 1 or found[0].kind != kind:
            raise NotRecognised("trees answer in a form without a rule")
        return found[0]

    def _trees(self, node: Node) -> Tensor:
        forest = self._forest(node)
        if forest.targets == len(forest.roots) and self._are_numbers(node, forest):
            return self._vectors(node, forest)
        if forest.targets > trees.MAX_TARGETS:
            raise NotRecognised("trees answer with too many numbers")
        return Rows(self._walk(forest, None, forest.targets), FLOAT if forest.single else DOUBLE)

    def _forest(self, node: Node) -> trees.Forest:
        (name,) = node.inputs
        x = self._tensor(name)
        if not isinstance(x, Rows) or x.type not in (FLOAT, DOUBLE) or x.columns.ndim != 2:
            raise NotRecognised("trees are asked about something else than numbers")
        if not all(self.columns.known[c].exact for c in x.columns[0]):
            raise NotRecognised("what trees compare is computed in a way that may differ in its last bit")
        return trees.read_forest(node.attributes, self.columns, x.columns[0].tolist(), x.type == FLOAT)

    def _are_numbers(self, node: Node, forest: trees.Forest) -> bool:
        """Check that the leaves are positions in a table of vectors, which the nodes after it look up."""
        users = [user.kind for user in self.graph.nodes if node.outputs[0] in user.inputs]
        return users == ["Cast"] and not forest.single and self._cast_of(node).attributes.get("to") == INT64

    def _cast_of(self, node: Node) -> Node:
        return self._follower(node.outputs[0], "Cast")

    def _vectors(self, node: Node, forest: trees.Forest) -> Tensor:
        """Trees, Cast, Gather and then the sum in order (or one tree's answer) as one step."""
        cast = self._cast_of(node)
        gather = self._follower(cast.outputs[0], "Gather")
        rows = self._table(gather)
        skipped = [cast, gather]
        if len(forest.roots) == 1:
            last = self._follower(gather.outputs[0], "Squeeze")
            self._expect(last.inputs[1], [1])
        else:
            total = self._follower(gather.outputs[0], "CumSum")
            last = self._follower(total.outputs[0], "Gather")
            self._expect(total.inputs[1], 1)
            self._expect(last.inputs[1], -1)
            if any(total.attributes.values()) or last.attributes.get("axis") != 1:
                raise NotRecognised("leaves are added in a form without a rule")
            skipped.append(total)
        self.done |= {id(n) for n in (*skipped, last)}
        self.tensors[last.outputs[0]] = Rows(self._walk(forest, rows, rows.shape[1]))
        return np.zeros(0)

    def _table(self, gather: Node) -> Numbers:
        """The table of vectors that leaves are positions in."""
        rows = self._tensor(gather.inputs[0])
        if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype != np.float64:
            raise NotRecognised("leaves are looked up in a form without a rule")
        if gather.attributes.get("axis", 0) != 0 or rows.shape[1] > trees.MAX_TARGETS:
            raise NotRecognised("leaves are looked up in a form without a rule")
        return rows

    def _expect(self, name: str, value: Any) -> None:
        found = self._tensor(name)
        if not isinstance(found, np.ndarray) or not np.array_equal(found, value):
            raise NotRecognised("leaves are added in a form without a rule")

    def _walk(self, forest: trees.Forest, rows: Numbers | None, width: int) -> npt.NDArray[np.int64]:
        """Columns for what an ensemble answers, shape (1, width)."""
        ensemble, asked = self._ensemble(forest, rows)
        first = self.columns.special("trees", asked, ensemble, exact=True)
        others = [self.columns.special("target", (first,), k, exact=True) for k in range(1, width)]
        if self.walked is not None:
            self.walked.append(Walked(forest, rows, (first, *others)))
        return np.asarray([[first, *others]], np.int64)

    def _ensemble(self, forest: trees.Forest, rows: Numbers | None) -> tuple[Ensemble, list[int]]:
        """The ensemble of a forest, and the columns that it reads."""
        parts = tuple(trees.parts(forest, self.columns))
        asked = {f[0] for _, ranks in parts for f in ranks.features}
        asked |= {self.columns.inputs[found.category] for _, ranks in parts for found in ranks.lookups}
        return Ensemble(parts, rows), sorted(asked)

    def _if(self, node: Node) -> Tensor:
        """Votes near a tie are counted for the first class too. ONNX Runtime does so for all rows or none; here each
        row is looked at on its own, so that no answer depends on the other rows of a batch."""
        near = self._tensor(node.inputs[0])
        branches = [node.attributes.get(f"{name}_branch") for name in ("then", "else")]
        if not isinstance(near, Minimum) or near.limit is None or not all(isinstance(b, Graph) for b in branches):
            raise NotRecognised("there is no rule for If")
        exact, plain = (b.nodes for b in branches if isinstance(b, Graph))
        if [n.kind for n in exact] != [TREES] or [n.kind for n in plain] != ["Sub"]:
            raise NotRecognised("there is no rule for what If decides")
        total, votes = (self._tensor(name) for name in plain[0].inputs)
        if not isinstance(votes, Rows) or votes.columns.shape != (1, 1) or not isinstance(total, np.ndarray):
            raise NotRecognised("there is no rule for what If decides")
        number = int(votes.columns[0, 0])
        half = self._half(near, number)
        forest = self._forest(exact[0])
        if forest.targets != 1 or forest.single:
            raise NotRecognised("there is no rule for what If decides")
        ensemble, asked = self._ensemble(forest, None)
        limits = (float(total), half, near.limit)
        column = self.columns.special("rest", (number, *asked), (limits, ensemble), exact=True)
        return Rows(np.asarray([[column]], np.int64))

    def _half(self, near: Minimum, votes: int) -> float:
        """The number that the distance of the votes is measured from."""
        known = self.columns.known
        if near.of.columns.shape == (1, 1):
            distance = known[int(near.of.columns[0, 0])]
            apart = known[distance.args[0]] if distance.op == "absolute" else distance
            if apart.op == "subtract" and apart.args[0] == votes:
                half = self.columns.value(apart.args[1])
                if half is not None:
                    return half
        raise NotRecognised("there is no rule for what If asks")
