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
    from sklearn.dummy import DummyClassifier
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
        "EasyEnsembleClassifier": lambda: balanced.EasyEnsembleClassifier(2, random_state=0),
        "LogisticRegressionCV": lambda: linear_model.LogisticRegressionCV(Cs=2, cv=2, max_iter=100),
        "SGDClassifier(hinge)": lambda: linear_model.SGDClassifier(random_state=0),
        "Perceptron": lambda: linear_model.Perceptron(random_state=0),
        "NuSVC": lambda: svm.NuSVC(nu=0.1),
        "SVC(poly)": lambda: svm.SVC(kernel="poly", degree=2),
        "NearestCentroid": neighbors.NearestCentroid,
        "KNeighborsClassifier(distance)": lambda: neighbors.KNeighborsClassifier(3, weights="distance"),
        "QuadraticDiscriminantAnalysis": lambda: discriminant_analysis.QuadraticDiscriminantAnalysis(reg_param=0.1),
        "ExtraTreeClassifier": lambda: tree.ExtraTreeClassifier(max_depth=6, random_state=0),
        "DecisionTreeClassifier(pruned)": lambda: tree.DecisionTreeClassifier(ccp_alpha=0.002, class_weight="balanced"),
        "DummyClassifier": lambda: DummyClassifier(strategy="prior"),
        "XGBClassifier(dart)": lambda: xgboost.XGBClassifier(
            n_estimators=6, n_jobs=1, booster="dart", rate_drop=0.3, enable_categorical=True
        ),
        "XGBRFClassifier": lambda: xgboost.XGBRFClassifier(n_estimators=6, n_jobs=1, enable_categorical=True),
        "LGBMClassifier(dart)": lambda: lightgbm.LGBMClassifier(
            boosting_type="dart", n_estimators=8, verbose=-1, n_jobs=1
        ),
        "LGBMClassifier(rf)": lambda: lightgbm.LGBMClassifier(
            boosting_type="rf", subsample_freq=1, subsample=0.6, n_estimators=6, verbose=-1, n_jobs=1
        ),
        "CatBoostClassifier(Depthwise)": lambda: catboost.CatBoostClassifier(
            iterations=6, grow_policy="Depthwise", verbose=0, allow_writing_files=False, thread_count=1
        ),
    }


def regressors() -> dict[str, Callable[[], Any]]:
    """Estimators of numbers by name."""
    import catboost
    import lightgbm
    import xgboost
    from sklearn import cross_decomposition, ensemble, linear_model, neighbors, svm, tree
    from sklearn.dummy import DummyRegressor
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
        "ElasticNet": lambda: linear_model.ElasticNet(alpha=0.1),
        "BayesianRidge": linear_model.BayesianRidge,
        "LassoLarsCV": lambda: linear_model.LassoLarsCV(cv=2),
        "SGDRegressor": lambda: linear_model.SGDRegressor(random_state=0),
        "NuSVR": svm.NuSVR,
        "LinearSVR": svm.LinearSVR,
        "KNeighborsRegressor(distance)": lambda: neighbors.KNeighborsRegressor(3, weights="distance"),
        "ExtraTreeRegressor": lambda: tree.ExtraTreeRegressor(max_depth=7, random_state=0),
        "BaggingRegressor": lambda: ensemble.BaggingRegressor(n_estimators=4, max_features=0.7, random_state=0),
        "GradientBoostingRegressor(quantile)": lambda: ensemble.GradientBoostingRegressor(
            loss="quantile", alpha=0.9, n_estimators=8, random_state=0
        ),
        "HistGradientBoostingRegressor(quantile)": lambda: ensemble.HistGradientBoostingRegressor(
            loss="quantile", quantile=0.8, max_iter=8, random_state=0
        ),
        "PLSRegression": lambda: cross_decomposition.PLSRegression(1),
        "DummyRegressor": lambda: DummyRegressor(strategy="median"),
        "LGBMRegressor(l1)": lambda: lightgbm.LGBMRegressor(objective="l1", n_estimators=8, verbose=-1, n_jobs=1),
        "LGBMRegressor(quantile)": lambda: lightgbm.LGBMRegressor(
            objective="quantile", alpha=0.8, n_estimators=8, verbose=-1, n_jobs=1
        ),
        "XGBRegressor(absolute)": lambda: xgboost.XGBRegressor(
            objective="reg:absoluteerror", n_estimators=6, n_jobs=1, enable_categorical=True
        ),
        "CatBoostRegressor(Quantile)": lambda: catboost.CatBoostRegressor(
            iterations=8, loss_function="Quantile:alpha=0.7", verbose=0, allow_writing_files=False, thread_count=1
        ),
        "CatBoostRegressor(Lossguide)": lambda: catboost.CatBoostRegressor(
            iterations=6, grow_policy="Lossguide", verbose=0, allow_writing_files=False, thread_count=1
        ),
    }


def unsupervised() -> dict[str, Callable[[], Any]]:
    """Detectors of outliers, clusterers and mixtures by name, which learn from no target."""
    from sklearn import cluster, covariance, ensemble, linear_model, mixture, neighbors, svm

    return {
        "IsolationForest": lambda: ensemble.IsolationForest(n_estimators=12, random_state=0),
        "OneClassSVM": lambda: svm.OneClassSVM(nu=0.1),
        "SGDOneClassSVM": lambda: linear_model.SGDOneClassSVM(random_state=0),
        "LocalOutlierFactor": lambda: neighbors.LocalOutlierFactor(novelty=True),
        "EllipticEnvelope": lambda: covariance.EllipticEnvelope(random_state=0),
        "KMeans": lambda: cluster.KMeans(4, n_init=1, random_state=0),
        "MiniBatchKMeans": lambda: cluster.MiniBatchKMeans(4, n_init=1, random_state=0),
        "Birch": lambda: cluster.Birch(n_clusters=4),
        "GaussianMixture": lambda: mixture.GaussianMixture(3, reg_covar=1e-3, random_state=0),
    }


NATIVE = ("HistGradientBoosting", "XGB", "LGBM", "CatBoost")
"""Estimators that take missing values, and columns of pandas' category type."""


def scalers() -> dict[str, Callable[[], Any]]:
    """Transformers of numbers by name."""
    from sklearn import decomposition, feature_selection, kernel_approximation, pipeline, preprocessing as pre  # isort: skip

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
        "QuantileTransformer(normal)": lambda: pre.QuantileTransformer(n_quantiles=40, output_distribution="normal"),
        "PowerTransformer(plain)": lambda: pre.PowerTransformer(standardize=False),
        "SplineTransformer(linear)": lambda: pre.SplineTransformer(n_knots=5, degree=2, extrapolation="linear"),
        "KBinsDiscretizer(quantile)": lambda: pre.KBinsDiscretizer(
            5, encode="ordinal", strategy="quantile", quantile_method="averaged_inverted_cdf"
        ),
        "Normalizer": pre.Normalizer,
        "Binarizer": lambda: pre.Binarizer(threshold=1.0),
        "PolynomialFeatures(squares)": lambda: pre.PolynomialFeatures(2, include_bias=False),
        "VarianceThreshold": feature_selection.VarianceThreshold,
        "FeatureUnion": lambda: pipeline.make_union(pre.StandardScaler(), pre.MinMaxScaler(clip=True)),
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
        "SimpleImputer(constant)": lambda: SimpleImputer(strategy="constant", fill_value=-1, keep_empty_features=True),
        "SimpleImputer(most_frequent)": lambda: SimpleImputer(strategy="most_frequent"),
        "KNNImputer": KNNImputer,
        "KNNImputer(indicator)": lambda: KNNImputer(n_neighbors=2, add_indicator=True),
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
        "OneHotEncoder(drop)": lambda: pre.OneHotEncoder(drop="first"),
        "OneHotEncoder(drop binary)": lambda: pre.OneHotEncoder(drop="if_binary", handle_unknown="ignore"),
        "OrdinalEncoder(rare)": lambda: pre.OrdinalEncoder(
            min_frequency=10, handle_unknown="use_encoded_value", unknown_value=-1
        ),
        "TargetEncoder": lambda: pre.TargetEncoder(random_state=0),
        "TargetEncoder(smooth)": lambda: pre.TargetEncoder(smooth=20.0, random_state=0),
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
        impute = name in ("OneHotEncoder(strict)", "OneHotEncoder(drop)") or rng.random() < 0.4
        filled = SimpleImputer(strategy="most_frequent")
        parts.append(("words", make_pipeline(filled, encoder) if impute else encoder, words))
    return names, ColumnTransformer(parts, sparse_threshold=0)


def draw(rng: Rng, rows: pd.DataFrame, classes: int) -> tuple[str, str, str, Any]:
    """A model to be fitted: the estimator's name, the preparation's, the wrapper's, and itself."""
    from sklearn.pipeline import make_pipeline

    options = unsupervised() if rng.random() < 0.08 else classifiers() if classes else regressors()
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
    wrapper, model = ("", model) if name in unsupervised() else _wrapped(rng, model, classes)
    return name, preparation, wrapper, model


def _wrapped(rng: Rng, model: Any, classes: int) -> tuple[str, Any]:
    from sklearn import calibration, compose, ensemble, model_selection, multiclass, preprocessing, tree
    from sklearn.pipeline import make_pipeline

    if rng.random() < 0.5:
        return "", model
    scored = hasattr(model, "predict_proba")
    options: dict[str, Callable[[], Any]] = {
        "GridSearchCV": lambda: model_selection.GridSearchCV(model, {}, cv=2),
        "RandomizedSearchCV": lambda: model_selection.RandomizedSearchCV(model, {}, n_iter=1, cv=2),
        "Pipeline": lambda: make_pipeline("passthrough", model),
    }
    if not classes:
        options["TransformedTargetRegressor"] = lambda: compose.TransformedTargetRegressor(
            model, func=np.log1p, inverse_func=np.expm1, check_inverse=False
        )
        options["TransformedTargetRegressor(scaled)"] = lambda: compose.TransformedTargetRegressor(
            model, transformer=preprocessing.StandardScaler()
        )
        options["BaggingRegressor"] = lambda: ensemble.BaggingRegressor(model, 2, random_state=0)
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
        options["CalibratedClassifierCV(one)"] = lambda: calibration.CalibratedClassifierCV(model, cv=2, ensemble=False)
        options["BaggingClassifier"] = lambda: ensemble.BaggingClassifier(model, 2, random_state=0)
        options["OneVsOneClassifier"] = lambda: multiclass.OneVsOneClassifier(model)
        options["OneVsRestClassifier"] = lambda: multiclass.OneVsRestClassifier(model)
        if scored:
            options["VotingClassifier(soft)"] = lambda: ensemble.VotingClassifier([("a", model)], voting="soft")
        if classes == 2 and scored:
            options["FixedThresholdClassifier"] = lambda: model_selection.FixedThresholdClassifier(model, threshold=0.3)
            options["TunedThresholdClassifierCV"] = lambda: model_selection.TunedThresholdClassifierCV(model, cv=2)
    return _chosen(rng, options)
