"""The Frechet distance of two halves of the Caltech-101 faces: ours beside pytorch-fid's, on the same weights.

Ours reads the photographs as they are published: JPEG decoding, centre crop and resizing, Inception and the distance are
all ours. pytorch-fid gets what Pillow makes of them (the crop is ADM's and DiT's, which pytorch-fid does not have), in PNG
files, and loads, looks and computes by itself. Weights are by the formula of Inception's tests, one .pth file for both.

    just peers-fid faces.tar
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytorch_fid.fid_score
import pytorch_fid.inception
import torch
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "target" / "fid"
SIDE = 256
SEED = 20240528
TOLERANCE = 1e-3
WEIGHTS = "inception-formula.pth"

# A network of no consequence: a floor is judged beside samples, of which there must be as many.
RECIPE = """
recipe: backbone
title: the smallest network of 256x256 pixels
space: {kind: pixels}
dit: {image_size: 256, channels: 3, patch: 64, hidden: 8, depth: 1, heads: 2, classes: null, label_dropout: 0.0, learn_sigma: true}
data: {kind: image_folder, folder: a, image_size: 256}
diffusion: {schedule: cosine, timesteps: 1000}
optimisation: {iterations: 1, batch: 4, learning_rate: 1.0e-4, final_learning_rate: 1.0e-4, warmup_iterations: 0, weight_decay: 0.0, horizontal_flip: true}
ema_halflife_iterations: 0.0
seed: 0
numerics: {engine: fast, device: cpu, dtype: f32}
"""

# A cell that is the baseline once more: nothing is trained, and the floor comes with it.
MANIFEST = """
artifact: halves
title: two halves of the Caltech-101 faces
paper: {where: nowhere, backbone: DiT-B/2, dataset: none, further_iterations: 1}
method: {kind: dmp, preset: paper}
baseline: {title: baseline, method: {kind: pretrained}}
groups: {same: {title: the same, cells: {again: {title: again, method: {kind: pretrained}}}}}
"""

SCALE = """
title: two halves of the Caltech-101 faces
data: {{kind: image_folder, folder: a, image_size: 256}}
backbone: {{recipe: {recipe}, weights: null}}
extractor: {{kind: inception, weights: {{file: {weights}, sha256: null}}}}
train: {{iterations: 1, batch: 4, learning_rate: 1.0e-4, learning_rate_multiplier: 1.0, horizontal_flip: true}}
sample:
  sampler: {{kind: ddpm, steps: 2, clip_x0: true, guidance: 1.0, guidance_channels: all}}
  count: {count}
  seed: 0
evaluation:
  reference: {{kind: image_folder, folder: a, image_size: 256}}
  floor: {{kind: image_folder, folder: b, image_size: 256, count: {count}}}
  subsets: 2
  subset_seed: 0
  positive_control_noise: 1.0
  activation_timesteps: 2
seeds: [0]
numerics: {{engine: fast, device: cpu, dtype: f32}}
"""


def splitmix(seed, numbers):
    """Vigna's splitmix64 of `seed`, at these positions."""
    wide = np.uint64
    z = wide(seed) + (numbers + wide(1)) * wide(0x9E3779B97F4A7C15)
    z = (z ^ (z >> wide(30))) * wide(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> wide(27))) * wide(0x94D049BB133111EB)
    return z ^ (z >> wide(31))


def formula_weights():
    """Inception's state dict by formula: every tensor from one sequence, in the order of the names' bytes."""
    shapes = pytorch_fid.inception._inception_v3(num_classes=1008, aux_logits=False, weights=None)
    for name, block in {
        "Mixed_5b": pytorch_fid.inception.FIDInceptionA(192, pool_features=32),
        "Mixed_5c": pytorch_fid.inception.FIDInceptionA(256, pool_features=64),
        "Mixed_5d": pytorch_fid.inception.FIDInceptionA(288, pool_features=64),
        "Mixed_6b": pytorch_fid.inception.FIDInceptionC(768, channels_7x7=128),
        "Mixed_6c": pytorch_fid.inception.FIDInceptionC(768, channels_7x7=160),
        "Mixed_6d": pytorch_fid.inception.FIDInceptionC(768, channels_7x7=160),
        "Mixed_6e": pytorch_fid.inception.FIDInceptionC(768, channels_7x7=192),
        "Mixed_7b": pytorch_fid.inception.FIDInceptionE_1(1280),
        "Mixed_7c": pytorch_fid.inception.FIDInceptionE_2(2048),
    }.items():
        setattr(shapes, name, block)
    state, first = shapes.state_dict(), 0
    for name in sorted(name for name in state if not name.endswith("num_batches_tracked")):
        shape = tuple(state[name].shape)
        count = int(np.prod(shape))
        u = (splitmix(SEED, np.arange(first, first + count, dtype=np.uint64)) >> np.uint64(40)) / 2.0**24
        first += count
        if name.endswith("conv.weight"):
            values = np.sqrt(6 / np.prod(shape[1:])) * (2 * u - 1)
        elif name.endswith(("bn.weight", "bn.running_var")):
            values = 0.5 + u
        elif name.endswith(("bn.bias", "bn.running_mean")):
            values = 0.2 * (2 * u - 1)
        elif name == "fc.weight":
            values = np.sqrt(3 / 2048) * (2 * u - 1)
        else:
            values = 0.1 * (2 * u - 1)
        state[name] = torch.from_numpy(values.astype(np.float32).reshape(shape))
    return state


