"""How published tools mis-measure robustness: the tools themselves on small models whose right answer is known.

Each row of the table is one defect: what the tool says, what Casemate says of the same model and samples, and whether
the tool's figure is wrong. `tests/evasion/test_mismeasures.py` holds Casemate to each of them without the tools.

    .venv/bin/python benchmarks/mismeasures.py [names of defects]

The peers are no dependency of Casemate. They are put, without their own dependencies, into benchmarks/.envs/mismeasures
and each defect runs in a process of its own with that folder in its path. Packages that a peer imports only to plot or
to load pictures are stood in for by empty modules.
"""

from __future__ import annotations

import copy
import importlib
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from evidence import ROOT, table
from torch import nn

from casemate.adapters import wrap
from casemate.core.bracket import Goal, Ledger
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind
from casemate.core.lab import Lab
from casemate.core.norms import Norm, distance
from casemate.core.plugin import Plugin
from casemate.core.schema import Feature, Schema
from casemate.engine.harness import batch_of, open_ledger, pursue, unanswered, wrong
from casemate.evasion.apgd import apgd_attack
from casemate.evasion.sigma_zero import sigma_zero_attack
from casemate.evasion.trees import tree_attack, tree_certificate

FOLDER = ROOT / "benchmarks" / ".envs" / "mismeasures"
PEERS = (
    "foolbox==3.3.4",
    "eagerpy==0.30.0",
    "torchattacks==3.5.1",
    "pyautoattack==0.2.0",
    "adv-lib==0.2.8",
    "adversarial-robustness-toolbox==1.20.1",
    "dtai-veritas==0.3.1",
    "six",
    "tqdm",
)
ABSENT = ("torchvision", "torchvision.transforms", "visdom", "git", "robustbench")
LINF = Norm.LINF


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    defect: str
    peer: str
    theirs: str
    ours: str
    wrong: bool


class Slab(nn.Module):
    """Logits `(0, .06 - |x - .45|)`: the answer is 1 only where the number is between .39 and .51."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(n, 2)` of `(n, 1)`."""
        return torch.cat([torch.zeros_like(x), 0.06 - (x - 0.45).abs()], dim=1)


class Broken(nn.Module):
    """NaN where the number is above a half, class 0 elsewhere."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(n, 2)` of `(n, 1)`."""
        return torch.where(x > 0.5, float("nan"), torch.cat([torch.ones_like(x), torch.zeros_like(x)], dim=1) + 0 * x)


