"""Models as people build them, drawn at random for the standing lab: preparation, estimator and wrapper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

Rng = np.random.Generator


def classifiers() -> dict[str, Callable[[], Any]]:
    """Estimators of classes by name."""
    import catboost
    import lightgbm
    import xgboost
    from imblearn import ensemble as balanced
    from sklearn import discriminant_analysis, ensemble, linear_model, naive_bayes, neighbors, svm, tree
    from sklearn.neural_network import MLPClassifier

    return {
        "LogisticRegression": lambda: linear_model.LogisticRegression(max_iter=200),
        "SGDClassifier": lambda: linear_model.SGDClassifier(loss="log_loss", random_state=0),
        "RidgeClassifier": linear_model.RidgeClassifier,
        "LinearSVC": svm.LinearSVC,
        "SVC": svm.SVC,
        "KNeighborsClassifier": lambda: neighbors.KNeighborsClassifier(4),
        "GaussianNB": naive_bayes.GaussianNB,
        "BernoulliNB": naive_bayes.BernoulliNB,
        "LinearDiscriminantAnalysis": discriminant_analysis.LinearDiscriminantAnalysis,
        "DecisionTreeClassifier": lambda: tree.DecisionTreeClassifier(random_state=0),
        "RandomForestClassifier": lambda: ensemble.RandomForestClassifier(15, random_state=0),
        "ExtraTreesClassifier": lambda: ensemble.ExtraTreesClassifier(15, random_state=0),
        "GradientBoostingClassifier": lambda: ensemble.GradientBoostingClassifier(n_estimators=8, random_state=0),
        "HistGradientBoostingClassifier": lambda: ensemble.HistGradientBoostingClassifier(max_iter=8, random_state=0),
        "AdaBoostClassifier": lambda: ensemble.AdaBoostClassifier(n_estimators=8, random_state=0),
        "BaggingClassifier": lambda: ensemble.BaggingClassifier(n_estimators=5, max_features=0.7, random_state=0),
        "MLPClassifier": lambda: MLPClassifier((10,), max_iter=30, random_state=0),
        "XGBClassifier": lambda: xgboost.XGBClassifier(n_estimators=8, n_jobs=1, enable_categorical=True),
        "XGBClassifier(gblinear)": lambda: xgboost.XGBClassifier(n_estimators=8, n_jobs=1, booster="gblinear"),
        "LGBMClassifier": lambda: lightgbm.LGBMClassifier(n_estimators=8, verbose=-1, n_jobs=1),
        "CatBoostClassifier": lambda: catboost.CatBoostClassifier(
            iterations=8, verbose=0, allow_writing_files=False, thread_count=1
        ),
        "BalancedRandomForestClassifier": lambda: balanced.BalancedRandomForestClassifier(10, random_state=0),
        "RUSBoostClassifier": lambda: balanced.RUSBoostClassifier(n_estimators=6, random_state=0),
    }


def regressors() -> dict[str, Callable[[], Any]]:
    """Estimators of numbers by name."""
    import catboost
    import lightgbm
    import xgboost
    from sklearn import ensemble, linear_model, neighbors, svm, tree
    from sklearn.neural_network import MLPRegressor

    return {
        "LinearRegression": linear_model.LinearRegression,
        "Ridge": linear_model.Ridge,
        "Lasso": linear_model.Lasso,
        "HuberRegressor": lambda: linear_model.HuberRegressor(max_iter=50),
        "SVR": svm.SVR,
        "KNeighborsRegressor": neighbors.KNeighborsRegressor,
        "DecisionTreeRegressor": lambda: tree.DecisionTreeRegressor(max_depth=8, random_state=0),
        "RandomForestRegressor": lambda: ensemble.RandomForestRegressor(12, random_state=0),
        "ExtraTreesRegressor": lambda: ensemble.ExtraTreesRegressor(12, random_state=0),
        "GradientBoostingRegressor": lambda: ensemble.GradientBoostingRegressor(n_estimators=10, random_state=0),
        "HistGradientBoostingRegressor": lambda: ensemble.HistGradientBoostingRegressor(max_iter=10, random_state=0),
        "AdaBoostRegressor": lambda: ensemble.AdaBoostRegressor(n_estimators=6, random_state=0),
        "MLPRegressor": lambda: MLPRegressor((10,), max_iter=30, random_state=0),
        "XGBRegressor": lambda: xgboost.XGBRegressor(n_estimators=10, n_jobs=1, enable_categorical=True),
        "XGBRegressor(gblinear)": lambda: xgboost.XGBRegressor(n_estimators=10, n_jobs=1, booster="gblinear"),
        "LGBMRegressor": lambda: lightgbm.LGBMRegressor(n_estimators=10, verbose=-1, n_jobs=1),
        "CatBoostRegressor": lambda: catboost.CatBoostRegressor(
            iterations=10, verbose=0, allow_writing_files=False, thread_count=1
        ),
    }


NATIVE = ("HistGradientBoosting", "XGB", "LGBM", "CatBoost")
"""Estimators that take missing values, and columns of pandas' category type."""