def cropped(image):
    """Halved with a box filter while twice too large, resized by cubics, cut from the centre: ADM's and DiT's crop."""
    while min(image.size) >= 2 * SIDE:
        image = image.resize(tuple(side // 2 for side in image.size), resample=Image.BOX)
    scale = SIDE / min(image.size)
    image = image.resize(tuple(round(side * scale) for side in image.size), resample=Image.BICUBIC)
    left, top = ((side - SIDE) // 2 for side in image.size)
    return image.crop((left, top, left + SIDE, top + SIDE))


def halves(archive):
    """The photographs in two folders, in turn; as published (`a`, `b`) and cropped by Pillow (`a-png`, `b-png`)."""
    with tarfile.open(archive) as tar:
        members = [m for m in tar if m.isfile() and not pathlib.Path(m.name).name.startswith(".")]
        members.sort(key=lambda member: member.name)
        counts = [0, 0]
        for number, member in enumerate(members):
            half = "ab"[number % 2]
            counts[number % 2] += 1
            for folder in (half, f"{half}-png"):
                (HERE / folder).mkdir(parents=True, exist_ok=True)
            path = HERE / half / pathlib.Path(member.name).name
            path.write_bytes(tar.extractfile(member).read())
            cropped(Image.open(path).convert("RGB")).save(HERE / f"{half}-png" / f"{path.stem}.png")
    return counts


def ours(runner, count):
    """The distance of `b` to `a`: that of the scale's floor."""
    (HERE / "recipe.yaml").write_text(RECIPE)
    (HERE / "halves.yaml").write_text(MANIFEST)
    relative = (HERE / "recipe.yaml").relative_to(ROOT)
    (HERE / "scale.yaml").write_text(SCALE.format(recipe=relative, weights=WEIGHTS, count=count))
    places = ["--root", ROOT, "--scale", HERE / "scale.yaml", "--results", HERE / "results"]
    command = [runner, "sweep", HERE / "halves.yaml", *places, "--jobs", "1"]
    subprocess.run(command, env=os.environ | {"DMP_DATA": str(HERE)}, check=True)
    records = {}
    for path in (HERE / "results").glob("*/*/*/record.json"):
        record = json.loads(path.read_text())["record"]
        records[record["key"]] = record
    # The distance of the samples is there too: its features are of no dataset.
    real = lambda record: records[record["inputs"]["features"]["stage"]]["params"]["data"] is not None
    (floor,) = (record for record in records.values() if record["kind"] == "metrics" and real(record))
    return floor["metrics"]["fd_inception"]


def theirs(weights):
    """The same by pytorch-fid on the images that Pillow has decoded and cropped; and of its features without its `sqrtm`."""
    pytorch_fid.inception.load_state_dict_from_url = lambda *_, **__: torch.load(weights)
    network = pytorch_fid.inception.InceptionV3([pytorch_fid.inception.InceptionV3.BLOCK_INDEX_BY_DIM[2048]])
    look = lambda half: pytorch_fid.fid_score.get_activations(
        sorted((HERE / f"{half}-png").glob("*.png")), network, 50, 2048, "cpu", num_workers=0
    )
    features = [look(half) for half in "ab"]
    moments = [part for of in features for part in (np.mean(of, axis=0), np.cov(of, rowvar=False))]
    return pytorch_fid.fid_score.calculate_frechet_distance(*moments), exact(*features)


def exact(a, b):
    """The distance by singular values: of fewer images than features, the covariances' product has no accurate root."""
    difference = a.mean(0) - b.mean(0)
    a, b = ((of - of.mean(0)) / np.sqrt(len(of) - 1) for of in (a, b))
    return difference @ difference + (a * a).sum() + (b * b).sum() - 2 * np.linalg.svd(a @ b.T, compute_uv=False).sum()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", help="faces.tar, of the Caltech-101 faces")
    parser.add_argument("--runner", default=ROOT / "target" / "release" / "runner")
    options = parser.parse_args()
    for folder in ("a", "b", "a-png", "b-png", "results"):
        shutil.rmtree(HERE / folder, ignore_errors=True)
    counts = halves(options.archive)
    torch.save(formula_weights(), HERE / WEIGHTS)
    first, (second, rooted) = ours(options.runner, counts[1]), theirs(HERE / WEIGHTS)
    relative = abs(first - second) / abs(second)
    versions = {name: importlib.metadata.version(name) for name in ("pytorch-fid", "torch", "numpy", "scipy", "pillow")}
    print(f"{counts[0]} and {counts[1]} photographs; {', '.join(f'{name} {of}' for name, of in versions.items())}")
    print(f"ours {first:.6f}, pytorch-fid {second:.6f}: relative difference {relative:.1e}, at most {TOLERANCE:.0e}")
    print(f"of pytorch-fid's features by singular values {rooted:.6f}")
    sys.exit(int(relative > TOLERANCE))


if __name__ == "__main__":
    main()