class Scaled(nn.Module):
    """A linear model with logits that many times as large: the same answers everywhere."""

    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.net, self.factor = net, factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(n, k)`."""
        return self.factor * self.net(x)


def main(names: list[str]) -> int:
    """Run the named defects (all by default) and print the table; returns 1 where one could not be run."""
    rows, failed = measured(names or sorted(DEFECTS))
    print("\n".join(table(COLUMNS, [told_row(row) for row in rows])))
    return int(failed > 0)


COLUMNS = ("defect", "peer", "its figure", "ours", "peer wrong")


def told_row(row: Row) -> list[object]:
    """The cells of a row."""
    return [row.defect, row.peer, row.theirs, row.ours, "yes" if row.wrong else "no"]


def measured(names: list[str]) -> tuple[list[Row], int]:
    """The rows of some defects, each in a process of its own, and how many could not be run."""
    prepare_peers()
    rows, failed = [], 0
    for name in names:
        done = subprocess.run(
            [sys.executable, __file__, "--one", name],
            env={**os.environ, "PYTHONPATH": f"{FOLDER}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            failed += 1
            print(f"{name}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr, flush=True)
            continue
        rows += [Row(**item) for item in json.loads(done.stdout.splitlines()[-1])]
    return rows, failed


def prepare_peers() -> None:
    """Put the peers into their folder, once."""
    if (FOLDER / "ready").exists():
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", str(FOLDER)]
    subprocess.run([*pip, *PEERS], check=True)
    (FOLDER / "ready").touch()


def one(name: str) -> None:
    """Measure one defect in this process and print its rows as a line of JSON."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for absent in ABSENT:
        try:
            importlib.import_module(absent)
        except ImportError:
            stand_in = ModuleType(absent)
            stand_in.__getattr__ = lambda _: MagicMock()  # type: ignore[method-assign]
            stand_in.__path__ = []
            sys.modules[absent] = stand_in
    print("\n" + json.dumps([asdict(row) for row in DEFECTS[name]()]))


def case_of(model: Any, x: np.ndarray, y: np.ndarray, *, lo: float = 0.0, hi: float = 1.0) -> Case:
    """A case of one feature's bounds, as a table or as images, around a module or a fitted estimator."""
    schema = Schema(
        DataKind.TABLE if x.ndim == 2 else DataKind.IMAGE,
        x.shape[1:],
        tuple(Feature(f"f{i}", lo=lo, hi=hi) for i in range(x.shape[1] if x.ndim == 2 else 1)),
    )
    return Case(model=wrap(model, schema=schema), splits=Splits(test=Data(x, schema, y)))


def pursued(plugin: Plugin, case: Case, goal: Goal) -> Ledger:
    """The ledger of one attack or certificate on all rows."""
    data = case.data("test")
    batch = batch_of(data.x, data.labels, data.sample_id)
    ledger = open_ledger(case, batch, goal.norm)
    lab = Lab(plugin.id, 0, options=plugin.options())
    pursue(plugin, case, batch, goal, lab, ledger=ledger, rows=np.arange(len(batch)))
    return ledger


def slab() -> tuple[Case, torch.Tensor, torch.Tensor]:
    """Eight rows of class 0 that are all broken within .44, and the same as tensors."""
    x, y = np.linspace(0, 0.02, 8, dtype=np.float32)[:, None], np.zeros(8, dtype=np.int64)
    return case_of(Slab(), x, y), torch.tensor(x), torch.tensor(y)


def images(n: int = 64, *, lo: float = 0.0) -> tuple[nn.Module, np.ndarray, np.ndarray]:
    """A linear model of three classes on images of 1 x 4 x 4 between `lo` and 1, and its own answers."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    x = np.random.default_rng(0).uniform(lo, 1, size=(n, 1, 4, 4)).astype(np.float32)
    with torch.no_grad():
        return net, x, net(torch.tensor(x)).argmax(1).numpy()


def torchattacks_pgd(
    net: nn.Module, x: np.ndarray, y: np.ndarray, *, eps: float, step: float, steps: int
) -> np.ndarray:
    """The points that torchattacks' PGD returns, from the samples on."""
    import torchattacks

    attack = torchattacks.PGD(net, eps=eps, alpha=step, steps=steps, random_start=False)
    return np.asarray(attack(torch.tensor(x), torch.tensor(y)).numpy())


def last_iterate() -> list[Row]:
    """All eight rows are passed through the slab; what is returned lies behind it."""
    import foolbox

    case, x, y = slab()
    ours = f"{pursued(apgd_attack, case, Goal(LINF, 0.7)).broken(0.7).sum()} of 8 broken"
    attack = foolbox.attacks.LinfPGD(abs_stepsize=0.2, steps=5, random_start=False)
    _, _, success = attack(foolbox.PyTorchModel(Slab().eval(), bounds=(0, 1)), x, y, epsilons=0.7)
    points = torchattacks_pgd(Slab(), x.numpy(), y.numpy(), eps=0.7, step=0.2, steps=5)
    counts = {
        "foolbox 3.3.4 LinfPGD": int(success.sum()),
        "torchattacks 3.5.1 PGD": int(wrong(case.the_model(), points, y.numpy()).sum()),
    }
    return [
        Row("last iterate instead of best", peer, f"{n} of 8 broken", ours, wrong=n < 8) for peer, n in counts.items()
    ]


def rising_curve() -> list[Row]:
    """Robust accuracy at .2, .44 and .8, by a run for each eps and from brackets."""
    import foolbox

    case, x, y = slab()
    radii = (0.2, 0.44, 0.8)
    attack = foolbox.attacks.LinfFastGradientAttack(random_start=False)
    _, _, success = attack(foolbox.PyTorchModel(Slab().eval(), bounds=(0, 1)), x, y, epsilons=list(radii))
    theirs = [float(1 - part.float().mean()) for part in success]
    mine = np.min([pursued(apgd_attack, case, Goal(LINF, eps)).upper for eps in radii], axis=0)
    ours = [float((mine > eps * (1 + 1e-6)).mean()) for eps in radii]
    return [Row("curve rises with eps", "foolbox 3.3.4 FGSM", told(theirs), told(ours), theirs != sorted(theirs)[::-1])]


def told(numbers: list[float]) -> str:
    """Numbers in a cell."""
    return ", ".join(f"{number:.3g}" for number in numbers)


def literal_box() -> list[Row]:
    """Samples between -1 and 1: the largest distance of what is returned, at eps = .2."""
    from pyautoattack.autopgd_base import APGDAttack

    net, x, y = images(lo=-1.0)
    ledger = pursued(apgd_attack, case_of(net, x, y, lo=-1.0), Goal(LINF, 0.2))
    ours = f"at most {distance(LINF, x, ledger.witness).max():.3g} away"
    attack = APGDAttack(net, n_iter=10, norm="Linf", eps=0.2, seed=0, loss="ce", device="cpu")
    attack.init_hyperparam(torch.tensor(x))
    points = {
        "torchattacks 3.5.1 PGD": torchattacks_pgd(net, x, y, eps=0.2, step=0.05, steps=10),
        "pyautoattack 0.2.0 APGD": attack.perturb(torch.tensor(x), torch.tensor(y)).detach().numpy(),
    }
    far = {peer: float(distance(LINF, x, after).max()) for peer, after in points.items()}
    return [
        Row("clips to [0, 1] whatever the bounds", peer, f"{d:.3g} away", ours, wrong=d > 0.21)
        for peer, d in far.items()
    ]


def dlr_two_classes() -> list[Row]:
    """APGD on DLR with two classes."""
    from pyautoattack.autopgd_base import APGDAttack

    case, x, y = slab()
    attack = APGDAttack(Slab(), n_iter=10, norm="Linf", eps=0.5, seed=0, loss="dlr", device="cpu")
    try:
        points = attack.perturb(x, y).detach().numpy()
        theirs = f"{wrong(case.the_model(), points, y.numpy()).sum()} of 8 broken"
    except IndexError as error:
        theirs = f"IndexError: {error}"
    ours = f"{pursued(apgd_attack, case, Goal(LINF, 0.5)).broken(0.5).sum()} of 8 broken"
    return [Row("DLR with two classes", "pyautoattack 0.2.0 APGD", theirs, ours, theirs != "8 of 8 broken")]


def batch_statistics() -> list[Row]:
    """A net in train mode: how far the attack moves its running mean, and the first sample's point with its batch."""
    import foolbox

    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).train()
    _, x, y = images()
    before = copy.deepcopy(net.state_dict())
    case = case_of(net, x, y)
    pursued(apgd_attack, case, Goal(LINF, 0.1))
    ours = float((net[2].running_mean - before["2.running_mean"]).abs().max())
    attack = foolbox.attacks.LinfPGD(steps=10, random_start=False)
    attack(foolbox.PyTorchModel(net, bounds=(0, 1)), torch.tensor(x), torch.tensor(y), epsilons=0.1)
    moved = float((net[2].running_mean - before["2.running_mean"]).abs().max())
    cells = (f"running mean moved by {moved:.3g}", f"running mean moved by {ours:.3g}")
    return [Row("attack trains the model's BatchNorm", "foolbox 3.3.4 LinfPGD", *cells, moved > 0)]


def modes_left() -> list[Row]:
    """A net in train mode whose BatchNorm is frozen: how many parts are in another mode afterwards."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).train()
    net[2].eval()
    _, x, y = images()
    before = [part.training for part in net.modules()]
    pursued(apgd_attack, case_of(net, x, y), Goal(LINF, 0.1))
    ours = sum(part.training != was for part, was in zip(net.modules(), before, strict=True))
    torchattacks_pgd(net, x, y, eps=0.1, step=0.02, steps=3)
    theirs = sum(part.training != was for part, was in zip(net.modules(), before, strict=True))
    return [Row("model left in another mode", "torchattacks 3.5.1 PGD", f"{theirs} parts", f"{ours} parts", theirs > 0)]


def global_seed() -> list[Row]:
    """Whether the next number of torch's own stream is another one after an attack."""
    from pyautoattack.autopgd_base import APGDAttack

    net, x, y = images()

    def disturbed(attack: Callable[[], object]) -> bool:
        torch.manual_seed(7)
        first = float(torch.rand(1))
        torch.manual_seed(7)
        attack()
        return float(torch.rand(1)) != first

    apgd = APGDAttack(net, n_iter=3, norm="Linf", eps=0.1, seed=0, loss="ce", device="cpu")
    theirs = disturbed(lambda: apgd.perturb(torch.tensor(x), torch.tensor(y)))
    ours = disturbed(lambda: pursued(apgd_attack, case_of(net, x, y), Goal(LINF, 0.1)))
    cells = ("changed" if theirs else "unchanged", "changed" if ours else "unchanged")
    return [Row("seeds the global generator", "pyautoattack 0.2.0 APGD", *cells, theirs)]


def rounding() -> list[Row]:
    """How many returned points are further than eps in float64, and how many of ours."""
    net, x, y = images(256)
    eps = 8 / 255
    ledger = pursued(apgd_attack, case_of(net, x, y), Goal(LINF, eps))
    ours = int((distance(LINF, x, ledger.witness) > eps).sum())
    theirs = int((distance(LINF, x, torchattacks_pgd(net, x, y, eps=eps, step=eps / 4, steps=10)) > eps).sum())
    return [
        Row("leaves the ball by rounding", "torchattacks 3.5.1 PGD", f"{theirs} of 256", f"{ours} of 256", theirs > 0)
    ]


def no_numbers() -> list[Row]:
    """Accuracy on three samples of class 0, two of which are answered with NaN."""
    import foolbox

    x, y = np.array([[0.4], [0.6], [0.9]], dtype=np.float32), np.zeros(3, dtype=np.int64)
    case = case_of(Broken(), x, y)
    model = foolbox.PyTorchModel(Broken().eval(), bounds=(0, 1))
    theirs = float(foolbox.utils.accuracy(model, torch.tensor(x), torch.tensor(y)))
    ours = float(1 - unanswered(case.the_model(), x, y).mean())
    return [Row("NaN counts as class 0", "foolbox 3.3.4 accuracy", f"{theirs:.3g}", f"{ours:.3g}", theirs > 0.5)]


def sure_model() -> list[Row]:
    """Robust accuracy at .2 of a linear model, and of the same with logits 100,000 times as large."""
    net, x, y = images()
    theirs, ours = [], []
    for factor in (1.0, 1e5):
        scaled = Scaled(net, factor).eval()
        case = case_of(scaled, x, y)
        points = torchattacks_pgd(scaled, x, y, eps=0.2, step=0.05, steps=20)
        theirs.append(float(1 - wrong(case.the_model(), points, y).mean()))
        ours.append(float(1 - pursued(apgd_attack, case, Goal(LINF, 0.2)).broken(0.2).mean()))
    return [Row("logits scaled: robust", "torchattacks 3.5.1 PGD", told(theirs), told(ours), theirs[1] > theirs[0])]


def failed_at_zero() -> list[Row]:
    """The l0 distance that is returned for a model that never answers wrongly."""
    from adv_lib.attacks import sigma_zero

    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    x, y = images(4)[1], np.zeros(4, dtype=np.int64)
    points = sigma_zero(net, torch.tensor(x), torch.tensor(y), num_steps=20).detach().numpy()
    theirs = float(np.median(distance(Norm.L0, x, points)))
    ours = float(np.median(pursued(sigma_zero_attack, case_of(net, x, y), Goal(Norm.L0, np.inf)).upper))
    return [Row("failure at distance 0", "adv_lib 0.2.8 sigma_zero", told([theirs]), told([ours]), theirs == 0)]


def counted_already_wrong() -> list[Row]:
    """Successes at eps = 1e-9 where 16 of 64 labels are wrong from the start."""
    import foolbox

    net, x, y = images()
    y = np.where(np.arange(64) < 16, (y + 1) % 3, y)
    attack = foolbox.attacks.LinfPGD(steps=3, random_start=False)
    model = foolbox.PyTorchModel(net, bounds=(0, 1))
    _, _, success = attack(model, torch.tensor(x), torch.tensor(y), epsilons=1e-9)
    by = pursued(apgd_attack, case_of(net, x, y), Goal(LINF, 1e-9)).upper_by
    cells = (f"{int(success.sum())} by the attack", f"{int((by == apgd_attack.id).sum())} by the attack")
    return [Row("already wrong counts as attacked", "foolbox 3.3.4 LinfPGD", *cells, bool(success.any()))]


def base_score() -> list[Row]:
    """Verified error at eps = 1e-6 beside the clean error, of a booster with base_score .05."""
    from art.estimators.classification import XGBoostClassifier
    from art.metrics import RobustnessVerificationTreeModelsCliqueMethod
    from xgboost import XGBClassifier

    x = np.random.default_rng(0).random((100, 2))
    y = (x[:, 0] > 0.7).astype(np.int64)
    fitted = XGBClassifier(n_estimators=2, max_depth=2, learning_rate=0.1, base_score=0.05, n_jobs=1).fit(x, y)
    clean = float((fitted.predict(x) != y).mean())
    verifier = RobustnessVerificationTreeModelsCliqueMethod(
        classifier=XGBoostClassifier(model=fitted, nb_features=2, nb_classes=2), verbose=False
    )
    _, theirs = verifier.verify(x=x, y=y, eps_init=1e-6, nb_search_steps=1, max_clique=2, max_level=2)
    ours = float((pursued(tree_certificate, case_of(fitted, x, y), Goal(LINF, np.inf)).lower <= 1e-6).mean())
    cells = (f"{theirs:.3g} (clean error {clean:.3g})", f"{ours:.3g} (clean error {clean:.3g})")
    return [Row("trees without base_score", "ART 1.20.1 clique method", *cells, theirs < clean)]


def start_delta() -> list[Row]:
    """The distance to the nearest other answer of one stump, when the search starts in a box of .1."""
    import veritas
    from xgboost import XGBClassifier

    x, y = np.repeat([[0.1], [0.9]], 20, axis=0).astype(np.float32), np.repeat([0, 1], 20)
    fitted = XGBClassifier(n_estimators=1, max_depth=1, base_score=0.5, n_jobs=1).fit(x, y)
    grid = np.linspace(0, 1, 10_001, dtype=np.float32)[:, None]
    exact = float(np.abs(grid[fitted.predict(grid) != y[0]] - x[0]).min())
    stump = veritas.get_addtree(fitted, silent=True)
    search = veritas.VeritasRobustnessSearch(x[0], 0.1, source_at=None, target_at=stump, silent=True)
    theirs = told([float(value) for value in search.search()])
    ours = float(pursued(tree_attack, case_of(fitted, x[:1], y[:1]), Goal(LINF, np.inf)).upper[0])
    cells = (f"(distance, lower, upper) {theirs}", f"{ours:.3g} (by a grid {exact:.3g})")
    return [Row("search box caps the distance", "Veritas 0.3.1", *cells, float(search.search()[2]) < 0.9 * exact)]


def late_eps() -> list[Row]:
    """An eps set to .5 after the attack was made with .1: how far its points are."""
    art, x, y = of_art()
    attack = art["PGD"](art["net"], eps=0.1, eps_step=0.1, max_iter=10, verbose=False)
    attack.eps = 0.5
    theirs = float(distance(LINF, x, attack.generate(x, y=y)).max())
    net, *_ = images()
    ours = float(distance(LINF, x, pursued(apgd_attack, case_of(net, x, y), Goal(LINF, 0.5)).witness).max())
    cells = (f"says eps {attack.eps}, moves {theirs:.3g}", f"moves {ours:.3g} of 0.5")
    return [Row("eps set after construction", "ART 1.20.1 PGD", *cells, theirs < 0.11)]


def cast_down() -> list[Row]:
    """Accuracy on a sample that a model in float64 answers rightly by a lead of 1e-9."""
    from art.estimators.classification import PyTorchClassifier

    net = nn.Linear(1, 2).double().eval()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.0], [1.0]]))
        net.bias.copy_(torch.tensor([0.5, 0.0]))
    x, y = np.array([[0.5 + 1e-9]]), np.array([1])
    wrapped = PyTorchClassifier(net, loss=nn.CrossEntropyLoss(), input_shape=(1,), nb_classes=2)
    theirs = float((wrapped.predict(x).argmax(axis=1) == y).mean())
    ours = float(1 - unanswered(case_of(net, x, y).the_model(), x, y).mean())
    return [Row("logits rounded to float32", "ART 1.20.1 predict", f"{theirs:.3g}", f"{ours:.3g}", theirs < 1)]


def of_art() -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """ART's PGD and its wrapper of the linear model, with samples and labels."""
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    net, x, y = images()
    wrapped = PyTorchClassifier(
        net, loss=nn.CrossEntropyLoss(), input_shape=(1, 4, 4), nb_classes=3, clip_values=(0, 1)
    )
    return {"PGD": ProjectedGradientDescent, "net": wrapped}, x, y


DEFECTS: dict[str, Callable[[], list[Row]]] = {
    part.__name__: part
    for part in (
        last_iterate, rising_curve, literal_box, dlr_two_classes, batch_statistics, modes_left, global_seed, rounding,
        no_numbers, sure_model, failed_at_zero, counted_already_wrong, base_score, start_delta, late_eps, cast_down,
    )
}  # fmt: skip
"""The defects by name."""

if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2])
    else:
        sys.exit(main(sys.argv[1:]))
