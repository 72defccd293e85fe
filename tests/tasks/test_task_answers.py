"""What each task makes of labels and logits, against formulas written out and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from sklearn.linear_model import LogisticRegression, Ridge

from lora_clf.errors import UsageError
from lora_clf.evaluation.task_breakdown import Scored
from lora_clf.metrics.classification import confusion_matrix
from lora_clf.metrics.multilabel import multilabel_scores
from lora_clf.metrics.ordinal import ordinal_scores, quadratic_kappa
from lora_clf.metrics.regression import ranks, regression_scores
from lora_clf.tasks.multilabel import Multilabel, joined, split_labels
from lora_clf.tasks.ordinal import Ordinal
from lora_clf.tasks.regression import Regression
from lora_clf.training.convex import solve_task_head
from lora_clf.training.solver import STRENGTHS

NONE = np.zeros(1, dtype=bool)


def test_numbers_are_scored_as_scikit_learn_and_scipy_do() -> None:
    from scipy import stats

    draw = np.random.default_rng(0)
    truth = draw.integers(0, 5, 200).astype(float)
    guess = truth + draw.normal(size=200)
    found = regression_scores(truth, guess)
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(truth, guess))
    assert found["rmse"] == pytest.approx(reference.mean_squared_error(truth, guess) ** 0.5)
    assert found["r2"] == pytest.approx(reference.r2_score(truth, guess))
    assert found["pearson"] == pytest.approx(stats.pearsonr(truth, guess)[0])
    assert found["spearman"] == pytest.approx(stats.spearmanr(truth, guess)[0])
    assert np.array_equal(ranks(truth), stats.rankdata(truth))
    same = regression_scores([2.0, 2.0], [1.0, 3.0])
    assert same["r2"] == same["pearson"] == 0.0


def test_ranks_are_scored_as_scikit_learn_does() -> None:
    draw = np.random.default_rng(1)
    truth, guess = draw.integers(0, 5, 300), draw.integers(0, 5, 300)
    found = ordinal_scores(truth, guess, list("abcde"))
    assert found["quadratic_kappa"] == pytest.approx(reference.cohen_kappa_score(truth, guess, weights="quadratic"))
    assert found["mae"] == pytest.approx(np.abs(truth - guess).mean())
    assert quadratic_kappa(confusion_matrix(truth, truth, 5)) == 1.0
    assert quadratic_kappa(confusion_matrix([1, 1], [1, 1], 3)) == 0.0


def test_label_sets_are_scored_as_scikit_learn_does() -> None:
    draw = np.random.default_rng(2)
    truth, guess, shares = draw.random((80, 4)) < 0.3, draw.random((80, 4)) < 0.3, draw.random((80, 4))
    truth[:, 3] = guess[:, 3] = False  # a label that never occurs
    found = multilabel_scores(truth, guess, shares, list("abcd"))
    assert found["subset_accuracy"] == pytest.approx(reference.accuracy_score(truth, guess))
    assert found["hamming_loss"] == pytest.approx(reference.hamming_loss(truth, guess))
    assert found["micro_f1"] == pytest.approx(reference.f1_score(truth, guess, average="micro"))
    assert found["macro_f1"] == pytest.approx(reference.f1_score(truth, guess, average="macro", zero_division=0))
    areas = [reference.average_precision_score(truth[:, c], shares[:, c]) for c in range(3)]
    assert found["macro_pr_auc"] == pytest.approx(np.mean(areas))


def test_numbers_are_learnt_in_standard_units_and_answered_in_their_own() -> None:
    task = Regression(("score",)).fitted(["10", "20", "60"])
    assert task.mean == pytest.approx(30) and task.std == pytest.approx(np.std([10, 20, 60]))
    targets = task.targets(["10", "60"])
    exact = ((targets - 30) / task.std)[:, None]
    assert task.answers(exact.astype(np.float32), np.zeros(2, bool))[1].value == pytest.approx(60, rel=1e-6)
    logits, wanted = torch.tensor([[0.0], [5.0]], dtype=torch.float64), torch.from_numpy(targets)
    for loss, formula in (
        ("mse", lambda d: d * d),
        ("l1", abs),
        ("huber", lambda d: d * d / 2 if abs(d) <= 1 else abs(d) - 0.5),
    ):
        found = Regression(("score",), loss, task.mean, task.std).row_losses(logits, wanted)
        expected = [formula(float(z) - float(t)) for z, t in zip(logits[:, 0], exact[:, 0], strict=True)]
        assert found.tolist() == pytest.approx(expected)
    with pytest.raises(UsageError, match="nothing to learn"):
        Regression(("score",)).fitted(["4", "4"])


def test_the_loss_of_ordered_classes_is_the_log_of_their_probability() -> None:
    task = Ordinal(("low", "medium", "high", "top"))
    logits = np.random.default_rng(3).normal(size=(50, 3)) * 4
    shares = task.shares(logits)
    s = 1 / (1 + np.exp(-logits))
    by_hand = np.stack([1 - s[:, 0], s[:, 0] * (1 - s[:, 1]), s[:, 0] * s[:, 1] * (1 - s[:, 2]), s.prod(1)], axis=1)
    assert np.allclose(shares, by_hand) and np.allclose(shares.sum(1), 1)
    truth = np.arange(50) % 4
    losses = task.row_losses(torch.from_numpy(logits), torch.from_numpy(truth)).numpy()
    assert np.allclose(losses, -np.log(shares[np.arange(50), truth]))
    # The median: the first class up to which at least half of the probability lies.
    median = (np.cumsum(shares, axis=1) < 0.5).sum(1)
    assert np.array_equal(task.ranks(logits), median) and len(set(median)) == 4
    answer = task.answers(np.full((1, 3), 30.0, np.float32), NONE)[0]
    assert answer.label == "top" and answer.rank == pytest.approx(3) and answer.probability == pytest.approx(1)
    assert np.isfinite(task.shares(np.array([[1e4, -1e4, 1e4]]))).all()


def test_numbers_are_cut_into_ordered_classes() -> None:
    task = Ordinal(("low", "medium", "high"), (2.0, 4.0))
    assert [task.read(cell) for cell in ("1", "2", "2.5", "4", "4.1", "high")] == [
        "low", "low", "medium", "medium", "high", "high",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no number"):
        task.read("much")
    with pytest.raises(UsageError, match="rising"):
        Ordinal(("low", "medium", "high"), (4.0, 2.0))


def test_sets_of_labels_are_read_from_cells_and_lists() -> None:
    assert split_labels(" b | a|b ||", "|") == ("b", "a") and split_labels("", "|") == ()
    assert split_labels('["a|x", "b"]', "|") == ("a|x", "b") and split_labels("[]", "|") == ()
    for names in (("a", "b"), (), ("a|x", "b"), ("[odd]",)):
        assert split_labels(joined(names, "|"), "|") == names
    task = Multilabel(("a", "b", "c"), ";")
    assert task.targets(["c;a", ""]).tolist() == [[1, 0, 1], [0, 0, 0]] and task.read("c; a") == "a;c"
    with pytest.raises(ValueError, match="'d' is not known"):
        task.read("a;d")


def test_each_label_gets_the_threshold_that_is_best_for_it_on_enough_rows() -> None:
    task = Multilabel(("often", "rare"), "|")
    targets = np.zeros((60, 2), np.float32)
    targets[:20, 0] = 1
    targets[:3, 1] = 1
    logits = np.full((60, 2), -3.0, np.float32)
    logits[:20, 0] = -1.5  # found, but never with a probability of a half
    settled = task.settled(targets, logits)
    assert settled.cuts[1] == 0.5 and 0.05 < settled.cuts[0] < 0.2
    assert settled.assess(targets, logits)["per_label"]["often"]["f1"] == 1.0
    assert task.assess(targets, logits)["per_label"]["often"]["f1"] == 0.0
    answer = settled.answers(logits[:1], NONE)[0]
    assert answer.labels == ("often",) and answer.cells() == ("often", "0.1824")
    assert settled.unsettled().cuts.tolist() == [0.5, 0.5]


def test_heads_are_solved_to_the_minimum_of_their_own_loss() -> None:
    draw = np.random.default_rng(4)
    x = draw.normal(size=(120, 6)).astype(np.float32)
    y = x @ draw.normal(size=6) + draw.normal(size=120)
    folds = np.arange(120) % 5
    task = Regression(("score",)).fitted([str(value) for value in y])
    found = solve_task_head(x, y, 1, task.row_losses, folds, bias=True)
    scale = x.astype(float).std(0)
    # Mean of squares + s/2 |w|^2 on features of unit variance is Ridge with alpha = N s / 2.
    ridge = Ridge(alpha=120 * found.strength / 2).fit((x - x.mean(0)) / scale, (y - task.mean) / task.std)
    assert np.allclose(found.weight[0] * scale, ridge.coef_, atol=1e-5)
    labels = (np.stack([y > 0, x[:, 0] > 1], axis=1)).astype(np.float32)
    both = solve_task_head(x, labels, 2, Multilabel(("a", "b")).row_losses, folds, bias=True)
    for column in range(2):
        # Its loss is the mean over labels, so each label has half a loss and the penalty counts twice.
        one = LogisticRegression(C=1 / (120 * 2 * both.strength), tol=1e-10, max_iter=5000)
        one.fit((x - x.mean(0)) / scale, labels[:, column])
        assert np.allclose(both.weight[column] * scale, one.coef_[0], atol=1e-3)
    assert found.strength < STRENGTHS[0]
    ranks, losses = (y > 0).astype(np.int64) + (y > 1), Ordinal(("l", "m", "h")).row_losses
    flat = solve_task_head(x, ranks, 2, losses, folds * 0, bias=False)
    assert flat.weight.shape == (2, 6) and not flat.bias.any() and flat.strength == STRENGTHS[len(STRENGTHS) // 2]


@pytest.mark.parametrize("value", ["0.1", "0.7", "1e-200"])
@pytest.mark.parametrize("count", [3, 7, 70])
def test_numbers_that_are_all_the_same_are_nothing_to_learn(value: str, count: int) -> None:
    """Their mean may be another number by a rounding, and then they have a deviation."""
    with pytest.raises(UsageError, match="nothing to learn"):
        Regression(("score",)).fitted([value] * count)
    true = [float(value)] * count
    assert regression_scores(true, [*true[:-1], 1.0])["r2"] == 0.0


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e6])
def test_the_interval_of_a_number_follows_its_unit(unit: float) -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=200)
    task = Regression(("score",), mean=0.0, std=unit)
    logits = (values + random.normal(size=200) * 0.5).astype(np.float32)[:, None]
    labels = [repr(float(value * unit)) for value in values]
    scored = Scored(task, labels, logits, ["t"] * 200, range(200), np.ones(200, dtype=np.int64))
    rate = scored.rate(np.arange(200))
    assert 0.7 * rate["score"] < rate["low"] < rate["score"] < rate["high"] < 1.3 * rate["score"]
