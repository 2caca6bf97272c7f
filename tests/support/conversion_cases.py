"""Define the models of the conversion table, fitted on small seeded data and tested on difficult rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

ROWS = 400


@dataclass(frozen=True)
class Case:
    """One line of the table.

    data: `numbers`, `counts` (small whole numbers), `mixed` or `categories` (mixed, in pandas' own
    category type). classes: 0 for a regression, 1 for outliers.
    """

    name: str
    make: Callable[[], Any]
    classes: int
    data: str = "numbers"
    missing: bool = False
    unseen: bool = False

    def fit(self) -> tuple[Any, pd.DataFrame]:
        """The fitted model and its training rows."""
        sample = frame(self.data, self.missing)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = self.make()
            return model.fit(sample, target(sample, self.classes)), sample


def frame(data: str, missing: bool) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    if data == "counts":
        return pd.DataFrame(rng.integers(0, 9, (ROWS, 4)), columns=list("abcd"))
    if data == "numbers":
        made = pd.DataFrame(rng.normal(0.2, 1.5, (ROWS, 4)), columns=list("abcd"))
        made["b"] = made["b"].round(1)
    else:
        made = pd.DataFrame(
            {
                "age": rng.integers(18, 90, ROWS),
                "balance": rng.gamma(2.0, 900.0, ROWS).round(2),
                "country": rng.choice(["ES", "FR", "DE", "PT"], ROWS, p=[0.5, 0.3, 0.18, 0.02]),
                "plan": pd.Categorical(rng.choice(["basic", "plus", "pro"], ROWS), categories=["pro", "basic", "plus"]),
                "active": rng.random(ROWS) < 0.6,
                "products": rng.integers(1, 5, ROWS),
            }
        )
    if data == "categories":
        made["country"] = made["country"].astype("category")
    if missing:
        for column in [c for c in made if made[c].dtype.kind not in "bi"]:
            made.loc[rng.random(ROWS) < 0.08, column] = np.nan
    return made


def target(sample: pd.DataFrame, classes: int) -> np.ndarray:
    """A target that depends on all columns, with equally distant neighbours, so that ties occur."""
    codes = [pd.factorize(sample[c], sort=True)[0] if sample[c].dtype.kind not in "biuf" else sample[c] for c in sample]
    values = np.nan_to_num(np.stack([np.asarray(c, float) for c in codes], axis=1))
    score = ((values - values.mean(0)) / values.std(0)) @ np.linspace(1.0, 0.4, values.shape[1])
    score += np.random.default_rng(3).normal(0, 0.7, len(score))
    if classes == 0:
        return np.exp(score / 3) + 0.1
    if classes < 3:
        return np.where(score > 0.3, "yes", "no")
    return np.asarray(["low", "middle", "top"])[np.digitize(score, [-0.7, 0.9])]


def prepared(model: Any, **options: Any) -> Any:
    """A pipeline as people write them: impute, scale and encode, then the model."""
    from sklearn.compose import ColumnTransformer, make_column_selector
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    encoder = options.get("encoder") or OneHotEncoder(handle_unknown="ignore")
    words = make_pipeline(SimpleImputer(strategy="most_frequent"), encoder) if options.get("impute", True) else encoder
    imputer = SimpleImputer(strategy="median", add_indicator=True)
    numbers = make_pipeline(imputer, options.get("scaler") or StandardScaler())
    chosen = make_column_selector(dtype_exclude="number") if options.get("bools", True) else ["country", "plan"]
    preparation = ColumnTransformer(
        [("numbers", numbers, ["age", "balance", "products"]), ("words", words, chosen)],
        remainder=options.get("remainder", "drop"),
    )
    return make_pipeline(preparation, *options.get("steps", ()), model)


def _lightgbm() -> Any:
    import lightgbm

    return lightgbm.LGBMClassifier(n_estimators=10, verbose=-1, n_jobs=1)


def _curves() -> dict[str, tuple[Callable[[], Any], bool]]:
    """By name: models on numbers with a transformer in front, and whether the sample has missing values."""
    from sklearn import compose, ensemble, impute, kernel_approximation, linear_model, pipeline, tree
    from sklearn import preprocessing as pre
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401

    def iterative(**options: Any) -> Any:
        return impute.IterativeImputer(max_iter=4, random_state=1, **options)

    def hist() -> Any:
        return ensemble.HistGradientBoostingClassifier(max_iter=15, random_state=1)

    def nearest(**options: Any) -> Any:
        continuous = (impute.KNNImputer(**options), ["a", "c", "d"])
        return compose.make_column_transformer(continuous, remainder=impute.SimpleImputer())

    flags = pipeline.make_union(impute.SimpleImputer(), impute.MissingIndicator(features="all"))
    return {
        "MissingIndicator": (lambda: pipeline.make_pipeline(flags, linear_model.LogisticRegression()), True),
        "IterativeImputer": (lambda: pipeline.make_pipeline(iterative(), linear_model.LogisticRegression()), True),
        "IterativeImputer(trees, indicator)": (
            lambda: pipeline.make_pipeline(
                iterative(estimator=tree.DecisionTreeRegressor(max_depth=4, random_state=1), add_indicator=True),
                linear_model.LogisticRegression(),
            ),
            True,
        ),
        "KNNImputer": (
            lambda: pipeline.make_pipeline(nearest(add_indicator=True), linear_model.LogisticRegression()),
            True,
        ),
        "KNNImputer, RandomForestClassifier": (
            lambda: pipeline.make_pipeline(
                nearest(n_neighbors=3), ensemble.RandomForestClassifier(20, max_depth=6, random_state=1)
            ),
            True,
        ),
        "KNNImputer(distance)": (
            lambda: pipeline.make_pipeline(impute.KNNImputer(weights="distance"), linear_model.LogisticRegression()),
            True,
        ),
        "QuantileTransformer(normal)": (
            lambda: pipeline.make_pipeline(
                pre.QuantileTransformer(n_quantiles=80, output_distribution="normal"), linear_model.LogisticRegression()
            ),
            False,
        ),
        "Nystroem": (
            lambda: pipeline.make_pipeline(
                kernel_approximation.Nystroem(n_components=20, random_state=1), linear_model.LogisticRegression()
            ),
            False,
        ),
        "Nystroem(poly)": (
            lambda: pipeline.make_pipeline(
                kernel_approximation.Nystroem(kernel="poly", n_components=15, random_state=1),
                linear_model.LogisticRegression(),
            ),
            False,
        ),
        "RBFSampler": (
            lambda: pipeline.make_pipeline(
                kernel_approximation.RBFSampler(n_components=20, random_state=1), linear_model.LogisticRegression()
            ),
            False,
        ),
        "QuantileTransformer, HistGradientBoosting": (
            lambda: pipeline.make_pipeline(pre.QuantileTransformer(n_quantiles=50), hist()),
            True,
        ),
    }


def _resampled() -> dict[str, Callable[[], Any]]:
    """imbalanced-learn: samplers, which do nothing at prediction time, and its own ensembles."""
    from imblearn import ensemble, over_sampling, pipeline, under_sampling
    from sklearn import linear_model, preprocessing

    def steps() -> Any:
        return (
            preprocessing.StandardScaler(),
            over_sampling.SMOTE(random_state=1),
            under_sampling.RandomUnderSampler(random_state=1),
            linear_model.LogisticRegression(),
        )

    return {
        "imblearn Pipeline": lambda: pipeline.make_pipeline(*steps()),
        "imblearn BalancedRandomForestClassifier": lambda: ensemble.BalancedRandomForestClassifier(
            10, max_depth=5, random_state=1
        ),
        "imblearn RUSBoostClassifier": lambda: ensemble.RUSBoostClassifier(n_estimators=8, random_state=1),
        "imblearn EasyEnsembleClassifier": lambda: ensemble.EasyEnsembleClassifier(3, random_state=1),
        "imblearn BalancedBaggingClassifier": lambda: ensemble.BalancedBaggingClassifier(
            n_estimators=4, max_features=0.6, random_state=1
        ),
    }


def _classifiers() -> dict[str, Callable[[], Any]]:
    from sklearn import (
        discriminant_analysis,
        ensemble,
        feature_selection,
        gaussian_process,
        linear_model,
        multiclass,
        naive_bayes,
        neighbors,
        svm,
        tree,
    )
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.neural_network import MLPClassifier

    logistic = linear_model.LogisticRegression

    def members() -> list[tuple[str, Any]]:
        forest = ensemble.RandomForestClassifier(10, max_depth=4, random_state=1)
        return [("logistic", logistic()), ("forest", forest), ("bayes", naive_bayes.GaussianNB())]

    return {
        "LogisticRegression": logistic,
        "SGDClassifier(log_loss)": lambda: linear_model.SGDClassifier(loss="log_loss", random_state=1),
        "SGDClassifier(modified_huber)": lambda: linear_model.SGDClassifier(loss="modified_huber", random_state=1),
        "SGDClassifier(hinge)": lambda: linear_model.SGDClassifier(random_state=1),
        "LinearSVC": svm.LinearSVC,
        "RidgeClassifier": linear_model.RidgeClassifier,
        "SVC": svm.SVC,
        "SVC(probability)": lambda: svm.SVC(probability=True, random_state=1),
        "KNeighborsClassifier": neighbors.KNeighborsClassifier,
        "KNeighborsClassifier(distance)": lambda: neighbors.KNeighborsClassifier(7, weights="distance"),
        "GaussianNB": naive_bayes.GaussianNB,
        "BernoulliNB": naive_bayes.BernoulliNB,
        "LinearDiscriminantAnalysis": discriminant_analysis.LinearDiscriminantAnalysis,
        "QuadraticDiscriminantAnalysis": discriminant_analysis.QuadraticDiscriminantAnalysis,
        "GaussianProcessClassifier": lambda: gaussian_process.GaussianProcessClassifier(max_iter_predict=5),
        "DecisionTreeClassifier": lambda: tree.DecisionTreeClassifier(max_depth=6, random_state=1),
        "RandomForestClassifier": lambda: ensemble.RandomForestClassifier(30, max_depth=6, random_state=1),
        "RandomForestClassifier(full depth)": lambda: ensemble.RandomForestClassifier(20, random_state=1),
        "ExtraTreesClassifier": lambda: ensemble.ExtraTreesClassifier(30, max_depth=8, random_state=1),
        "GradientBoostingClassifier": lambda: ensemble.GradientBoostingClassifier(n_estimators=20, random_state=1),
        "HistGradientBoostingClassifier": lambda: ensemble.HistGradientBoostingClassifier(max_iter=15, random_state=1),
        "AdaBoostClassifier": lambda: ensemble.AdaBoostClassifier(n_estimators=15, random_state=1),
        "AdaBoostClassifier(logistic)": lambda: ensemble.AdaBoostClassifier(logistic(), n_estimators=5, random_state=1),
        "BaggingClassifier": lambda: ensemble.BaggingClassifier(n_estimators=8, max_features=0.6, random_state=1),
        "BaggingClassifier(logistic)": lambda: ensemble.BaggingClassifier(logistic(), n_estimators=5, random_state=1),
        "MLPClassifier": lambda: MLPClassifier((12, 6), max_iter=80, random_state=1),
        "MLPClassifier(tanh)": lambda: MLPClassifier((8,), activation="tanh", max_iter=80, random_state=1),
        "VotingClassifier(soft)": lambda: ensemble.VotingClassifier(members(), voting="soft", weights=[2, 1, 1]),
        "VotingClassifier(hard)": lambda: ensemble.VotingClassifier(members()),
        "StackingClassifier": lambda: ensemble.StackingClassifier(members(), cv=3, passthrough=True),
        "CalibratedClassifierCV(sigmoid)": lambda: CalibratedClassifierCV(svm.LinearSVC(), cv=3),
        "CalibratedClassifierCV(isotonic)": lambda: CalibratedClassifierCV(
            ensemble.RandomForestClassifier(10, max_depth=5, random_state=1), method="isotonic", cv=3
        ),
        "CalibratedClassifierCV(LightGBM)": lambda: CalibratedClassifierCV(_lightgbm(), cv=3),
        "CalibratedClassifierCV(LightGBM, isotonic)": lambda: CalibratedClassifierCV(
            _lightgbm(), method="isotonic", cv=3, ensemble=False
        ),
        "VotingClassifier(hard, tree and bayes)": lambda: ensemble.VotingClassifier(
            [("tree", tree.DecisionTreeClassifier(random_state=1)), ("bayes", naive_bayes.GaussianNB())]
        ),
        "OneVsRestClassifier": lambda: multiclass.OneVsRestClassifier(logistic()),
        "OneVsOneClassifier": lambda: multiclass.OneVsOneClassifier(svm.LinearSVC()),
        "RFECV": lambda: feature_selection.RFECV(tree.DecisionTreeClassifier(max_depth=5, random_state=1), cv=3),
        "RFE(logistic)": lambda: feature_selection.RFE(logistic(), n_features_to_select=2),
        "CalibratedClassifierCV(ensemble=False)": lambda: CalibratedClassifierCV(
            naive_bayes.GaussianNB(), method="isotonic", cv=3, ensemble=False
        ),
    }


def _regressors() -> dict[str, Callable[[], Any]]:
    from sklearn import compose, ensemble, gaussian_process, linear_model, neighbors, svm, tree
    from sklearn.neural_network import MLPRegressor

    def members() -> list[tuple[str, Any]]:
        return [("ridge", linear_model.Ridge()), ("tree", tree.DecisionTreeRegressor(max_depth=5, random_state=1))]

    return {
        "LinearRegression": linear_model.LinearRegression,
        "Ridge": linear_model.Ridge,
        "Lasso": lambda: linear_model.Lasso(alpha=0.01),
        "SGDRegressor": lambda: linear_model.SGDRegressor(random_state=1),
        "PoissonRegressor": linear_model.PoissonRegressor,
        "TweedieRegressor": lambda: linear_model.TweedieRegressor(power=1.5),
        "SVR": svm.SVR,
        "KNeighborsRegressor": neighbors.KNeighborsRegressor,
        "KNeighborsRegressor(distance)": lambda: neighbors.KNeighborsRegressor(weights="distance"),
        "GaussianProcessRegressor": lambda: gaussian_process.GaussianProcessRegressor(alpha=0.1),
        "DecisionTreeRegressor": lambda: tree.DecisionTreeRegressor(max_depth=7, random_state=1),
        "RandomForestRegressor": lambda: ensemble.RandomForestRegressor(30, max_depth=7, random_state=1),
        "ExtraTreesRegressor": lambda: ensemble.ExtraTreesRegressor(20, random_state=1),
        "GradientBoostingRegressor": lambda: ensemble.GradientBoostingRegressor(n_estimators=20, random_state=1),
        "HistGradientBoostingRegressor": lambda: ensemble.HistGradientBoostingRegressor(max_iter=15, random_state=1),
        "HistGradientBoostingRegressor(poisson)": lambda: ensemble.HistGradientBoostingRegressor(
            loss="poisson", max_iter=15, random_state=1
        ),
        "AdaBoostRegressor": lambda: ensemble.AdaBoostRegressor(n_estimators=9, random_state=1),
        "BaggingRegressor": lambda: ensemble.BaggingRegressor(n_estimators=8, random_state=1),
        "MLPRegressor": lambda: MLPRegressor(hidden_layer_sizes=(10,), max_iter=80, random_state=1),
        "VotingRegressor": lambda: ensemble.VotingRegressor(members()),
        "StackingRegressor": lambda: ensemble.StackingRegressor(members(), cv=3),
        "TransformedTargetRegressor(log1p)": lambda: compose.TransformedTargetRegressor(
            linear_model.Ridge(), func=np.log1p, inverse_func=np.expm1
        ),
    }


def _pipelines() -> dict[str, tuple[Callable[[], Any], bool]]:
    """By name: how to make it, and whether it takes missing and unseen values."""
    from sklearn import ensemble, feature_selection, linear_model
    from sklearn import preprocessing as pre

    def forest() -> Any:
        return ensemble.RandomForestClassifier(20, max_depth=6, random_state=1)

    def logistic() -> Any:
        return linear_model.LogisticRegression(max_iter=500)

    ordinal = pre.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    rare = pre.OneHotEncoder(min_frequency=20, handle_unknown="infrequent_if_exist", sparse_output=False)
    best = feature_selection.SelectKBest(k=5)
    curves = {
        "PowerTransformer": pre.PowerTransformer(),
        "QuantileTransformer": pre.QuantileTransformer(n_quantiles=60),
        "SplineTransformer": pre.SplineTransformer(n_knots=6),
        "SplineTransformer(linear, quantile)": pre.SplineTransformer(
            extrapolation="linear", knots="quantile", include_bias=False
        ),
        "SplineTransformer(continue, sparse)": pre.SplineTransformer(
            degree=2, extrapolation="continue", sparse_output=True
        ),
    }
    return {
        "OneHotEncoder, LogisticRegression": (lambda: prepared(logistic()), True),
        "OneHotEncoder, RandomForestClassifier": (lambda: prepared(forest()), True),
        "OneHotEncoder(drop), MinMaxScaler": (
            lambda: prepared(logistic(), encoder=pre.OneHotEncoder(drop="first"), scaler=pre.MinMaxScaler()),
            False,
        ),
        "OneHotEncoder(min_frequency), RobustScaler": (
            lambda: prepared(logistic(), encoder=rare, scaler=pre.RobustScaler(), impute=False),
            True,
        ),
        "OrdinalEncoder, RandomForestClassifier": (lambda: prepared(forest(), encoder=ordinal, impute=False), True),
        "OrdinalEncoder, passthrough": (
            lambda: prepared(forest(), encoder=ordinal, bools=False, remainder="passthrough"),
            True,
        ),
        "TargetEncoder, LogisticRegression": (
            lambda: prepared(logistic(), encoder=pre.TargetEncoder(), impute=False, bools=False),
            True,
        ),
        "FunctionTransformer(log1p), SelectKBest": (
            lambda: prepared(logistic(), scaler=pre.FunctionTransformer(np.log1p), steps=(best,)),
            True,
        ),
        "PolynomialFeatures, PCA": (
            lambda: prepared(
                logistic(),
                steps=(pre.PolynomialFeatures(2), pre.StandardScaler(), _pca()),
            ),
            True,
        ),
        "KBinsDiscretizer": (
            lambda: prepared(
                logistic(),
                scaler=pre.KBinsDiscretizer(4, encode="onehot-dense", quantile_method="averaged_inverted_cdf"),
            ),
            True,
        ),
        **{name: (lambda scaler=scaler: prepared(logistic(), scaler=scaler), True) for name, scaler in curves.items()},
        "QuantileTransformer, RandomForestClassifier": (
            lambda: prepared(forest(), scaler=pre.QuantileTransformer(n_quantiles=60)),
            True,
        ),
        "A function of the user's own on a category": (
            lambda: prepared(logistic(), encoder=pre.FunctionTransformer(_length), bools=False),
            True,
        ),
        "A function of the user's own on a number": (
            lambda: prepared(logistic(), scaler=pre.FunctionTransformer(_half)),
            True,
        ),
    }


def _pca() -> Any:
    from sklearn.decomposition import PCA

    return PCA(6)


def _length(values: Any) -> Any:
    return np.vectorize(len, otypes=[float])(np.asarray(values, object))


def _half(values: Any) -> Any:
    return np.asarray(values, float) / 2


def _boosters() -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """By name: a classifier and a regressor."""
    import catboost
    import lightgbm
    import xgboost

    def xgb(kind: Any, **options: Any) -> Callable[[], Any]:
        return lambda: kind(n_estimators=12, max_depth=4, n_jobs=1, enable_categorical=True, **options)

    def linear(kind: Any) -> Callable[[], Any]:
        return lambda: kind(n_estimators=12, n_jobs=1, booster="gblinear")

    def lgb(kind: Any, **options: Any) -> Callable[[], Any]:
        return lambda: kind(n_estimators=12, num_leaves=12, min_child_samples=8, n_jobs=1, verbose=-1, **options)

    def cat(kind: Any, **options: Any) -> Callable[[], Any]:
        quiet = {"verbose": 0, "allow_writing_files": False, "thread_count": 1}
        return lambda: kind(iterations=12, depth=4, **quiet, **options)

    return {
        "XGBoost": (xgb(_Numbered), xgb(xgboost.XGBRegressor)),
        "XGBoost(gblinear)": (linear(_Numbered), linear(xgboost.XGBRegressor)),
        "LightGBM": (lgb(lightgbm.LGBMClassifier), lgb(lightgbm.LGBMRegressor)),
        "CatBoost": (cat(catboost.CatBoostClassifier), cat(catboost.CatBoostRegressor)),
        "CatBoost(Lossguide)": (
            cat(catboost.CatBoostClassifier, grow_policy="Lossguide"),
            cat(catboost.CatBoostRegressor, grow_policy="Lossguide"),
        ),
    }


class _Numbered:
    """Fit an XGBClassifier on positions of class names, because it requires classes numbered from 0."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def fit(self, sample: pd.DataFrame, words: np.ndarray) -> Any:
        import xgboost

        return xgboost.XGBClassifier(**self.options).fit(sample, np.unique(words, return_inverse=True)[1])


