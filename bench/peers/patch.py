"""What the authors' class computes with patches that were written for it.

    git clone https://github.com/sangminwoo/DMP dmp
    just peers-patch dmp

Every checkpoint in the folder is loaded strictly into the class that lies beside it as an expression. Their code is imported from
their repository and not kept here; what comes out is: `crates/patches/tests/released.rs` holds ours against it.
"""

import argparse
import importlib.util
import pathlib

import torch
from safetensors.torch import load_file, save_file


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", type=pathlib.Path, help="their repository")
    parser.add_argument("folder", type=pathlib.Path, help="checkpoints, inputs and classes")
    parser.add_argument("to", type=pathlib.Path, help="outputs (.safetensors)")
    options = parser.parse_args()
    spec = importlib.util.spec_from_file_location("models", options.repository / "models" / "DiT" / "models.py")
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    outputs = {}
    for path in sorted(options.folder.glob("*.pt")):
        network = eval(path.with_suffix(".class").read_text(), {"DiT": models.DiT})
        network.load_state_dict(torch.load(path, weights_only=True), strict=True)
        network.eval()
        inputs = load_file(path.with_suffix(".inputs.safetensors"))
        with torch.no_grad():
            outputs[path.stem] = network(inputs["x"], inputs["t"], inputs["y"].long()).contiguous()
        print(f"{path.stem}: {tuple(outputs[path.stem].shape)}, at most {outputs[path.stem].abs().max():.3f}")
    save_file(outputs, options.to)


if __name__ == "__main__":
    main()
