"""Read and write the skops format: estimators without code, in bytes that depend on the model alone."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from typing import Any

import numpy as np

from estiba.core.errors import BadArtifact, NotTrusted
from estiba.model.estimators.object_graph import reachable
from estiba.model.estimators.tree_checks import fault

_EPOCH = (1980, 1, 1, 0, 0, 0)

_SKLEARN = {
    "calibration": "_CalibratedClassifier _SigmoidCalibration",
    "compose._column_transformer": "make_column_selector _RemainderColsList",
    "ensemble._hist_gradient_boosting.predictor": "TreePredictor",
    "feature_selection._mutual_info": "mutual_info_classif mutual_info_regression",
    "feature_selection._univariate_selection": "chi2 f_classif f_oneway f_regression r_regression",
    "gaussian_process._gpc": "_BinaryGaussianProcessClassifierLaplace",
    "gaussian_process.kernels": (
        "CompoundKernel ConstantKernel DotProduct ExpSineSquared Exponentiation Hyperparameter Matern Product RBF "
        "RationalQuadratic Sum WhiteKernel"
    ),
    "metrics._scorer": "_CurveScorer _PassthroughScorer _Scorer",
    "metrics._classification": (
        "accuracy_score balanced_accuracy_score f1_score fbeta_score matthews_corrcoef precision_score recall_score"
    ),
    "metrics._dist_metrics": "ChebyshevDistance64 EuclideanDistance64 ManhattanDistance64",
    "model_selection._split": "GroupKFold KFold StratifiedKFold TimeSeriesSplit",
    "multiclass": "_ConstantPredictor",
    "neighbors._ball_tree": "BallTree",
    "neighbors._kd_tree": "KDTree",
    "neural_network._stochastic_optimizers": "AdamOptimizer SGDOptimizer",
    "preprocessing._function_transformer": "_identity",
    "tree._tree": "Tree",
    "utils._bunch": "Bunch",
    "utils._metadata_requests": "MetadataRequest MethodMetadataRequest",
    "utils.validation": "check_array",
    "_loss.loss": "HalfTweedieLoss HalfTweedieLossIdentity",
}

_OTHERS = (
    "catboost.core.CatBoost",
    "catboost.core.CatBoostClassifier",
    "catboost.core.CatBoostRegressor",
    "collections.OrderedDict",
    "functools.partial",  # what it calls is looked at by itself
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
    "lightgbm.sklearn.LGBMRanker",
    "lightgbm.sklearn.LGBMRegressor",
    "numpy.dtype",
    "numpy.max",
    "numpy.mean",
    "numpy.median",
    "numpy.min",
    "scipy._lib.array_api_compat.numpy._aliases.asarray",
    "scipy.interpolate._bsplines.BSpline",
    "scipy.interpolate._interpolate.interp1d",
    "scipy.sparse._csr.csr_matrix",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
    "xgboost.sklearn.XGBRFClassifier",
    "xgboost.sklearn.XGBRFRegressor",
    "xgboost.sklearn.XGBRanker",
    "xgboost.sklearn.XGBRegressor",
)

TRUSTED: tuple[str, ...] = (
    *(f"sklearn.{module}.{name}" for module, names in _SKLEARN.items() for name in names.split()),
    *_OTHERS,
)
"""Types beyond skops' own list that run no code of the file when they are read and used.

