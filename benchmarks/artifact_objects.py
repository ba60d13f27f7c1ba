"""Objects that people keep in model files, made by the real libraries: fitted estimators, arrays, frames, networks.

Only what is installed is made, so it runs in any environment and on old releases of everything (Python 3.7 on): what a
release cannot make is left out.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import itertools
import math
import sys
from collections import namedtuple

__all__ = ["LIBRARIES", "Thing", "things"]

Thing = namedtuple("Thing", "library kind variant make")
"""`library`; `kind`, the class or topic that is left out or kept as one; `variant` of it; `make()` gives the object."""

OPTIONS = {
    "affinity": ["rbf", "nearest_neighbors", "cosine"],
    "algorithm": ["auto", "kd_tree", "ball_tree", "brute", "SAMME", "SAMME.R", "lars", "cd", "full", "elkan", "lloyd",
                  "parallel", "deflation", "arpack", "randomized", "prim", "generic", "kdtree", "boruvka_kdtree"],
    "base_score": [0.5],
    "booster": ["gbtree", "gblinear", "dart"],
    "boosting_type": ["gbdt", "dart", "goss", "rf"],
    "bootstrap": [True],
    "class_weight": ["balanced", {0: 1.0, 1: 2.0}],
    "covariance_type": ["full", "tied", "diag", "spherical"],
    "criterion": ["gini", "entropy", "log_loss", "mse", "mae", "squared_error", "friedman_mse", "absolute_error",
                  "poisson"],
    "decision_function_shape": ["ovo"],
    "early_stopping": [True, False],
    "encode": ["onehot", "onehot-dense", "ordinal"],
    "eigen_solver": ["arpack", "dense", "auto", "randomized"],
    "fit_inverse_transform": [True],
    "handle_unknown": ["ignore", "use_encoded_value", "infrequent_if_exist"],
    "init": ["random", "nndsvd", "k-means++", "pca"],
    "initialization": ["zero"],
    "kernel": ["linear", "poly", "rbf", "sigmoid", "cosine", "laplacian", "gaussian", "tophat", "knn", "chi2"],
    "learning_rate": ["constant", "optimal", "invscaling", "adaptive"],
    "linkage": ["ward", "average", "single"],
    "loss": ["hinge", "log", "log_loss", "modified_huber", "squared_hinge", "perceptron", "squared_loss", "huber",
             "squared_error", "epsilon_insensitive", "squared_epsilon_insensitive", "deviance", "exponential", "ls",
             "lad", "quantile", "absolute_error", "poisson", "gamma", "least_squares", "least_absolute_deviation",
             "binary_crossentropy", "auto", "absolute_loss", "categorical_crossentropy"],
    "method": ["sigmoid", "isotonic", "temperature", "exact", "barnes_hut", "lar", "standard", "modified", "hessian",
               "ltsa", "dbscan", "xi", "box-cox", "yeo-johnson", "predict_proba"],
    "metric": ["euclidean", "manhattan", "cosine", "haversine", "minkowski", "chebyshev", "precomputed"],
    "metric_params": [{"p": 3}],
    "mode": ["percentile", "fpr", "fdr", "fwe", "k_best", "distance"],
    "multi_class": ["ovr", "multinomial", "crammer_singer", "one_vs_one"],
    "n_iter_no_change": [3],
    "normalize": [True],
    "novelty": [True],
    "oob_score": [True],
    "objective": ["binary:logistic", "reg:squarederror", "multi:softprob", "rank:pairwise", "reg:gamma", "huber"],
    "output_distribution": ["normal"],
    "penalty": ["l1", "l2", "elasticnet", "none", None],
    "positive": [True],
    "power": [0, 1, 1.5, 2, 3],
    "probability": [True],
    "quantile": [0.3],
    "random_state": ["state"],
    "scoring": ["accuracy", "r2", "neg_mean_squared_error"],
    "selection": ["random"],
    "shrinkage": ["auto"],
    "solver": ["lbfgs", "liblinear", "newton-cg", "newton-cholesky", "sag", "saga", "svd", "cholesky", "lsqr",
               "sparse_cg", "eigen", "adam", "sgd", "cd", "mu", "highs", "lapack", "interior-point", "randomized"],
    "splitter": ["random"],
    "store_cv_values": [True],
    "strategy": ["mean", "median", "most_frequent", "constant", "stratified", "uniform", "quantile", "kmeans", "prior",
                 "all", "auto", "not minority"],
    "svd_method": ["lapack"],
    "tree_method": ["exact", "hist", "approx"],
    "warm_start": [True],
    "weights": ["uniform", "distance"],
    "weight_init": ["zero"],
}  # fmt: skip
SIZES = {"n_estimators": 3, "max_iter": 30, "n_iter": 2, "n_components": 2, "iterations": 3, "n_clusters": 2,
         "n_neighbors": 3, "min_samples": 3, "batch_size": 16, "n_jobs": None, "num_iterations": 3, "k": 2}  # fmt: skip


def things(libraries=()):
    """Every `Thing` of the libraries that are installed (of some with `libraries`), in a fixed order."""
    for library, make in LIBRARIES.items():
        if libraries and library not in libraries:
            continue
        try:
            importlib.import_module(library)
        except Exception:  # not installed, or it does not go with the rest
            continue
        try:
            yield from make()
        except (AttributeError, ImportError, TypeError) as error:  # an old release
            print(f"{library}: {type(error).__name__}: {error}", file=sys.stderr)


# ------------------------------------------------------------------------------------------------ sklearn and its like


def _sklearn():
    for name in ("enable_halving_search_cv", "enable_iterative_imputer", "enable_hist_gradient_boosting"):
        with contextlib.suppress(ImportError):
            importlib.import_module("sklearn.experimental." + name)
    yield from _estimators("sklearn", _all_sklearn())
    yield from _sklearn_parts()
    yield from _composed()


def _all_sklearn():
    try:
        from sklearn.utils import all_estimators
    except ImportError:
        from sklearn.utils.testing import all_estimators
    return [found for _, found in all_estimators()]


def _estimators(library, classes):
    """Each class fitted with its defaults, and with each option that it takes."""
    for made in sorted(classes, key=lambda found: found.__name__):
        try:
            known = inspect.signature(made.__init__).parameters
        except (TypeError, ValueError):
            continue
        yield Thing(library, made.__name__, "default", _fitting(made, {}))
        yield Thing(library, made.__name__, "unfitted", _fitting(made, {}, fit=False))
        for name, values in _options_of(made, known):
            for value in values:
                yield Thing(library, made.__name__, f"{name}={value}", _fitting(made, {name: value}))
        for data in ("frame", "sparse", "text", "outputs", "classes", "float32"):
            yield Thing(library, made.__name__, data, _fitting(made, {}, data=data))


def _options_of(made, known):
    found = {name: list(OPTIONS[name]) for name in known if name in OPTIONS}
    for name, rules in (getattr(made, "_parameter_constraints", None) or {}).items():
        texts = [sorted(map(str, rule.options)) for rule in (rules if isinstance(rules, list) else [])
                 if hasattr(rule, "options")]  # fmt: skip
        known_values = found.setdefault(name, [])
        known_values += [text for text in itertools.chain(*texts) if text not in known_values]
    return sorted(found.items())


def _fitting(made, options, fit=True, data=""):
    def make():
        import numpy as np

        known = inspect.signature(made.__init__).parameters
        given = {name: value for name, value in {**SIZES, **_needed(made)}.items() if name in known}
        if "VAR_KEYWORD" in {str(found.kind.name) for found in known.values()}:
            given.update(_quiet(made))
        given.update(options)
        if given.get("random_state") == "state":
            given["random_state"] = np.random.RandomState(0)
        if not fit:
            return made(**given)
        return _fitted(lambda: made(**given), list(_data(data)))

    return make


def _quiet(made):
    if "catboost" in made.__module__:
        return {"verbose": False, "allow_writing_files": False, "iterations": 3}
    return {"verbose": -1} if "lightgbm" in made.__module__ else {}


def _fitted(build, tries):
    error = None
    for data in tries:
        try:
            estimator = build()
            estimator.fit(*data)
            return estimator
        except Exception as caught:
            error = caught
    raise error


def _needed(made):
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.tree import DecisionTreeClassifier

    regressor = "Regress" in made.__name__
    one = LinearRegression() if regressor else LogisticRegression(solver="liblinear")
    if "AdaBoost" in made.__name__:
        one = DecisionTreeClassifier(max_depth=1) if not regressor else None
    needed = {"estimator": one, "base_estimator": one, "regressor": LinearRegression(), "classifier": one,
              "param_grid": {"C": [0.1, 1.0]}, "param_distributions": {"C": [0.1, 1.0]}, "dictionary": [[1.0, 0, 0, 0]],
              "transformers": [("a", "passthrough", [0, 1])], "steps": [("a", one)],
              "transformer_list": [("a", _scaler())], "cv": 2, "classifiers": [one, one],
              "regressors": [LinearRegression()], "meta_classifier": one, "meta_regressor": LinearRegression(),
              "estimators": [("a", one), ("b", one)], "verbose": 0}  # fmt: skip
    dropped = {"verbose"} if "mlxtend" in made.__module__ else set()
    known = inspect.signature(made.__init__).parameters
    needed = {name: value for name, value in needed.items() if name in known and name not in dropped}
    if "estimator" in known and "base_estimator" in known:
        needed.pop("base_estimator")
    return needed


def _scaler():
    """A transformer to hold."""
    from sklearn.preprocessing import StandardScaler

    return StandardScaler()


def _data(kind):
    """Arguments of `fit`, from the commonest to the rarest; 40 records of 4 features."""
    import numpy as np

    rng = np.random.RandomState(0)
    x = rng.rand(40, 4)
    y = (x[:, 0] > 0.5).astype(int)
    if kind:
        yield from _other_data(kind, x, y)
        return
    texts = ["a b c", "b c d", "c d e", "e f a"] * 10
    yield x, y
    yield x, x[:, 0] + 0.1
    yield (x,)
    yield (texts,)
    yield ([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}],)
    yield (y,)
    yield x[:, :1].ravel(), y
    yield x, np.stack([y, 1 - y], 1)
    yield x, rng.rand(40, 2)
    yield (x[:4] @ x[:4].T,)
    yield ([["a", "b"], ["b"]],)
    yield ([["a"], ["b"]], [0, 1])


def _other_data(kind, x, y):
    import numpy as np

    if kind == "frame":
        import pandas as pd

        frame = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2]})
        yield frame, pd.Series(y, name="y")
        yield (frame.assign(c=["u", "v"] * 20),)
    elif kind == "sparse":
        from scipy import sparse

        yield sparse.csr_matrix(x * (x > 0.6)), y
        yield (sparse.csr_matrix(x),)
    elif kind == "text":
        words = np.array([["a", "u"], ["b", "v"]] * 20, dtype=object)
        yield words, np.array(["no", "yes"] * 20)
        yield x, np.array(["no", "yes"] * 20)
        yield x, np.array(["no", "yes"] * 20, dtype=object)
    elif kind == "outputs":
        yield x, np.stack([y, 1 - y, y], 1)
        yield x, x[:, :2]
    elif kind == "classes":
        yield x, (x[:, 0] * 3).astype(int)
    else:
        yield x.astype("float32"), y.astype("float32")


def _named(library, kind, objects):
    """Things from `{variant: make}`."""
    for variant, make in objects.items():
        yield Thing(library, kind(variant) if callable(kind) else kind, variant, make)


def _kind_of(variant):
    return variant.partition(" ")[0]


def _sklearn_parts():
    from sklearn import gaussian_process, metrics, model_selection, neighbors

    kernels = gaussian_process.kernels
    one = kernels.RBF()
    for name in sorted(dir(kernels)):
        found = getattr(kernels, name)
        if inspect.isclass(found) and issubclass(found, kernels.Kernel) and not inspect.isabstract(found):
            yield Thing("sklearn", name, "kernel", lambda found=found: _first(
                found, lambda found=found: found(one, one), lambda found=found: found(one, 2.0),
                lambda found=found: found([one, one]), lambda found=found: found(one)))  # fmt: skip
    for name in sorted(model_selection.__all__ if hasattr(model_selection, "__all__") else []):
        found = getattr(model_selection, name, None)
        if inspect.isclass(found) and not hasattr(found, "fit"):
            yield Thing("sklearn", name, "splitter", lambda found=found: _first(
                found, lambda found=found: found(2), lambda found=found: found([0, 1]),
                lambda found=found: found({"a": [1, 2]}), lambda found=found: found({"a": [1]}, 2),
                lambda found=found: found([([0], [1])]), lambda found=found: found(model_selection.KFold(2), 2,
                0)))  # fmt: skip
    names = getattr(metrics, "get_scorer_names", lambda: sorted(metrics.SCORERS))()
    for name in sorted(names):
        yield Thing("sklearn", "scorer " + name, "", lambda name=name: metrics.get_scorer(name))
    source = metrics if hasattr(metrics, "DistanceMetric") else neighbors
    for name in ("euclidean", "manhattan", "chebyshev", "minkowski", "hamming", "canberra", "braycurtis", "haversine",
                 "jaccard", "matching", "dice", "kulsinski", "rogerstanimoto", "russellrao", "sokalmichener",
                 "sokalsneath", "cityblock", "l1", "l2", "p", "seuclidean", "mahalanobis", "wminkowski"):  # fmt: skip
        for dtype in ("float64", "float32"):
            yield Thing("sklearn", "DistanceMetric " + name, dtype, lambda name=name, dtype=dtype: _distance(
                source.DistanceMetric, name, dtype))  # fmt: skip
    yield from _sklearn_indexes(neighbors)


def _sklearn_indexes(neighbors):
    x = next(iter(_data("")))[0]
    for name in ("KDTree", "BallTree"):
        for metric in ("euclidean", "manhattan", "chebyshev", "minkowski"):
            yield Thing("sklearn", name, metric, lambda name=name, metric=metric: getattr(neighbors, name)(
                x, metric=metric))  # fmt: skip

    def datasets():
        from sklearn import datasets

        return datasets.load_iris()

    def values(module):
        found = importlib.import_module(module)
        return [item for name, item in sorted(vars(found).items())
                if inspect.isfunction(item) and not name.startswith("_") and name in getattr(found, "__all__",
                ())]  # fmt: skip

    yield Thing("sklearn", "Bunch", "iris", datasets)
    for module in ("sklearn.metrics", "sklearn.metrics.pairwise", "sklearn.feature_selection", "sklearn.preprocessing"):
        yield Thing("sklearn", "functions", module, lambda module=module: values(module))


def _distance(source, name, dtype):
    import numpy as np

    more = {"minkowski": {"p": 3}, "seuclidean": {"V": np.ones(3)}, "mahalanobis": {"V": np.eye(3)},
            "wminkowski": {"p": 3, "w": np.ones(3)}}.get(name, {})  # fmt: skip
    return source.get_metric(name, np.dtype(dtype), **more) if dtype == "float32" else source.get_metric(name, **more)


def _first(*makes):
    error = None
    for make in makes:
        try:
            return make()
        except Exception as caught:
            error = caught
    raise error


def _composed():
    """Pipelines, columns, searches and wrappers as people build them."""
    import numpy as np
    from sklearn import compose, ensemble, feature_selection, linear_model, model_selection, pipeline, preprocessing
    from sklearn import tree as trees

    x, y = next(iter(_data("")))
    logistic, scaler = linear_model.LogisticRegression, preprocessing.StandardScaler

    def columns():
        import pandas as pd

        frame = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": ["u", "v"] * 20})
        chosen = compose.ColumnTransformer([("n", scaler(), ["a", "b"]),
                                            ("c", preprocessing.OneHotEncoder(handle_unknown="ignore"), ["c"])],
                                           remainder="passthrough")  # fmt: skip
        return pipeline.make_pipeline(chosen, logistic()).fit(frame, y)

    def selector():
        import pandas as pd

        picked = compose.make_column_selector(dtype_include=np.number)
        return compose.ColumnTransformer([("n", scaler(), picked)]).fit(pd.DataFrame(x, columns=list("abcd")))

    def steps():
        union = pipeline.make_union(scaler(), preprocessing.MinMaxScaler())
        chosen = feature_selection.SelectKBest(feature_selection.f_classif, k=3)
        return pipeline.make_pipeline(union, chosen, ensemble.RandomForestClassifier(3)).fit(x, y)

    def search(kind, **more):
        return lambda: kind(logistic(), {"C": [0.1, 1.0]}, cv=2, **more).fit(x, y)

    def functions():
        picked = [np.log1p, np.sqrt, np.exp, np.abs, np.square, np.log, np.nan_to_num, np.expm1, np.cbrt, np.ravel]
        return [preprocessing.FunctionTransformer(item) for item in picked]

    def randomized():
        from scipy import stats

        spread = {"C": stats.uniform(0.1, 1), "tol": stats.loguniform(1e-4, 1e-2), "max_iter": stats.randint(50, 60)}
        return model_selection.RandomizedSearchCV(logistic(), spread, n_iter=2, cv=2, random_state=0).fit(x, y)

    def multi():
        return model_selection.GridSearchCV(
            logistic(), {"C": [0.1]}, cv=model_selection.StratifiedKFold(2), scoring=["accuracy", "f1"], refit="f1"
        ).fit(x, y)

    def kept():
        found = [("a", logistic()), ("b", trees.DecisionTreeClassifier())]
        return [ensemble.VotingClassifier(found, voting="soft").fit(x, y), {"model": logistic().fit(x, y), "v": 1}]

    def output():
        made = pipeline.make_pipeline(scaler(), logistic())
        return made.set_output(transform="pandas").fit(x, y)

    yield from _named("sklearn", _kind_of, {
        "composed-columns": columns, "composed-selector": selector, "composed-steps": steps,
        "composed-grid": search(model_selection.GridSearchCV), "composed-functions": functions,
        "composed-random": search(model_selection.RandomizedSearchCV, n_iter=1), "composed-spread": randomized,
        "composed-multi": multi, "composed-kept": kept, "composed-output": output,
    })  # fmt: skip


def _imblearn():
    try:
        from imblearn.utils.testing import all_estimators
    except ImportError:
        from imblearn.utils._testing import all_estimators
    yield from _estimators("imblearn", [found for _, found in all_estimators()])


def _mlxtend():
    found = {}
    for part in ("classifier", "regressor", "cluster", "preprocessing", "feature_extraction", "feature_selection"):
        module = importlib.import_module("mlxtend." + part)
        found.update({name: getattr(module, name) for name in getattr(module, "__all__", ())})
    yield from _estimators("mlxtend", [item for item in found.values() if inspect.isclass(item)])


# ------------------------------------------------------------------------------------------------------------- boosters


def _xgboost():
    import xgboost

    names = [name for name in dir(xgboost) if name.startswith("XGB")]
    yield from _estimators("xgboost", [getattr(xgboost, name) for name in names if "Ranker" not in name])
    x, y = next(iter(_data("")))

    def booster(**more):
        return lambda: xgboost.train({"verbosity": 0, **more}, xgboost.DMatrix(x, y), 3)

    def ranker():
        return xgboost.XGBRanker(n_estimators=3).fit(x, y, group=[20, 20])

    def watched():
        stop = xgboost.callback.EarlyStopping(2)
        return xgboost.XGBClassifier(n_estimators=5, callbacks=[stop]).fit(x, y, eval_set=[(x, y)], verbose=False)

    yield from _named("xgboost", _kind_of, {
        "Booster": booster(), "Booster linear": booster(booster="gblinear"), "Booster dart": booster(booster="dart"),
        "XGBRanker": ranker, "EarlyStopping": watched, "Booster list": lambda: [booster()(), {"features": ["a"]}],
    })  # fmt: skip


def _lightgbm():
    import lightgbm

    names = ("LGBMClassifier", "LGBMRegressor", "LGBMModel")
    yield from _estimators("lightgbm", [getattr(lightgbm, name) for name in names])
    x, y = next(iter(_data("")))
    few = {"verbose": -1, "min_data_in_leaf": 2}

    def booster(**more):
        return lambda: lightgbm.train({**few, **more}, lightgbm.Dataset(x, y), 3)

    def evaluated():
        data = lightgbm.Dataset(x, y)
        return lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(x, y, eval_set=[(x, y)]), data.get_label()

    yield from _named("lightgbm", _kind_of, {
        "Booster": booster(), "Booster dart": booster(boosting="dart"), "CVBooster": lambda: lightgbm.cv(
            few, lightgbm.Dataset(x, y), 2, nfold=2, return_cvbooster=True)["cvbooster"],
        "LGBMRanker": lambda: lightgbm.LGBMRanker(n_estimators=3, verbose=-1).fit(x, y, group=[20, 20]),
        "evaluated": evaluated,
    })  # fmt: skip


def _catboost():
    import catboost

    names = ("CatBoostClassifier", "CatBoostRegressor", "CatBoost", "CatBoostRanker")
    x, y = next(iter(_data("")))

    def make(name, **more):
        made = getattr(catboost, name)
        if name == "CatBoost":
            return made({"iterations": 3, "verbose": False, "allow_writing_files": False}).fit(x, y)
        return made(iterations=3, verbose=False, allow_writing_files=False, **more).fit(x, y)

    for name in names:
        yield Thing("catboost", name, "default", lambda name=name: make(name))
        yield Thing("catboost", name, "depth", lambda name=name: make(name, depth=2, l2_leaf_reg=1.0))
    yield Thing("catboost", "CatBoostClassifier", "unfitted", lambda: catboost.CatBoostClassifier(iterations=2))
    yield Thing("catboost", "CatBoostClassifier", "text", lambda: catboost.CatBoostClassifier(
        iterations=2, verbose=False, allow_writing_files=False).fit(x, ["no", "yes"] * 20))  # fmt: skip
    yield Thing("catboost", "MultiRegression", "", lambda: make("CatBoostRegressor", loss_function="MultiRMSE").fit(
        x, x[:, :2]))  # fmt: skip


# ----------------------------------------------------------------------------------------------- numpy, scipy, pandas


def _numpy():
    import numpy as np

    for code in ["?", "b", "B", "h", "H", "i", "I", "l", "L", "q", "Q", "e", "f", "d", "g", "F", "D", "G", "S5",
                 "U5", "O",
                 "V8", "M8[ns]", "M8[D]", "m8[s]", ">f8", ">i4", "M8", "<U0"]:  # fmt: skip
        yield Thing("numpy", "dtype " + code, "array", lambda code=code: np.zeros(3, dtype=code))
        yield Thing("numpy", "dtype " + code, "dtype", lambda code=code: np.dtype(code))
        yield Thing("numpy", "dtype " + code, "scalar", lambda code=code: np.zeros(3, dtype=code)[0])
        yield Thing("numpy", "dtype " + code, "type", lambda code=code: np.dtype(code).type)
    yield from _named("numpy", _kind_of, _numpy_objects(np))
    for name in sorted(dir(np)):
        if isinstance(getattr(np, name, None), np.ufunc):
            yield Thing("numpy", "ufunc " + name, "", lambda name=name: getattr(np, name))
    for name in ("mean", "median", "std", "var", "sum", "prod", "max", "min", "amax", "amin", "argmax", "argmin",
                 "clip",
                 "ravel", "reshape", "nan_to_num", "nanmean", "nanmedian", "round", "around", "concatenate", "stack",
                 "zeros", "ones", "array", "asarray", "diff", "cumsum", "sort", "unique", "where", "percentile",
                 "quantile", "average", "squeeze", "transpose", "array_equal", "interp", "linspace"):  # fmt: skip
        yield Thing("numpy", "function " + name, "", lambda name=name: getattr(np, name))
    for name in ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"):
        yield Thing("numpy", name, "generator", lambda name=name: np.random.Generator(getattr(np.random, name)(0)))
        yield Thing("numpy", name, "bits", lambda name=name: getattr(np.random, name)(0))
        yield Thing("numpy", name, "state", lambda name=name: np.random.RandomState(getattr(np.random, name)(0)))
    for name in ("Polynomial", "Chebyshev", "Legendre", "Hermite", "HermiteE", "Laguerre"):
        yield Thing("numpy", name, "", lambda name=name: getattr(np.polynomial, name)([1.0, 2.0]))


def _numpy_objects(np):
    records = np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])
    nested = np.dtype([("a", "i4", (2,)), ("b", [("c", "U3")])], align=True)
    return {
        "order fortran": lambda: np.asfortranarray(np.eye(3)), "order empty": lambda: np.zeros((0, 3)),
        "order slice": lambda: np.eye(4)[::2, ::2], "order zero": lambda: np.array(1.0),
        "objects": lambda: np.array([{"a": 1}, "x", None, np.float32(1)], dtype=object),
        "records": lambda: records, "records rec": lambda: records.view(np.recarray),
        "records row": lambda: records.view(np.recarray)[0], "records void": lambda: records[0],
        "records nested": lambda: np.zeros(2, nested), "records dtype": lambda: nested,
        "masked": lambda: np.ma.masked_array([1, 2], [True, False]), "masked one": lambda: np.ma.masked,
        "masked records": lambda: np.ma.mrecords.fromarrays([[1, 2], [3.0, 4.0]]), "matrix": lambda: np.matrix([[1,
        2]]),
        "chars": lambda: np.char.array(["a", "b"]), "poly1d": lambda: np.poly1d([1, 2]),
        "random state": lambda: np.random.RandomState(0), "random generator": lambda: np.random.default_rng(0),
        "random seeds": lambda: np.random.SeedSequence(3), "big": lambda: np.arange(5000.0),
        "dict": lambda: {"w": np.ones((3, 3), "f4"), "names": np.array(["a", "b"]), "n": np.int64(3)},
        "strings": lambda: np.array(["a", "b"], dtype=np.dtypes.StringDType()), "nan": lambda: [np.nan, np.newaxis],
        "metadata": lambda: np.dtype("f8", metadata={"a": 1}), "finfo": lambda: np.finfo("f4"),
        "iinfo": lambda: np.iinfo("i4"), "errors": lambda: np.linalg.LinAlgError("singular"),
        "index": lambda: np.s_[1:2, ::3], "dims": lambda: np.ndarray,
    }  # fmt: skip


def _scipy():
    import numpy as np
    from scipy import interpolate, optimize, signal, sparse, spatial, stats

    x, y = np.arange(8.0), np.arange(8.0) ** 2
    dense = np.eye(3)
    for kind in ("csr", "csc", "coo", "dia", "dok", "lil", "bsr"):
        for form in ("matrix", "array"):
            yield Thing("scipy", f"{kind}_{form}", "", lambda made=f"{kind}_{form}": getattr(sparse, made)(dense))
    for name in sorted(set(dir(stats))):
        found = getattr(stats, name)
        if isinstance(found, (stats.rv_continuous, stats.rv_discrete)):
            yield Thing("scipy", "distribution " + name, "", lambda found=found: found)
            yield Thing("scipy", "distribution " + name, "frozen", lambda found=found: found(
                *[0.5 + 0.1 * i for i in range(found.numargs)]))  # fmt: skip
    yield from _named("scipy", _kind_of, _scipy_objects(np, interpolate, spatial, stats, (x, y)))
    yield from _named("scipy", _kind_of, {
        "OptimizeResult": lambda: optimize.minimize(lambda v: float((v**2).sum()), [1.0]),
        "Bounds": lambda: optimize.Bounds([0], [1]), "LinearConstraint": lambda: optimize.LinearConstraint(dense, 0, 1),
        "lti": lambda: signal.lti([1.0], [1.0, 2.0]), "dlti": lambda: signal.dlti([1.0], [1.0, 2.0]),
        "StateSpace": lambda: signal.StateSpace(dense, dense, dense, dense), "norm": lambda: stats.norm(0, 1),
        "TestResult": lambda: [stats.ttest_ind(x, y), stats.pearsonr(x, y), stats.linregress(x, y), stats.ks_2samp(x,
         y)],
    })  # fmt: skip
    from scipy import special

    for name in ("expit", "logit", "erf", "gamma", "gammaln", "softmax", "logsumexp", "xlogy", "boxcox", "inv_boxcox"):
        yield Thing("scipy", "function " + name, "", lambda name=name: getattr(special, name))


def _scipy_objects(np, interpolate, spatial, stats, xy):
    x, y = xy
    points = np.random.RandomState(0).rand(12, 2)
    return {
        "interp1d": lambda: interpolate.interp1d(x, y), "interp1d cubic": lambda: interpolate.interp1d(x, y, "cubic"),
        "CubicSpline": lambda: interpolate.CubicSpline(x, y), "BSpline": lambda: interpolate.make_interp_spline(x, y),
        "PchipInterpolator": lambda: interpolate.PchipInterpolator(x, y), "PPoly": lambda: interpolate.PPoly(
            np.ones((2, 7)), x), "BPoly": lambda: interpolate.BPoly(np.ones((2, 7)), x),
        "Akima1DInterpolator": lambda: interpolate.Akima1DInterpolator(x, y),
        "UnivariateSpline": lambda: interpolate.UnivariateSpline(x, y),
        "InterpolatedUnivariateSpline": lambda: interpolate.InterpolatedUnivariateSpline(x, y),
        "LSQUnivariateSpline": lambda: interpolate.LSQUnivariateSpline(x, y, [3.5]),
        "RectBivariateSpline": lambda: interpolate.RectBivariateSpline(x, x, np.outer(x, x)),
        "SmoothBivariateSpline": lambda: interpolate.SmoothBivariateSpline(*np.random.RandomState(0).rand(3, 40)),
        "RegularGridInterpolator": lambda: interpolate.RegularGridInterpolator((x, x), np.outer(x, x)),
        "NearestNDInterpolator": lambda: interpolate.NearestNDInterpolator(points, points[:, 0]),
        "LinearNDInterpolator": lambda: interpolate.LinearNDInterpolator(points, points[:, 0]),
        "CloughTocher2DInterpolator": lambda: interpolate.CloughTocher2DInterpolator(points, points[:, 0]),
        "RBFInterpolator": lambda: interpolate.RBFInterpolator(points, points[:, 0]),
        "Rbf": lambda: interpolate.Rbf(points[:, 0], points[:, 1], points[:, 0]),
        "KroghInterpolator": lambda: interpolate.KroghInterpolator(x, y),
        "BarycentricInterpolator": lambda: interpolate.BarycentricInterpolator(x, y),
        "NdPPoly": lambda: interpolate.NdPPoly(np.ones((2, 7)), (x,)),
        "CubicHermiteSpline": lambda: interpolate.CubicHermiteSpline(x, y, y),
        "KDTree": lambda: spatial.KDTree(points), "cKDTree": lambda: spatial.cKDTree(points),
        "Rotation": lambda: spatial.transform.Rotation.from_euler("z", 1.0), "Slerp": lambda: spatial.transform.Slerp(
            [0, 1], spatial.transform.Rotation.from_euler("z", [0.0, 1.0])),
        "gaussian_kde": lambda: stats.gaussian_kde(x), "multivariate_normal": lambda: stats.multivariate_normal([0, 0]),
        "rv_histogram": lambda: stats.rv_histogram(np.histogram(y)), "dirichlet": lambda: stats.dirichlet([1.0, 2.0]),
        "rv_discrete": lambda: stats.rv_discrete(values=([1, 2], [0.5, 0.5])), "ecdf": lambda: stats.ecdf(x),
        "wishart": lambda: stats.wishart(3, np.eye(2)), "matrix_normal": lambda: stats.matrix_normal(np.eye(2)),
        "Delaunay": lambda: spatial.Delaunay(points), "ConvexHull": lambda: spatial.ConvexHull(points),
    }  # fmt: skip


def _pandas():
    import numpy as np
    import pandas as pd

    for name, make in _pandas_values(np, pd).items():
        yield Thing("pandas", name, "series", lambda make=make: pd.Series(make()))
        yield Thing("pandas", name, "frame", lambda make=make: pd.DataFrame({"a": make(), "b": 1, "c": "x"}))
        yield Thing("pandas", name, "index", lambda make=make: pd.DataFrame({"v": 1.0}, index=pd.Index(make())))
        yield Thing("pandas", name, "array", lambda make=make: pd.array(make()))
        yield Thing("pandas", name, "dtype", lambda make=make: pd.Series(make()).dtype)
        yield Thing("pandas", name, "one", lambda make=make: list(pd.Series(make()))[:1])
    dates = pd.date_range("2020", periods=4, tz="UTC")
    frame = pd.DataFrame({"a": [1, 2, 3, 4], "b": list("wxyz"), "c": dates})
    yield from _named("pandas", _kind_of, {
        "MultiIndex": lambda: pd.MultiIndex.from_product([[1, 2], ["a", "b"]], names=["i", "j"]),
        "MultiIndex frame": lambda: frame.set_index(["a", "b"]), "RangeIndex": lambda: pd.RangeIndex(3),
        "IntervalIndex": lambda: pd.interval_range(0, 3), "frame": lambda: frame, "frame wide": lambda: frame.T,
        "frame describe": lambda: frame.describe(), "frame group": lambda: frame.groupby("b").sum(numeric_only=True),
        "frame attrs": lambda: frame.rename_axis("x"), "frame empty": lambda: pd.DataFrame(),
        "NA": lambda: [pd.NA, pd.NaT, pd.Timestamp("2020"), pd.Timedelta("1D"), pd.Period("2020-01"), pd.Interval(0,
        1)],
        "zone": lambda: pd.Timestamp("2020", tz="Europe/Paris"), "mix": lambda: {"f": frame, "i": frame.index},
        "Flags": lambda: frame.set_flags(allows_duplicate_labels=False), "IndexSlice": lambda: [slice(1, 2)],
    })  # fmt: skip
    for name in sorted(pd.offsets.__all__):
        yield Thing("pandas", "offset " + name, "", lambda name=name: getattr(pd.offsets, name)())


def _pandas_values(np, pd):
    return {
        "int": lambda: np.arange(4), "float": lambda: np.arange(4.0), "bool": lambda: np.array([True, False] * 2),
        "text": lambda: list("abcd"), "mixed": lambda: [1, "a", None, 2.0], "small": lambda: np.arange(4, dtype="i1"),
        "unsigned": lambda: np.arange(4, dtype="u8"), "complex": lambda: np.arange(4) * 1j,
        "dates": lambda: pd.date_range("2020", periods=4), "freq": lambda: pd.date_range("2020", periods=4, freq="MS"),
        "deltas": lambda: pd.timedelta_range("1D", periods=4), "periods": lambda: pd.period_range("2020", periods=4),
        "zoned": lambda: pd.date_range("2020", periods=4, tz="Europe/Paris"),
        "intervals": lambda: pd.interval_range(0, 4), "category": lambda: pd.Categorical(list("abca")),
        "ordered": lambda: pd.Categorical(list("abca"), ordered=True), "Int64": lambda: pd.array([1, None, 2, 3],
        "Int64"),
        "UInt8": lambda: pd.array([1, None, 2, 3], "UInt8"), "Float64": lambda: pd.array([1, None, 2, 3], "Float64"),
        "Float32": lambda: pd.array([1, None, 2, 3], "Float32"), "Int8": lambda: pd.array([1, None, 2, 3], "Int8"),
        "Int16": lambda: pd.array([1, 2, 2, 3], "Int16"), "Int32": lambda: pd.array([1, 2, 2, 3], "Int32"),
        "UInt16": lambda: pd.array([1, 2, 2, 3], "UInt16"), "UInt32": lambda: pd.array([1, 2, 2, 3], "UInt32"),
        "UInt64": lambda: pd.array([1, 2, 2, 3], "UInt64"), "boolean": lambda: pd.array([True, None] * 2, "boolean"),
        "string": lambda: pd.array(["a", None] * 2, "string"), "str": lambda: pd.array(["a", "b"] * 2, "str"),
        "sparse": lambda: pd.arrays.SparseArray([0, 0, 1, 2]), "cut": lambda: pd.cut(np.arange(4.0), 2),
        "arrow": lambda: pd.array([1, 2, 3, 4], "int64[pyarrow]"), "arrow text": lambda: pd.array(
            ["a", "b"] * 2, "string[pyarrow]"), "intervals dates": lambda: pd.interval_range(
            pd.Timestamp("2020"), periods=4),
    }  # fmt: skip


def _joblib():
    import joblib
    import numpy as np

    yield from _named("joblib", _kind_of, {
        "arrays": lambda: [np.eye(3), {"w": np.arange(4)}], "arrays objects": lambda: np.array([1, "a"], dtype=object),
        "arrays matrix": lambda: np.matrix([[1.0]]), "Parallel": lambda: joblib.Parallel(n_jobs=1),
        "delayed": lambda: joblib.delayed(math.sqrt), "arrays record": lambda: np.zeros(2, [("a", "i4")]),
    })  # fmt: skip


def _statsmodels():
    import numpy as np
    import statsmodels.api as sm

    x, y = next(iter(_data("")))
    design = sm.add_constant(x)
    series = np.cumsum(np.random.RandomState(0).rand(60))

    def formula():
        import pandas as pd
        import statsmodels.formula.api as smf

        return smf.ols("a ~ b", pd.DataFrame({"a": x[:, 0], "b": x[:, 1]})).fit()

    def model(name, **more):
        return lambda: getattr(sm, name)(y, design, **more).fit(**({"disp": 0} if name in ("Logit", "Probit") else {}))

    found = {name: model(name) for name in ("OLS", "WLS", "GLS", "RLM", "Logit", "Probit", "Poisson", "QuantReg")}
    for name in ("Binomial", "Gaussian", "Poisson", "Gamma", "NegativeBinomial", "Tweedie", "InverseGaussian"):
        found["GLM " + name] = lambda name=name: sm.GLM(y + 0.5 * (name in ("Gamma", "InverseGaussian")), design,
                                                        family=getattr(sm.families, name)()).fit()  # fmt: skip
    found.update({
        "formula": formula, "ARIMA": lambda: sm.tsa.ARIMA(series, order=(1, 0, 0)).fit(),
        "SARIMAX": lambda: sm.tsa.SARIMAX(series, order=(1, 0, 0)).fit(disp=0),
        "ExponentialSmoothing": lambda: sm.tsa.ExponentialSmoothing(series, trend="add").fit(),
        "AutoReg": lambda: sm.tsa.AutoReg(series, 1).fit(), "VAR": lambda: sm.tsa.VAR(np.stack(
            [series, series[::-1] + x[:1, 0]], 1)).fit(1), "KDE": lambda: sm.nonparametric.KDEUnivariate(series).fit(),
        "MNLogit": lambda: sm.MNLogit((x[:, 0] * 3).astype(int), design).fit(disp=0),
    })  # fmt: skip
    yield from _named("statsmodels", _kind_of, found)


def _category_encoders():
    import category_encoders

    yield from _estimators("category_encoders", [
        item for _, item in sorted(vars(category_encoders).items()) if inspect.isclass(item)])  # fmt: skip


def _hmmlearn():
    from hmmlearn import hmm

    x = next(iter(_data("")))[0]
    for name in ("GaussianHMM", "GMMHMM", "CategoricalHMM", "MultinomialHMM", "PoissonHMM"):
        for kind in ("diag", "full"):

            def make(name=name, kind=kind):
                given = {"covariance_type": kind} if name.startswith("G") else {}
                return getattr(hmm, name)(2, n_iter=2, **given).fit(x if given else (x[:, :1] * 3).astype(int))

            yield Thing("hmmlearn", name, kind, make)


def _omegaconf():
    from omegaconf import OmegaConf

    yield Thing(
        "omegaconf", "DictConfig", "", lambda: OmegaConf.create({"a": 1, "b": {"c": [1, 2.0, "x", None, True]}})
    )
    yield Thing("omegaconf", "ListConfig", "", lambda: OmegaConf.create([1, {"a": "${b}"}]))


def _gensim():
    from gensim import corpora, models

    texts = [["a", "b", "c"], ["b", "c", "d"], ["a", "d"]] * 5
    words = corpora.Dictionary(texts)
    bags = [words.doc2bow(text) for text in texts]
    small = {"min_count": 1, "vector_size": 4, "epochs": 1, "workers": 1}
    yield from _named("gensim", _kind_of, {
        "Word2Vec": lambda: models.Word2Vec(texts, **small), "FastText": lambda: models.FastText(texts, **small),
        "Doc2Vec": lambda: models.Doc2Vec([models.doc2vec.TaggedDocument(text, [i]) for i, text in enumerate(texts)],
                                          **small),
        "KeyedVectors": lambda: models.Word2Vec(texts, **small).wv, "Dictionary": lambda: words,
        "TfidfModel": lambda: models.TfidfModel(bags), "LdaModel": lambda: models.LdaModel(bags, 2, words),
        "LsiModel": lambda: models.LsiModel(bags, words, 2), "Phrases": lambda: models.Phrases(texts),
        "NmfModel": lambda: models.Nmf(bags, 2, id2word=words), "HdpModel": lambda: models.HdpModel(bags, words),
    })  # fmt: skip


def _nltk():
    import nltk
    from nltk.tokenize import punkt

    tagged = [[("a", "X"), ("b", "Y")]] * 4
    yield from _named("nltk", _kind_of, {
        "NaiveBayesClassifier": lambda: nltk.NaiveBayesClassifier.train([({"a": True}, "x"), ({"b": True}, "y")] * 3),
        "PunktSentenceTokenizer": lambda: punkt.PunktSentenceTokenizer("A b. C d. E f."),
        "UnigramTagger": lambda: nltk.UnigramTagger(tagged), "BigramTagger": lambda: nltk.BigramTagger(
            tagged, backoff=nltk.DefaultTagger("X")), "SnowballStemmer": lambda: nltk.SnowballStemmer("english"),
        "PorterStemmer": nltk.PorterStemmer, "FreqDist": lambda: nltk.FreqDist("abc"), "ConditionalFreqDist": lambda:
        nltk.ConditionalFreqDist([("a", 1)]), "RegexpTokenizer": lambda: nltk.RegexpTokenizer(r"\w+"),
        "DecisionTreeClassifier": lambda: nltk.DecisionTreeClassifier.train([({"a": 1}, "x"), ({"a": 2}, "y")]),
    })  # fmt: skip


def _lifelines():
    import lifelines

    x, y = next(iter(_data("")))
    yield Thing("lifelines", "KaplanMeierFitter", "", lambda: lifelines.KaplanMeierFitter().fit(x[:, 0], y))
    yield Thing("lifelines", "NelsonAalenFitter", "", lambda: lifelines.NelsonAalenFitter().fit(x[:, 0], y))
    yield Thing("lifelines", "WeibullFitter", "", lambda: lifelines.WeibullFitter().fit(x[:, 0] + 0.1, y))


def _torch():
    from artifact_networks import networks

    yield from networks(Thing)


def _transformers():
    from artifact_networks import language

    yield from language(Thing)


LIBRARIES = {
    "numpy": _numpy, "scipy": _scipy, "pandas": _pandas, "joblib": _joblib, "sklearn": _sklearn, "imblearn": _imblearn,
    "mlxtend": _mlxtend, "xgboost": _xgboost, "lightgbm": _lightgbm, "catboost": _catboost,
    "statsmodels": _statsmodels, "category_encoders": _category_encoders, "hmmlearn": _hmmlearn,
    "omegaconf": _omegaconf, "gensim": _gensim, "nltk": _nltk, "lifelines": _lifelines, "torch": _torch,
     "transformers": _transformers,
}  # fmt: skip
"""Library to the maker of its things."""
