"""Checks that the peers do the authors' job: loss and gradients of a recorded step, in every variant before it is compiled.

    python bench/peers/check.py

Reads the tensors that the tests of `crates/goldens` are held against (made by the authors' code).
"""

import json
from pathlib import Path

import numpy as np
import torch

import diffusion
import work as works

FILES = Path(__file__).resolve().parents[2] / "crates/goldens/files"
TOLERANCE = 2e-5  # of the largest value

# Names in the authors' weight files, and here.
NAMES = [
    ("attn.qkv", "attention.qkv"),
    ("attn.proj", "attention.out"),
    ("mlp.fc1", "widen"),
    ("mlp.fc2", "narrow"),
    ("final_layer.adaLN_modulation.1", "modulation"),
    ("adaLN_modulation.1", "modulation"),
    ("final_layer.linear", "last"),
    ("x_embedder.proj", "embed"),
    ("t_embedder.mlp.0", "condition.first"),
    ("t_embedder.mlp.2", "condition.second"),
    ("y_embedder.embedding_table", "condition.labels"),
    ("pos_embed", "positions"),
]
PATCH = {"prompt_embeddings": "prompts", "gate.weight": "gate.weight", "gate.bias": "gate.bias", "w_noise": "noise"}


def read(name: str) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file."""
    data = (FILES / f"{name}.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    types = {"F32": np.float32, "F64": np.float64, "I64": np.int64}

    def tensor(entry):
        begin, end = entry["data_offsets"]
        values = np.frombuffer(data[start + begin : start + end], types[entry["dtype"]])
        return torch.from_numpy(values.copy()).view(entry["shape"])

    return {name: tensor(entry) for name, entry in header.items() if entry["dtype"] in types}


def ours(name: str) -> str:
    for theirs, here in NAMES:
        name = name.replace(theirs, here)
    return name


def apart(found, expected) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def check(variant: str):
    golden, backbone = read("train_dmp_random"), read("train_backbone_cond")
    program = works.Network(works.Shape(8, 4, 2, 48, 3, 4, 10, 4), "dmp", variant)
    weights = {ours(name.removeprefix("sd.")): value for name, value in backbone.items()}
    weights |= {f"patch.{here}": golden[f"init.{theirs}"] for theirs, here in PATCH.items()}
    missing = program.model.load_state_dict(weights, strict=False)
    assert not missing.missing_keys and not missing.unexpected_keys, missing
    program.tables = diffusion.Tables(np.linspace(1e-4, 0.02, works.TIMESTEPS), resident=variant != "released")

    x0, t, labels, noise = (golden[f"step0.{name}"] for name in ["x0", "t", "y", "noise"])
    labels = torch.where(golden["step0.drop_uniform"] < works.LABEL_DROPOUT, 10, labels)
    draws = iter(golden["step0.gate_noise"])
    drawn, torch.randn_like = torch.randn_like, lambda like: next(draws) if like.dim() == 2 else golden["step0.gate_noise"]
    try:
        loss = program.loss(x0, t, labels, noise)
        loss.backward()
    finally:
        torch.randn_like = drawn
    results = {"loss": apart(loss.detach(), golden["step0.total"])}
    gradients = dict(program.model.patch.named_parameters())
    for theirs, here in PATCH.items():
        results[here] = apart(gradients[here].grad, golden[f"step0.grad.{theirs}"])
    worst = max(results, key=results.get)
    print(f"{variant}: {results[worst]:.1e} apart at most ({worst})")
    assert results[worst] <= TOLERANCE, results


if __name__ == "__main__":
    torch.compile = lambda function: function  # a compiled program would draw its own noise
    for variant in works.VARIANTS:
        check(variant)
