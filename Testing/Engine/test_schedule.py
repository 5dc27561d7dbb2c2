from __future__ import annotations

import itertools

import pytest
import torch

from NNSegmentLib.engine.optimizer import (
    AveragedWeights,
    make_optimizer,
    may_be_recorded,
    optimizer_state,
    restore_optimizer,
    set_learning_rate,
)
from NNSegmentLib.engine.schedule import Pace, decay
from NNSegmentLib.errors import RunError
from NNSegmentLib.run import TrainingSettings


def test_the_poly_schedule_is_nnunets():
    pace = Pace(TrainingSettings(epochs=1000))

    assert pace.learning_rate(0, 0, 0.0) == 0.01
    assert pace.learning_rate(500, 125000, 0.0) == pytest.approx(0.01 * 0.5**0.9)
    assert pace.learning_rate(999, 249999, 0.0) == pytest.approx(0.01 * 0.001**0.9)


def test_the_rate_is_constant_inside_an_epoch():
    pace = Pace(TrainingSettings(epochs=10, iterations_per_epoch=5))

    assert {pace.learning_rate(3, step, elapsed) for step, elapsed in [(15, 1.0), (19, 99.0)]} == {0.01 * 0.7**0.9}


@pytest.mark.parametrize("schedule", ["poly", "cosine", "constant"])
def test_schedules_never_rise_and_start_at_one(schedule):
    factors = [decay(schedule, i / 50) for i in range(51)]

    assert factors[0] == 1
    assert all(later <= earlier for earlier, later in itertools.pairwise(factors))
    assert factors[-1] == pytest.approx(1 if schedule == "constant" else 0)


def test_the_rate_warms_up_linearly():
    pace = Pace(TrainingSettings(warmup_steps=4, schedule="constant"))

    assert [pace.learning_rate(0, step, 0.0) for step in range(5)] == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01])


def test_without_a_time_budget_the_warm_up_takes_its_steps_however_short_the_training_is():
    pace = Pace(TrainingSettings(epochs=4, iterations_per_epoch=10, warmup_steps=40, schedule="constant"))

    assert [pace.learning_rate(n // 10, n, 0.0) for n in (9, 19, 29, 39)] == pytest.approx(
        [0.0025, 0.005, 0.0075, 0.01]
    )


def test_under_a_time_budget_the_rate_follows_the_clock():
    pace = Pace(TrainingSettings(time_s=200.0, epochs=7))

    assert pace.learning_rate(0, 0, 100.0) == pytest.approx(0.01 * 0.5**0.9)
    assert pace.learning_rate(3, 10, 200.0) == 0


def test_the_warm_up_of_a_slow_machine_ends_with_a_fifth_of_its_time():
    pace = Pace(TrainingSettings(time_s=100.0, warmup_steps=50, schedule="constant"))

    rates = [pace.learning_rate(0, step, 5.0 * step) for step in range(6)]  # five seconds a step
    assert rates == pytest.approx([0.0002, 0.0025, 0.005, 0.0075, 0.01, 0.01])
    assert pace.learning_rate(0, 24, 1.0) == pytest.approx(0.005)  # a fast one has made half the steps by then


def test_an_epoch_by_the_clock_has_some_steps_unless_the_time_is_spent():
    pace = Pace(TrainingSettings(time_s=100.0))

    assert not pace.epoch_is_over(7, 14.0, 50.0, 2.0)
    assert pace.epoch_is_over(8, 16.0, 52.0, 2.0)
    assert pace.epoch_is_over(3, 6.0, 99.5, 2.0)


def test_an_epoch_by_the_clock_ends_where_the_next_step_would_end_further_from_its_aim():
    pace = Pace(TrainingSettings(time_s=900.0))  # epochs of 18 s

    assert not pace.epoch_is_over(9, 15.9, 100.0, 4.0)
    assert pace.epoch_is_over(9, 16.1, 100.0, 4.0)


def test_what_is_left_of_a_training_is_told_by_the_clock_or_by_the_epochs():
    by_clock, by_epochs = Pace(TrainingSettings(time_s=100.0, epochs=50)), Pace(TrainingSettings(epochs=12))

    assert [by_clock.seconds_left(4, 40.0, 10.0), by_clock.epochs(4, 40.0, 10.0)] == [60, 4 + 6]
    assert [by_epochs.seconds_left(4, 40.0, 10.0), by_epochs.epochs(4, 40.0, 10.0)] == [80, 12]
    assert [by_epochs.is_over(epoch, 101.0, 1.0) for epoch in (11, 12)] == [False, True]
    assert by_clock.seconds_left(11, 101.0, 10.0) == by_epochs.seconds_left(13, 101.0, 10.0) == 0


@pytest.mark.parametrize(("budget", "expected"), [(60, 3), (300, 15), (900, 18), (3600, 72)])
def test_epochs_under_a_time_budget_bring_events_regularly(budget, expected):
    assert Pace(TrainingSettings(time_s=budget)).epoch_s == pytest.approx(expected)


def test_training_by_the_clock_ends_within_half_a_step_of_the_budget():
    pace, elapsed, steps = Pace(TrainingSettings(time_s=100.0)), 0.0, 0
    while not pace.is_over(0, elapsed, 2.3):
        began, iteration = elapsed, 0
        while True:
            elapsed, iteration, steps = elapsed + 2.3, iteration + 1, steps + 1
            if pace.epoch_is_over(iteration, elapsed - began, elapsed, 2.3):
                break

    assert elapsed == pytest.approx(100, abs=1.15)


def test_short_epochs_keep_the_share_of_validation():
    pace = Pace(TrainingSettings(time_s=100.0, iterations_per_epoch=250, validation_iterations=50))

    assert [pace.validation_iterations(n) for n in (250, 100, 1)] == [50, 20, 1]
    assert Pace(TrainingSettings()).validation_iterations(3) == 50


def test_averaged_weights_equal_a_loop_over_the_steps():
    weight = torch.nn.Parameter(torch.zeros(3))
    averaged, expected = AveragedWeights([weight], 0.5), torch.zeros(3)
    for step in range(6):
        with torch.no_grad():
            weight.add_(step + 1.0)
        averaged.update(step)
        share = min(0.5, (1 + step) / (10 + step))
        expected = share * expected + (1 - share) * weight.detach()
    raw = weight.detach().clone()

    with averaged.in_network():
        assert torch.allclose(weight, expected)
    assert torch.equal(weight, raw)


def test_an_optimiser_refuses_the_state_of_another_kind():
    parameters = [torch.nn.Parameter(torch.ones(2))]
    adam = make_optimizer(parameters, TrainingSettings(optimizer="adamw"))
    parameters[0].sum().backward()
    adam.step()

    with pytest.raises(RunError, match="settings"):
        restore_optimizer(make_optimizer(parameters, TrainingSettings()), adam.state_dict())


def test_sgd_has_nnunets_constants():
    group = make_optimizer([torch.nn.Parameter(torch.ones(1))], TrainingSettings()).param_groups[0]

    assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.01, 0.99, 3e-5, True)


