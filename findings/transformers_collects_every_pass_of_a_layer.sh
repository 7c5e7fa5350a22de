#!/usr/bin/env bash
# transformers 5.24.0: output_hidden_states=True returns one entry for each *run* of a layer, not for each layer.
#
# Guess before running: hidden_states has num_hidden_layers + 1 entries, whatever else happens to a layer. That is what
# the documentation promises ("one for the output of the embeddings, + one for the output of each layer").
#
# Seen: since version 5 the outputs are gathered by forward hooks that stay on the layers. A layer that runs twice in one
# call of the model, because a hook of the user's own probes it with other inputs (a second pass for a regulariser, an
# ablation, a gradient check), adds an entry of its own, with the probe's batch size, in the middle of the tuple. So all
# later entries move by one. Router logits of mixture-of-experts models are gathered in the same way and go into a loss:
# a probe changes the auxiliary loss of Mixtral without a word.
#
# Runs without cs_gan. Fails if the extra entry or the changed loss is gone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.14.1" "numpy==2.3.5" "transformers==5.24.0"
"$folder/venv/bin/python" - <<'PYTHON'
import torch
import transformers
from transformers import GPT2Config, GPT2Model, MixtralConfig, MixtralForCausalLM


def probing(layer):
    """A hook that runs the layer once more, on the first two samples, and changes nothing."""
    busy = []

    def hook(module, args, kwargs, output):
        if not busy:
            busy.append(True)
            with torch.no_grad():
                module(args[0][:2], *args[1:], **kwargs)
            busy.clear()

    return layer.register_forward_hook(hook, with_kwargs=True)


torch.manual_seed(0)
ids = torch.arange(4 * 5).view(4, 5) % 17
small = {"vocab_size": 17, "bos_token_id": 0, "eos_token_id": 0}

gpt2 = GPT2Model(GPT2Config(n_embd=8, n_layer=3, n_head=2, **small)).eval()
plain = gpt2(ids, use_cache=False, output_hidden_states=True).hidden_states
with probing(gpt2.h[1]):
    probed = gpt2(ids, use_cache=False, output_hidden_states=True).hidden_states
shapes = [[len(entry) for entry in states] for states in (plain, probed)]
print(f"transformers {transformers.__version__}: samples in each entry of hidden_states {shapes[0]}, probed {shapes[1]}")
assert shapes == [[4, 4, 4, 4], [4, 4, 4, 2, 4]]

sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
experts = {"num_key_value_heads": 2, "num_local_experts": 2, "num_experts_per_tok": 1}
mixtral = MixtralForCausalLM(MixtralConfig(**sizes, **experts, **small)).eval()
call = {"input_ids": ids, "labels": ids, "use_cache": False, "output_router_logits": True}
alone = mixtral(**call)
with probing(mixtral.model.layers[0]):
    beside = mixtral(**call)
print(f"Mixtral's auxiliary loss {alone.aux_loss.item():.6f}, probed {beside.aux_loss.item():.6f}")
assert torch.equal(alone.logits, beside.logits)
assert alone.aux_loss != beside.aux_loss
PYTHON
