import pytest
from torch import nn

from cs_gan import CodedSmoothing
from cs_gan.core.selection import select_blocks
from cs_gan.errors import BlockError


def model():
    return nn.ModuleDict(
        {
            "stem": nn.Linear(3, 3),
            "blocks": nn.ModuleList([nn.Sequential(nn.Linear(3, 3), nn.ReLU()) for _ in range(3)]),
            "head": nn.Linear(3, 1),
        }
    )


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        (["head"], ["head"]),
        (["blocks.1"], ["blocks.1"]),
        (["blocks.*"], ["blocks.0", "blocks.1", "blocks.2"]),
        (["blocks.[02]"], ["blocks.0", "blocks.2"]),
        (["blocks.?.0"], ["blocks.0.0", "blocks.1.0", "blocks.2.0"]),
        (["*"], ["stem", "blocks", "head"]),
        ([""], [""]),
        (["head", "blocks.1", "*e*"], ["stem", "blocks.1", "head"]),  # the model's order, each once
    ],
)
def test_names_and_patterns_choose_in_the_models_order(chosen, names):
    network = model()
    found = select_blocks(network, chosen)
    assert list(found) == names
    assert all(found[name] is network.get_submodule(name) for name in names)


def test_a_module_chooses_itself():
    network = model()
    assert list(select_blocks(network, [network["blocks"][2], network])) == ["", "blocks.2"]


def test_a_module_with_two_names_is_one_block_under_either():
    network = model()
    network["again"] = network["head"]
    for name in ("head", "again"):
        assert select_blocks(network, [name]) == {"head": network["head"]}


def test_a_name_with_brackets_is_found_as_it_is():
    assert list(select_blocks(nn.ModuleDict({"a[0]": nn.ReLU()}), ["a[0]"])) == ["a[0]"]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (["haed"], "'head'"),
        (["block.1"], "'blocks.1'"),
        (["blocks.7"], "'blocks.0'|'blocks.1'"),
        (["zzz"], "top-level blocks: .*'stem', 'blocks', 'head'"),
        (["blocks.**.0.0"], "has no block"),
        ([nn.Linear(1, 1)], "not a module of the ModuleDict"),
        ([], "at least one"),
        ("head", r"\['head'\]"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(chosen, message):
    with pytest.raises(BlockError, match=message):
        CodedSmoothing(model(), chosen)


def test_a_refused_choice_attaches_nothing():
    network = model()
    with pytest.raises(BlockError):
        CodedSmoothing(network, ["head", "nowhere"])
    CodedSmoothing(network, ["head"])


def test_classes_choose_all_their_modules_and_exclude_leaves_some_out():
    model = nn.Sequential(nn.Conv1d(2, 2, 1), nn.Sequential(nn.Conv1d(2, 2, 1), nn.ReLU()), nn.Linear(3, 2))
    chosen = lambda *blocks, **options: list(CodedSmoothing(model, blocks, replace=True, **options).blocks)
    assert chosen(nn.Conv1d) == ["0", "1.0"]
    assert chosen(nn.Conv1d, "2", exclude=["1.*"]) == ["0", "2"]
    assert chosen("*", exclude=[nn.Sequential, model[2]]) == ["0"]
    with pytest.raises(BlockError, match=r"Sequential holds no Conv2d\. It has modules of the classes Conv1d, Linear"):
        chosen(nn.Conv2d)
    with pytest.raises(BlockError, match="exclude leaves no block"):
        chosen(nn.Conv1d, exclude=["0", "1.0"])
    with pytest.raises(BlockError, match=r"exclude takes away none of the chosen blocks\. A part of a coded block"):
        chosen("1", exclude=["1.0"])
    with pytest.raises(BlockError, match=r"exclude: Sequential has no block '1.7'"):
        chosen(nn.Conv1d, exclude=["1.7"])
    with pytest.raises(BlockError, match=r"blocks=Conv1d: give a list, such as blocks=\[Conv1d\]"):
        CodedSmoothing(model, nn.Conv1d)
    with pytest.raises(BlockError, match=r"exclude='0': give a list"):
        chosen(nn.Conv1d, exclude="0")
    with pytest.raises(BlockError, match=r"blocks holds a int: give names"):
        chosen(int)