def cases() -> list[Case]:
    """All lines of the table."""
    made = []
    for name, make in (_classifiers() | _resampled()).items():
        made += [Case(f"{name}, {k} classes", make, k) for k in (2, 3)]
    for name, (make, missing) in _curves().items():
        made += [Case(f"{name}, {k} classes", make, k, missing=missing) for k in (2, 3)]
    made += [Case(name, make, 0) for name, make in _regressors().items()]
    made += _others()
    for name, (make, loose) in _pipelines().items():
        made += [Case(f"{name}, {k} classes", make, k, "mixed", missing=loose, unseen=loose) for k in (2, 3)]
    for name, (classifier, regressor) in _boosters().items():
        data = [("numbers", False), ("numbers", True)] + [("categories", True)] * (name in ("XGBoost", "LightGBM"))
        for kind, missing in data:
            words = f"{name}, {'categories, ' if kind == 'categories' else ''}{'missing, ' if missing else ''}"
            made += [Case(f"{words}{k} classes", classifier, k, kind, missing) for k in (2, 3)]
            made.append(Case(f"{words}regression", regressor, 0, kind, missing))
    for name, most, k in (("one-hot", 10, 0), ("one-hot", 10, 2), ("one-hot", 10, 3), ("statistics", 2, 2)):
        words = "regression" if k == 0 else f"{k} classes"
        made.append(Case(f"CatBoost({name}), categories, {words}", _catboost_of_categories(k, most), k, "mixed"))
    return made


