"""The works of `runner bench` as PyTorch programs, in four variants."""

import time
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch

import diffusion
from network import Dit

TIMESTEPS = 1000
SAMPLING_STEPS = 50
LABEL_DROPOUT = 0.1
LEARNING_RATE = 1e-4
GATE_FACTOR = 10  # the gate learns so much faster than the prompts
IMAGES = 1024  # in memory, so that reading them does not count
FEATURES, SAMPLES = 2048, 10_000


@dataclass(frozen=True)
class Shape:
    image_size: int
    channels: int
    patch: int
    hidden: int
    depth: int
    heads: int
    classes: int | None
    batch: int

    @property
    def tokens(self) -> int:
        return (self.image_size // self.patch) ** 2

    @property
    def label_rows(self) -> int:
        return 1 if self.classes is None else self.classes + 1


SHAPES = {
    "nano": Shape(24, 3, 3, 64, 4, 4, None, 64),
    "s2": Shape(32, 4, 2, 384, 12, 6, 1000, 4),
    # those of the paper, for GPUs
    "b2": Shape(32, 4, 2, 768, 12, 12, None, 128),
    "l2": Shape(32, 4, 2, 1024, 24, 16, None, 128),
    "xl2": Shape(32, 4, 2, 1152, 28, 16, None, 128),
}

# Names and what they are. `released` does what the authors' loop does; the others keep gradients where something learns only,
# tables as tensors, all gates in one product, the conditioning of a batch that shares it once, and a fused AdamW.
VARIANTS = {
    "released": "as released",
    "eager": "strong, eager",
    "compiled": "strong, compiled",
    "compiled-plain": "strong, compiled, attention without SDPA",
}
DISTANCES = {"sqrtm": "scipy sqrtm", "eigh": "two numpy eigh"}


class Network:
    """A training step (`dmp`, `full`) or a batch of samples (`sample`); `run` does it once."""

    def __init__(self, shape: Shape, job: str, variant: str):
        self.shape, self.job = shape, job
        self.released = variant == "released"
        self.on_gpu = torch.get_default_device().type == "cuda"
        # As the authors' training has it on a GPU.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.manual_seed(0)
        patched = job != "full"
        self.model = Dit(shape, patched, fused_gate=not self.released, sdpa=variant != "compiled-plain")
        if job == "sample":
            # What was trained is not zero.
            for p in self.model.patch.parameters():
                torch.nn.init.normal_(p, std=0.05)
        s = shape
        self.images = torch.rand(IMAGES, s.channels, s.image_size, s.image_size) * 2 - 1
        self.labels = torch.randint(0, s.classes or 1, (IMAGES,))
        betas = diffusion.cosine_betas(TIMESTEPS)
        self.tables = diffusion.Tables(betas, resident=not self.released)
        short, self.kept = diffusion.respaced(betas, SAMPLING_STEPS)
        self.short = diffusion.Tables(short, resident=not self.released)
        build = torch.compile if variant.startswith("compiled") else lambda function: function
        if job == "sample":
            self.model.eval().requires_grad_(False)
            self.step = build(self.reverse)
            self.run = self.sample
        else:
            self.model.train()
            self.optimiser = self.adamw()
            self.loss = build(self.objective)
            self.run = self.train

    def adamw(self):
        """AdamW over what learns. As released the backbone keeps gradients that nothing uses and nothing clears."""
        fused = None if self.released else True
        if self.job == "full":
            return torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, weight_decay=0, fused=fused)
        patch = self.model.patch
        self.model.requires_grad_(self.released)
        patch.requires_grad_(True)
        gate = {"params": [*patch.gate.parameters(), patch.noise], "lr": GATE_FACTOR * LEARNING_RATE}
        return torch.optim.AdamW([{"params": [patch.prompts]}, gate], lr=LEARNING_RATE, weight_decay=0, fused=fused)

    def batch(self):
        """Images (half of them mirrored), timesteps, labels (some dropped), noise."""
        b, classes = self.shape.batch, self.shape.classes
        index = torch.randint(0, IMAGES, (b,))
        x0 = self.images[index]
        x0 = torch.where(torch.rand(b, 1, 1, 1) < 0.5, x0.flip(3), x0)
        labels = self.labels[index]
        if classes is not None:
            labels = torch.where(torch.rand(b) < LABEL_DROPOUT, classes, labels)
        return x0, torch.randint(0, TIMESTEPS, (b,)), labels, torch.randn_like(x0)

    def predict(self, x, t, labels):
        """The model; on a GPU, but as released, in bf16 where autocast thinks it right."""
        with torch.autocast("cuda", torch.bfloat16, enabled=self.on_gpu and not self.released):
            output, gates = self.model(x, t, labels)
        return output.float(), gates

    def objective(self, x0, t, labels, noise):
        x_t = self.tables.at("signal", t, x0) * x0 + self.tables.at("noise", t, x0) * noise
        output, gates = self.predict(x_t, t, labels)
        loss = diffusion.diffusion_loss(self.tables, output, x0, x_t, noise, t)
        return loss if gates is None else loss + diffusion.balance_loss(gates)

    def train(self):
        loss = self.loss(*self.batch())
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.item()

    def reverse(self, x, i, t, labels):
        output, _ = self.predict(x, t, labels)
        return diffusion.reverse_step(self.short, output, x, i)

    @torch.no_grad()
    def sample(self, steps: int = SAMPLING_STEPS):
        s, rows = self.shape, self.shape.batch
        x = torch.randn(s.batch, s.channels, s.image_size, s.image_size)
        labels = torch.randint(0, s.classes or 1, (s.batch,))
        if not self.released and s.classes is None:
            rows, labels = 1, labels[:1]  # all samples share timestep and label
        for i in reversed(range(steps)):
            x = self.step(x, torch.full((rows,), i), torch.full((rows,), int(self.kept[i])), labels)
        return x

    def warm_up(self):
        """Compiles, and fills caches."""
        if self.job == "sample":
            self.sample(steps=3)
            return
        for _ in range(5):
            self.train()


