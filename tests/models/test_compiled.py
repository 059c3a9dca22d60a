"""What a user compiled is copied and taught as if it were not."""

import copy

import pytest
import torch
from torch import nn

from flowsteer.models.compiled import uncompiled


def wrap(module):
    return torch.compile(module, backend="eager")


class Block(nn.Linear):
    def forward(self, x):
        return super().forward(x).tanh()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(Block(3, 3) for _ in range(2))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def compile_forward(net):
    net.forward = wrap(net.forward)


def compile_block_forwards(net):
    for block in net.blocks:
        block.forward = wrap(block.forward)


def wrap_blocks(net):
    for place, block in enumerate(net.blocks):
        net.blocks[place] = wrap(block)


def compile_in_place(net):
    net.compile(backend="eager")


WAYS = [compile_forward, compile_block_forwards, wrap_blocks, compile_in_place, lambda net: None]


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_runs_its_own_weights(way):
    net, x = Net(), torch.ones(1, 3)
    names = list(net.state_dict())
    way(net)
    expected = net(x)
    twin = uncompiled(copy.deepcopy(net))
    assert list(twin.state_dict()) == names
    torch.testing.assert_close(twin(x), expected)
    with torch.no_grad():
        twin.blocks[1].weight.zero_()
        twin.blocks[1].bias.zero_()
    assert not twin(x).any()
    torch.testing.assert_close(net(x), expected)


def test_the_wrapper_of_the_whole_comes_off():
    net = Net()
    assert uncompiled(wrap(net)) is net


def test_a_forward_of_one_s_own_is_refused():
    net = Net()
    own = net.blocks[1].forward
    net.blocks[1].forward = lambda x: own(x) + 1
    with pytest.raises(ValueError, match=r"the forward of blocks.1 was replaced") as caught:
        uncompiled(net)
    assert "\n" not in str(caught.value)