def scalers() -> dict[str, Callable[[], Any]]:
    """Transformers of numbers by name."""
    from sklearn import decomposition, kernel_approximation, preprocessing as pre  # isort: skip

    return {
        "StandardScaler": pre.StandardScaler,
        "MinMaxScaler": pre.MinMaxScaler,
        "RobustScaler": pre.RobustScaler,
        "MaxAbsScaler": pre.MaxAbsScaler,
        "PowerTransformer": pre.PowerTransformer,
        "QuantileTransformer": lambda: pre.QuantileTransformer(n_quantiles=50),
        "SplineTransformer": lambda: pre.SplineTransformer(n_knots=4),
        "KBinsDiscretizer": lambda: pre.KBinsDiscretizer(4, strategy="uniform"),
        "PolynomialFeatures": lambda: pre.PolynomialFeatures(2, interaction_only=True),
        "PCA": lambda: decomposition.PCA(0.9),
        "Nystroem": lambda: kernel_approximation.Nystroem(n_components=12, random_state=0),
        "RBFSampler": lambda: kernel_approximation.RBFSampler(n_components=12, random_state=0),
    }


def imputers() -> dict[str, Callable[[], Any]]:
    """Imputers of numbers by name."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

    return {
        "SimpleImputer": SimpleImputer,
        "SimpleImputer(median, indicator)": lambda: SimpleImputer(strategy="median", add_indicator=True),
        "KNNImputer": KNNImputer,
        "IterativeImputer": lambda: IterativeImputer(max_iter=3, random_state=0),
    }


def encoders() -> dict[str, Callable[[], Any]]:
    """Encoders of categories by name."""
    from sklearn import preprocessing as pre

    return {
        "OneHotEncoder": lambda: pre.OneHotEncoder(handle_unknown="ignore"),
        "OneHotEncoder(strict)": pre.OneHotEncoder,
        "OneHotEncoder(rare)": lambda: pre.OneHotEncoder(min_frequency=0.05, handle_unknown="infrequent_if_exist"),
        "OrdinalEncoder": lambda: pre.OrdinalEncoder(
            handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2
        ),
        "TargetEncoder": lambda: pre.TargetEncoder(random_state=0),
    }


def _chosen(rng: Rng, options: dict[str, Callable[[], Any]]) -> tuple[str, Any]:
    name = str(rng.choice(list(options)))
    return name, options[name]()


def _preparation(rng: Rng, rows: pd.DataFrame, native: bool) -> tuple[list[str], Any]:
    """A ColumnTransformer for all columns, and the names of its parts."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline

    numbers = [c for c in rows if pd.api.types.is_numeric_dtype(rows[c]) and not pd.api.types.is_bool_dtype(rows[c])]
    words = [c for c in rows if c not in numbers]
    if rng.random() < 0.2:  # codes: numbers that stand for words
        words += [c for c in numbers if rows[c].nunique() < 8]
        numbers = [c for c in numbers if c not in words]
    names, parts = [], []
    if numbers:
        steps = []
        if not native or rng.random() < 0.5:
            steps.append(_chosen(rng, imputers()))
        if not native or rng.random() < 0.3:
            steps.append(_chosen(rng, scalers()))
        names += [name for name, _ in steps]
        parts.append(("numbers", make_pipeline(*(step for _, step in steps)) if steps else "passthrough", numbers))
    if words:
        name, encoder = _chosen(rng, encoders())
        names.append(name)
        impute = name.startswith("OneHotEncoder(strict") or rng.random() < 0.4
        filled = SimpleImputer(strategy="most_frequent")
        parts.append(("words", make_pipeline(filled, encoder) if impute else encoder, words))
    return names, ColumnTransformer(parts, sparse_threshold=0)