class Distance:
    """The Frechet distance of two normal distributions from their means and covariances."""

    def __init__(self, variant: str):
        numbers = np.random.default_rng(0)
        self.left, self.right = (self.moments(numbers) for _ in range(2))
        self.run = self.sqrtm if variant == "sqrtm" else self.eigh

    @staticmethod
    def moments(numbers):
        x = numbers.standard_normal((SAMPLES, FEATURES))
        for i in range(1, FEATURES):
            x[:, i] += 0.6 * x[:, i - 1]
        return x.mean(0), np.cov(x, rowvar=False)

    def total(self, trace_of_root: float) -> float:
        (mean_1, s_1), (mean_2, s_2) = self.left, self.right
        return float(((mean_1 - mean_2) ** 2).sum() + np.trace(s_1) + np.trace(s_2) - 2 * trace_of_root)

    def sqrtm(self) -> float:
        """tr (S1 S2)^1/2, as FID is usually computed."""
        return self.total(np.trace(scipy.linalg.sqrtm(self.left[1] @ self.right[1]).real))

    def eigh(self) -> float:
        """The sum of the roots of the eigenvalues of S1^1/2 S2 S1^1/2."""
        values, vectors = np.linalg.eigh(self.left[1])
        root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
        return self.total(np.sqrt(np.maximum(np.linalg.eigvalsh(root @ self.right[1] @ root), 0)).sum())

    def warm_up(self):
        pass


def variants(work: str) -> dict[str, str]:
    """Names and titles of the variants of a work."""
    return DISTANCES if work == "frechet" else VARIANTS


def build(work: str, variant: str):
    """The program of a work such as `nano-dmp`."""
    if work == "frechet":
        return Distance(variant)
    shape, job = work.split("-")
    return Network(SHAPES[shape], job, variant)


def seconds(program) -> float:
    """How long one repetition takes."""
    begin = time.perf_counter()
    program.run()
    if torch.get_default_device().type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin
