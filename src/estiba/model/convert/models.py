"""Choose the rule that converts an estimator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from estiba.model.convert import (
    boosters,
    catboost_trees,
    ensembles,
    forests,
    kernels,
    linear,
    pairwise,
    several,
    wrappers,
)
from estiba.model.convert.columns import Columns
from estiba.model.convert.context import CENTRES, Context, Want, unsupported
from estiba.model.convert.foreign import convert_foreign

Rule = Callable[[Context, Any, Columns, Want], str]

_GROUPS: tuple[tuple[Rule, str], ...] = (
    (
        forests.tree_or_forest,
        "DecisionTreeClassifier DecisionTreeRegressor ExtraTreeClassifier ExtraTreeRegressor RandomForestClassifier "
        "RandomForestRegressor ExtraTreesClassifier ExtraTreesRegressor",
    ),
    (forests.gradient_boosting, "GradientBoostingClassifier GradientBoostingRegressor"),
    (forests.hist_gradient_boosting, "HistGradientBoostingClassifier HistGradientBoostingRegressor"),
    (forests.isolation_forest, "IsolationForest"),
    (forests.adaboost_classifier, "AdaBoostClassifier"),
    (forests.adaboost_regressor, "AdaBoostRegressor"),
    (forests.bagging, "BaggingClassifier BaggingRegressor"),
    (
        linear.linear_regressor,
        "LinearRegression Ridge RidgeCV Lasso LassoCV ElasticNet ElasticNetCV Lars LarsCV LassoLars LassoLarsCV "
        "LassoLarsIC OrthogonalMatchingPursuit OrthogonalMatchingPursuitCV BayesianRidge ARDRegression HuberRegressor "
        "TheilSenRegressor QuantileRegressor SGDRegressor PassiveAggressiveRegressor LinearSVR MultiTaskLasso "
        "MultiTaskElasticNet MultiTaskLassoCV MultiTaskElasticNetCV",
    ),
    (linear.exponential_regressor, "PoissonRegressor GammaRegressor TweedieRegressor"),
    (
        linear.linear_classifier,
        "LinearSVC RidgeClassifier RidgeClassifierCV Perceptron PassiveAggressiveClassifier",
    ),
    (linear.logistic_regression, "LogisticRegression LogisticRegressionCV"),
    (linear.sgd_classifier, "SGDClassifier"),
    (linear.discriminant, "LinearDiscriminantAnalysis"),
    (linear.gaussian_nb, "GaussianNB"),
    (linear.discrete_nb, "MultinomialNB ComplementNB BernoulliNB"),
    (linear.perceptron, "MLPClassifier MLPRegressor"),
    (linear.dummy, "DummyClassifier DummyRegressor"),
    (kernels.svc, "SVC NuSVC"),
    (kernels.svr, "SVR NuSVR OneClassSVM"),
    (kernels.nearest_centre, " ".join(CENTRES)),
    (kernels.neighbours, "KNeighborsClassifier KNeighborsRegressor"),
    (ensembles.pipeline, "Pipeline"),
    (ensembles.search, "GridSearchCV RandomizedSearchCV HalvingGridSearchCV HalvingRandomSearchCV"),
    (ensembles.threshold, "FixedThresholdClassifier TunedThresholdClassifierCV"),
    (ensembles.frozen, "FrozenEstimator"),
    (ensembles.transformed_target, "TransformedTargetRegressor"),
    (ensembles.voting_classifier, "VotingClassifier"),
    (ensembles.voting_regressor, "VotingRegressor"),
    (ensembles.stacking, "StackingClassifier StackingRegressor"),
    (ensembles.calibrated, "CalibratedClassifierCV"),
    (ensembles.multi_output, "MultiOutputRegressor"),
    (several.regressor_chain, "RegressorChain"),
    (ensembles.one_vs_rest, "OneVsRestClassifier"),
    (pairwise.one_vs_one, "OneVsOneClassifier"),
    (wrappers.feature_elimination, "RFE RFECV"),
)

RULES: dict[str, Rule] = {name: rule for rule, names in _GROUPS for name in names.split()}
"""scikit-learn's estimators by class name."""

IMBALANCED: dict[str, Rule] = {
    "Pipeline": wrappers.resampling_pipeline,
    "BalancedRandomForestClassifier": forests.tree_or_forest,
    "RUSBoostClassifier": forests.adaboost_classifier,
    "EasyEnsembleClassifier": wrappers.easy_ensemble,
    "BalancedBaggingClassifier": wrappers.easy_ensemble,
}
"""imbalanced-learn's estimators by class name."""

LIBRARIES: dict[str, Rule] = {
    "xgboost": boosters.xgboost_model,
    "lightgbm": boosters.lightgbm_model,
    "catboost": catboost_trees.catboost_model,
}


def emit(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """Add an estimator's answer to the graph.

    Raises:
        NotConvertible: no rule covers it.
    """
    library = type(model).__module__.partition(".")[0]
    if library in LIBRARIES:
        return LIBRARIES[library](c, model, columns, want)
    if library == "imblearn" and type(model).__name__ in IMBALANCED:
        return IMBALANCED[type(model).__name__](c, model, columns, want)
    if library != "sklearn":
        raise unsupported(model)
    rule = RULES.get(type(model).__name__)
    return rule(c, model, columns, want) if rule else convert_foreign(c, model, columns, want)