skops leaves the tree types out because a forged tree can make scikit-learn read beyond its arrays; here `loads` checks
the trees instead.
"""


def dumps(model: object) -> bytes:
    """The model as a skops file, the same bytes for equal models in any process. Errors of skops pass through."""
    import skops.io

    return _canonical(skops.io.dumps(model))


def loads(content: bytes, name: str, *, trust: bool = False) -> Any:
    """Read a skops file.

    Args:
        name: of the file, for messages.
        trust: allow types beyond skops' list and `TRUSTED`.

    Raises:
        NotTrusted: it holds other types; names them. BadArtifact: a tree in it points outside itself.
    """
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        model = skops.io.loads(content, trusted=TRUSTED)
    except UntrustedTypesFoundException:
        unknown = sorted(set(skops.io.get_untrusted_types(data=content)) - set(TRUSTED))
        if not trust:
            raise NotTrusted(
                f"{name} holds types that are not known to be harmless: {', '.join(unknown)}.",
                hint="If you trust the author of this file, load it with --trust (trust=True in Python).",
            ) from None
        model = skops.io.loads(content, trusted=[*TRUSTED, *unknown])
    for item in reachable(model):
        problem = fault(item)
        if problem:
            raise BadArtifact(f"{name} is damaged or forged: {problem}.", hint="Save the model again and pack that.")
    return model


def _canonical(content: bytes) -> bytes:
    """The same model with identities numbered in order of appearance, and members named by their content's rank."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        schema = json.loads(archive.read("schema.json"))
        members = {name: archive.read(name) for name in archive.namelist() if name != "schema.json"}
    rewriting = _Rewriting(members)
    rewriting.node(schema)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, "schema.json", json.dumps(schema, separators=(",", ":")).encode())
        for digest, name in rewriting.names.items():
            _add(archive, name, rewriting.contents[digest])
    return written.getvalue()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system = 3  # the same on every platform
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content)


class _Rewriting:
    """One pass over a skops schema, in place."""

    def __init__(self, members: dict[str, bytes]) -> None:
        self.members = members
        self.contents: dict[str, bytes] = {}
        self.names: dict[str, str] = {}
        self.identities: dict[int, int] = {}

    def node(self, node: Any) -> None:
        if isinstance(node, list):
            for child in node:
                self.node(child)
        elif isinstance(node, dict):
            self._renumber(node)
            if node.get("__loader__") == "SetNode":
                node["content"].sort(key=lambda child: json.dumps(_nameless(child), sort_keys=True))
            for child in node.values():
                self.node(child)
            if isinstance(node.get("file"), str) and "__loader__" in node:
                node["file"] = self._member(node["file"])

    def _renumber(self, node: dict[str, Any]) -> None:
        identity = node.get("__id__")
        if node.get("__loader__") in ("JsonNode", "TypeNode"):
            # Identity of equal strings is an accident of the process and has no meaning.
            node.pop("__id__", None)
        elif isinstance(identity, int):
            node["__id__"] = self.identities.setdefault(identity, len(self.identities) + 1)
        if node.get("__class__") in ("KDTree", "BallTree") and node.get("__loader__") == "ObjectNode":
            for counter in node["content"]["content"][7:11]:  # counters of its queries
                counter["content"] = "0"
        stop_words = node.get("_stop_words_id")
        if isinstance(stop_words, dict) and stop_words.get("__loader__") == "JsonNode":
            stop_words["content"] = "0"  # a memory address, which scikit-learn's text vectorisers remember

    def _member(self, name: str) -> str:
        content = _without_padding(self.members[name])
        digest = hashlib.sha256(content).hexdigest()
        self.contents[digest] = content
        return self.names.setdefault(digest, f"{len(self.names)}.{name.rpartition('.')[2]}")


def _without_padding(content: bytes) -> bytes:
    """The content without the padding between the fields of a tree's nodes, which is uninitialised memory."""
    if not content.startswith(b"\x93NUMPY") or b"'descr': [" not in content[:128]:
        return content
    buffer = io.BytesIO()
    np.save(buffer, unpadded(np.load(io.BytesIO(content), allow_pickle=False)), allow_pickle=False)
    return buffer.getvalue()


def unpadded(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A structured array with zeros between its fields."""
    clean = np.zeros(array.shape, array.dtype)
    for field in array.dtype.names or ():
        clean[field] = array[field]
    return clean


def _nameless(node: Any) -> Any:
    """A node without the parts that differ between processes, for sorting."""
    if isinstance(node, dict):
        return {key: _nameless(value) for key, value in node.items() if key not in ("__id__", "file")}
    return [_nameless(value) for value in node] if isinstance(node, list) else node