def test_without_momentum_a_step_is_the_rate_times_the_gradient():
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = make_optimizer([parameter], TrainingSettings(momentum=0.0, weight_decay=0.0))

    for _ in range(2):
        parameter.grad = torch.full((1,), 5.0)
        optimizer.step()

    assert parameter.item() == pytest.approx(1 - 2 * 0.01 * 5)


def test_an_optimiser_agrees_to_be_recorded_only_while_it_may_be():
    optimizer = make_optimizer([torch.nn.Parameter(torch.ones(1))], TrainingSettings(optimizer="adamw"))

    with may_be_recorded(optimizer):
        assert optimizer.param_groups[0]["capturable"]
    assert not optimizer.param_groups[0]["capturable"]


def one_kernel(parameters) -> torch.optim.Optimizer:
    """As on a graphics card."""
    rate = torch.tensor(0.01)
    return torch.optim.SGD(parameters, lr=rate, momentum=0.9, nesterov=True, weight_decay=0.0, fused=True)


def test_the_rate_of_the_next_step_is_set_in_the_place_that_a_recorded_step_reads():
    plain = make_optimizer([torch.nn.Parameter(torch.ones(1))], TrainingSettings())
    fused = one_kernel([torch.nn.Parameter(torch.ones(1))])
    place = fused.param_groups[0]["lr"]

    set_learning_rate(plain, 0.25)
    set_learning_rate(fused, 0.25)

    assert plain.param_groups[0]["lr"] == place.item() == 0.25
    assert fused.param_groups[0]["lr"] is place


def test_a_state_goes_from_one_way_of_computing_to_the_other():
    """Of a network in another order of numbers, with a weight that asks for no gradient in one of the two ways."""
    shape = (4, 3, 2, 2, 2)
    start = torch.randn(shape)
    here, bias = torch.nn.Parameter(start.clone()), torch.nn.Parameter(torch.ones(4))
    there = torch.nn.Parameter(start.clone().to(memory_format=torch.channels_last_3d))
    other_bias = torch.nn.Parameter(torch.ones(4))
    settings = TrainingSettings(momentum=0.9, weight_decay=0.0)
    plain, fused = make_optimizer([here, bias], settings), one_kernel([there, other_bias])

    def step(optimizer, weight):
        optimizer.zero_grad()
        (weight**2).sum().backward()
        optimizer.step()

    step(plain, here)
    there.data.copy_(here.data)
    restore_optimizer(fused, optimizer_state(plain, 0.01))
    step(plain, here)
    step(fused, there)
    assert torch.allclose(here, there)

    stored = optimizer_state(fused, 0.01)
    assert (stored["param_groups"][0]["fused"], stored["param_groups"][0]["lr"]) == (None, 0.01)
    restored = make_optimizer([here, bias], settings)
    restore_optimizer(restored, stored)
    bias.grad = torch.ones(4)
    step(restored, here)
    step(fused, there)
    assert torch.allclose(here, there)

    assert isinstance(fused.param_groups[0]["lr"], torch.Tensor)
    assert fused.state[there]["momentum_buffer"].stride() == there.stride()
    assert not restored.param_groups[0]["fused"]


def test_a_first_step_that_is_skipped_leaves_no_momentum():
    parameter = torch.nn.Parameter(torch.ones(4))
    optimizer = one_kernel([parameter])
    restore_optimizer(optimizer, optimizer.state_dict())

    parameter.grad = torch.full((4,), torch.inf)
    optimizer.grad_scale, optimizer.found_inf = None, torch.tensor(1.0)
    optimizer.step()

    assert torch.equal(parameter, torch.ones(4))
    assert torch.equal(optimizer.state[parameter]["momentum_buffer"], torch.zeros(4))


def test_an_optimiser_without_momentum_in_one_kernel_is_given_none():
    parameter = torch.nn.Parameter(torch.ones(4))
    adam = torch.optim.AdamW([parameter], lr=torch.tensor(0.01), fused=True)
    restore_optimizer(adam, adam.state_dict())

    parameter.grad = torch.ones(4)
    adam.step()

    assert set(adam.state[parameter]) == {"step", "exp_avg", "exp_avg_sq"}