def draw(rng: Rng, rows: pd.DataFrame, classes: int) -> tuple[str, str, str, Any]:
    """A model to be fitted: the estimator's name, the preparation's, the wrapper's, and itself."""
    from sklearn.pipeline import make_pipeline

    options = classifiers() if classes else regressors()
    name, estimator = _chosen(rng, options)
    native = name.startswith(NATIVE)
    plain = all(pd.api.types.is_numeric_dtype(rows[c]) for c in rows)
    typed = plain or all(isinstance(rows[c].dtype, pd.CategoricalDtype) or rows[c].dtype.kind in "fiub" for c in rows)
    if (
        native
        and (plain or (typed and name.startswith(("XGB", "LGBM"))))
        and "gblinear" not in name
        and rng.random() < 0.6
    ):
        model, preparation = estimator, "as they are"
    else:
        names, columns = _preparation(rng, rows, native)
        model, preparation = make_pipeline(columns, estimator), ", ".join(names)
    wrapper, model = _wrapped(rng, model, classes)
    return name, preparation, wrapper, model


def _wrapped(rng: Rng, model: Any, classes: int) -> tuple[str, Any]:
    from sklearn import calibration, compose, ensemble, model_selection, multiclass, tree
    from sklearn.pipeline import make_pipeline

    if rng.random() < 0.5:
        return "", model
    scored = hasattr(model, "predict_proba")
    options: dict[str, Callable[[], Any]] = {
        "GridSearchCV": lambda: model_selection.GridSearchCV(model, {}, cv=2),
        "Pipeline": lambda: make_pipeline("passthrough", model),
    }
    if not classes:
        options["TransformedTargetRegressor"] = lambda: compose.TransformedTargetRegressor(
            model, func=np.log1p, inverse_func=np.expm1, check_inverse=False
        )
        options["VotingRegressor"] = lambda: ensemble.VotingRegressor([("a", model), ("b", model)], weights=[2, 1])
        options["StackingRegressor"] = lambda: ensemble.StackingRegressor([("a", model), ("b", model)], cv=2)
    else:
        options["CalibratedClassifierCV"] = lambda: calibration.CalibratedClassifierCV(
            model, cv=2, method=str(rng.choice(["sigmoid", "isotonic"]))
        )
        options["VotingClassifier(hard)"] = lambda: ensemble.VotingClassifier([("a", model), ("b", model)])
        options["StackingClassifier"] = lambda: ensemble.StackingClassifier(
            [("a", model)], tree.DecisionTreeClassifier(max_depth=4, random_state=0), cv=2
        )
        options["OneVsRestClassifier"] = lambda: multiclass.OneVsRestClassifier(model)
        if scored:
            options["VotingClassifier(soft)"] = lambda: ensemble.VotingClassifier([("a", model)], voting="soft")
        if classes == 2 and scored:
            options["FixedThresholdClassifier"] = lambda: model_selection.FixedThresholdClassifier(model, threshold=0.3)
            options["TunedThresholdClassifierCV"] = lambda: model_selection.TunedThresholdClassifierCV(model, cv=2)
    return _chosen(rng, options)
