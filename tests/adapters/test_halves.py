"""The halved factors: the same bits as two separate products, an anchor without a gradient."""

import torch
from torch import nn

from unlora.adapters.halves import HalvedA, HalvedB, stand_in


def test_equal_halves_cancel_exactly_where_one_wide_product_may_not():
    torch.manual_seed(0)
    a, b, x = torch.randn(8, 64), torch.randn(48, 8), torch.randn(33, 64)
    down, up = nn.Linear(64, 16, bias=False), nn.Linear(16, 48, bias=False)
    with torch.no_grad():
        down.weight.copy_(torch.cat([a, a]))
        up.weight.copy_(torch.cat([b, -b], dim=1))
        assert not stand_in(up, HalvedB)(stand_in(down, HalvedA)(x)).any()


def test_product_is_that_of_the_whole_factors_and_the_anchor_gets_no_gradient():
    torch.manual_seed(1)
    down, up = nn.Linear(64, 16, bias=False), nn.Linear(16, 48, bias=False)
    halved_down, halved_up = stand_in(down, HalvedA), stand_in(up, HalvedB)
    x = torch.randn(5, 7, 64, requires_grad=True)
    whole = up(down(x))
    halved = halved_up(halved_down(x))
    torch.testing.assert_close(halved, whole, atol=1e-5, rtol=1e-5)
    whole.square().sum().backward()
    expected_input, x.grad = x.grad, None
    halved.square().sum().backward()
    torch.testing.assert_close(x.grad, expected_input, atol=1e-3, rtol=1e-4)
    for halved_one, one, dim in ((halved_down, down, 0), (halved_up, up, 1)):
        assert halved_one.weight.grad is not None
        assert one.weight.grad is not None
        trained, anchor = halved_one.weight.grad.chunk(2, dim)
        torch.testing.assert_close(trained, one.weight.grad.chunk(2, dim)[0], atol=1e-3, rtol=1e-4)
        assert not anchor.any()


def test_stand_in_saves_under_the_same_name():
    linear = nn.Linear(6, 4, bias=False)
    halved = stand_in(linear, HalvedA)
    assert list(halved.state_dict()) == ["weight"]
    assert halved.weight.data_ptr() == linear.weight.data_ptr()
    assert (halved.in_features, halved.out_features) == (6, 4)