def _catboost_of_categories(classes: int, most: int) -> Callable[[], Any]:
    """CatBoost with two columns of words: those of at most so many levels are asked about one by one."""
    import catboost

    kind = catboost.CatBoostClassifier if classes else catboost.CatBoostRegressor
    options: dict[str, Any] = {"iterations": 20, "verbose": 0, "allow_writing_files": False, "thread_count": 1}
    return lambda: kind(cat_features=["country", "plan"], one_hot_max_size=most, **options)


def _others() -> list[Case]:
    from sklearn import ensemble, naive_bayes, svm

    def hist(**options: Any) -> Callable[[], Any]:
        return lambda: ensemble.HistGradientBoostingClassifier(max_iter=15, random_state=1, **options)

    def forest() -> Any:
        return ensemble.RandomForestClassifier(20, max_depth=6, random_state=1)

    def isolation(**options: Any) -> Callable[[], Any]:
        return lambda: ensemble.IsolationForest(n_estimators=30, random_state=1, **options)

    named = hist(categorical_features=["country", "plan", "active"])
    made = [
        Case("IsolationForest", isolation(), 1),
        Case(
            "IsolationForest(contamination)",
            isolation(contamination=0.1),
            1,
        ),
        Case("OneClassSVM", svm.OneClassSVM, 1),
    ]
    for k in (2, 3):
        made += [
            Case(f"MultinomialNB, {k} classes", naive_bayes.MultinomialNB, k, "counts"),
            Case(f"ComplementNB, {k} classes", naive_bayes.ComplementNB, k, "counts"),
            Case(f"RandomForestClassifier, missing, {k} classes", forest, k, missing=True),
            Case(f"HistGradientBoostingClassifier, missing, {k} classes", hist(), k, missing=True),
            Case(
                f"HistGradientBoostingClassifier, categories, missing, {k} classes",
                named,
                k,
                "mixed",
                True,
                True,
            ),
        ]
    return made
