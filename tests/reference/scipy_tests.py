"""Expected values of src/report/stats.rs, from scipy: Welch's and the paired t-test, intervals of a mean, Hedges' g, Holm.

Samples have 2 to 30 values: ordinary ones, with ties, tiny, huge, far from zero, and without any spread. Where scipy says
NaN, the fixture has no number. Hedges' g takes the exact correction (Hedges 1981, eq. 6e), by `scipy.special.gammaln`. Holm's
adjustment (Holm 1979) is written out here, because scipy has none.
Source: scipy (BSD-3-Clause), called, not copied. Last run: scipy 1.17.1, numpy 2.

    pip install scipy; python tests/reference/scipy_tests.py
"""

import json
import math
import warnings
from pathlib import Path

import numpy as np
from scipy import special, stats

rng = np.random.default_rng(20251014)
warnings.simplefilter("ignore")  # Samples without spread are meant.


def number(value):
    value = float(value)
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")


def hedges(a, b):
    df = len(a) + len(b) - 2
    pooled = math.sqrt(((len(a) - 1) * np.var(a, ddof=1) + (len(b) - 1) * np.var(b, ddof=1)) / df)
    if pooled == 0:
        return None
    correction = math.exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) / math.sqrt(df / 2) if df > 1 else None
    return None if correction is None else number((np.mean(a) - np.mean(b)) / pooled * correction)


def interval(values, confidence):
    n = len(values)
    half = stats.t.ppf((1 + confidence) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n)
    return [number(np.mean(values) - half), number(np.mean(values) + half)]


def case(name, a, b):
    a, b = np.asarray(a, float), np.asarray(b, float)
    welch = stats.ttest_ind(a, b, equal_var=False)
    out = {
        "name": name,
        "a": a.tolist(),
        "b": b.tolist(),
        "mean": number(np.mean(a)),
        "sd": number(np.std(a, ddof=1)),
        "interval": {str(c): interval(a, c) for c in (0.9, 0.95, 0.99)},
        "welch": {"t": number(welch.statistic), "df": number(welch.df), "p": number(welch.pvalue)},
        "hedges_g": hedges(a, b),
    }
    if out["welch"]["t"] is not None:
        ci = welch.confidence_interval(0.95)
        out["welch"]["interval"] = [number(ci.low), number(ci.high)]
    if len(a) == len(b):
        paired = stats.ttest_rel(a, b)
        d = a - b
        spread = np.std(d, ddof=1)
        out["paired"] = {
            "t": number(paired.statistic),
            "df": number(paired.df),
            "p": number(paired.pvalue),
            "d_z": number(np.mean(d) / spread) if spread > 0 else None,
        }
        if out["paired"]["t"] is not None:
            ci = paired.confidence_interval(0.95)
            out["paired"]["interval"] = [number(ci.low), number(ci.high)]
    return out


def holm(ps):
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    adjusted, floor = [0.0] * len(ps), 0.0
    for rank, i in enumerate(order):
        floor = max(floor, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = floor
    return adjusted


cases = [
    case(f"normal {n} and {m}", rng.normal(0.7, 0.02, n), rng.normal(0.69, 0.03, m))
    for n, m in [(2, 2), (2, 5), (3, 3), (3, 10), (4, 4), (5, 5), (7, 6), (10, 10), (17, 17), (30, 30), (30, 2)]
]
cases += [
    case("far apart", rng.normal(0, 1, 5), rng.normal(1000, 1, 5)),
    case("very far apart", rng.normal(0, 1, 30), rng.normal(1e5, 1, 30)),
    case("ties", [0.5, 0.5, 0.5, 0.7, 0.7], [0.5, 0.7, 0.7, 0.7, 0.7]),
    case("equal means", [1.0, 2.0, 3.0], [3.0, 2.0, 1.0]),
    case("tiny", rng.normal(1e-12, 1e-13, 6), rng.normal(1.1e-12, 1e-13, 6)),
    case("huge", rng.normal(1e12, 1e11, 6), rng.normal(1.1e12, 1e11, 6)),
    case("far from zero", 1e6 + np.array([0.25, 0.5, 0.75, 1.0]), 1e6 + np.array([0.5, 1.0, 1.0, 1.5])),
    case("unequal spread", rng.normal(0, 1e-6, 8), rng.normal(1, 10, 8)),
    case("one without spread", [2.0, 2.0, 2.0], [1.0, 2.0, 4.0]),
    case("the same values", [0.25, 0.25, 0.25], [0.25, 0.25, 0.25]),
    case("without spread, apart", [0.25, 0.25, 0.25], [0.75, 0.75, 0.75]),
    case("a constant shift", [0.25, 0.5, 0.75], [0.5, 0.75, 1.0]),
    case("the same sample", [0.25, 0.5, 1.0], [0.25, 0.5, 1.0]),
]
families = [[0.04], [0.01, 0.04, 0.03, 0.005], [0.5, 0.5, 0.5], [0.9, 0.001, 0.02, 0.02, 1e-9], [1.0, 0.0]]
fixture = {"cases": cases, "holm": [{"p": ps, "adjusted": holm(ps)} for ps in families]}
path = Path(__file__).with_name("statistics.json")
path.write_text(json.dumps(fixture, indent=1) + "\n")
print(f"{path}: {len(cases)} cases")
