import pytest
import torch

from flowsteer.measure import energy_distance, energy_test


def normal(seed, n, d=2, shift=0.0):
    return shift + torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_the_distance_by_hand():
    # across: 5 and 4, 5 and 4 -> mean 4.5; within: |0 - 0| and |5 - 4|
    a, b = torch.tensor([[0.0], [0.0]]), torch.tensor([[5.0], [4.0]])
    assert energy_distance(a, b) == pytest.approx((2 * 4.5 - 0 - 1) / (2 * 4.5))
    assert energy_distance(a, a) == 0


def test_it_is_unbiased_however_few_the_points_are():
    found = torch.tensor(
        [energy_distance(normal(2 * s, 5), normal(2 * s + 1, 5)) for s in range(400)]
    )
    assert abs(found.mean()) < 3 * found.std() / 20
    assert (found < 0).float().mean() > 0.3


def test_units_and_turns_do_not_matter():
    a, b = normal(0, 20, 3), normal(1, 30, 3, shift=1.0)
    turn = torch.linalg.qr(normal(2, 3, 3)).Q
    assert energy_distance(7 * a @ turn, 7 * b @ turn) == pytest.approx(energy_distance(a, b))


def test_it_sees_what_means_and_variances_do_not():
    ring = 2**0.5 * torch.nn.functional.normalize(normal(0, 300))
    test = energy_test(ring, normal(1, 300), shuffles=199)
    assert test.differs and test.p_value == 1 / 200
    assert "differ" in str(test)


def test_chance_is_called_chance():
    tests = [energy_test(normal(2 * s, 12), normal(2 * s + 1, 8), 99, s) for s in range(200)]
    share = sum(test.differs for test in tests) / len(tests)
    assert share <= 0.04  # 0.01 is expected; 0.04 is over 4 deviations off
    assert all((test.distance > test.floor) <= (test.p_value < 0.03) for test in tests)
    assert "no difference seen" in str(max(tests, key=lambda test: test.p_value))


def test_the_same_seed_gives_the_same_test():
    a, b = normal(0, 10), normal(1, 10)
    assert energy_test(a, b, 99, 3) == energy_test(a, b, 99, 3)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 4), r"\(3, 2\) and \(3, 4\)"),
        (torch.zeros(1, 2), torch.zeros(3, 2), "at least 2 points"),
        (torch.full((3, 2), float("nan")), torch.zeros(3, 2), "NaN"),
    ],
)
def test_what_does_not_compare(a, b, message):
    with pytest.raises(ValueError, match=message):
        energy_distance(a, b)


def test_a_test_needs_a_shuffle():
    with pytest.raises(ValueError, match="shuffles = 0"):
        energy_test(torch.zeros(3, 2), torch.ones(3, 2), 0)
