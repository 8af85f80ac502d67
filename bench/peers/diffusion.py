"""The diffusion that the peers train and sample: cosine schedule, epsilon and learned variance (Nichol & Dhariwal 2021)."""

import math

import numpy as np
import torch


def cosine_betas(steps: int) -> np.ndarray:
    """beta_t = min(0.999, 1 - a((t + 1) / T) / a(t / T)) with a(u) = cos^2((u + 0.008) / 1.008 * pi / 2)."""
    a = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * math.pi / 2) ** 2
    return np.minimum(1 - a[1:] / a[:-1], 0.999)


def respaced(betas: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The betas of `count` evenly spaced steps, and the timesteps that they stand for."""
    kept = np.round(np.linspace(0, len(betas) - 1, count)).astype(np.int64)
    remaining = np.cumprod(1 - betas)[kept]
    return 1 - remaining / np.concatenate([[1.0], remaining[:-1]]), kept


class Tables:
    """Per-step coefficients.

    `resident` keeps them as float32 tensors; otherwise they are double arrays that every look-up converts, as in the
    released code.
    """

    def __init__(self, betas: np.ndarray, resident: bool):
        remaining = np.cumprod(1 - betas)
        before = np.concatenate([[1.0], remaining[:-1]])
        posterior = betas * (1 - before) / (1 - remaining)
        tables = {
            "signal": np.sqrt(remaining),
            "noise": np.sqrt(1 - remaining),
            "inverse_signal": np.sqrt(1 / remaining),
            "inverse_noise": np.sqrt(1 / remaining - 1),
            "mean_x0": betas * np.sqrt(before) / (1 - remaining),
            "mean_xt": (1 - before) * np.sqrt(1 - betas) / (1 - remaining),
            "least": np.log(np.append(posterior[1], posterior[1:])),
            "most": np.log(betas),
        }
        self.resident = resident
        self.tables = {k: torch.from_numpy(v).float().to(torch.get_default_device()) if resident else v for k, v in tables.items()}

    def at(self, name: str, t, like):
        """Table values at t [B], [B, 1, 1, 1]."""
        if self.resident:
            return self.tables[name][t][:, None, None, None]
        return torch.from_numpy(self.tables[name]).to(t.device)[t].float()[:, None, None, None].expand(like.shape)


def normal_kl(mean_1, log_1, mean_2, log_2):
    return 0.5 * (log_2 - log_1 - 1 + torch.exp(log_1 - log_2) + (mean_1 - mean_2) ** 2 * torch.exp(-log_2))


def cumulative(x):
    """The normal distribution function, in the approximation of the released code."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def bin_log_likelihood(x, mean, log_deviation):
    """Log probability of the 8-bit bin of x under a normal distribution."""
    centred, precision = x - mean, torch.exp(-log_deviation)
    above = cumulative(precision * (centred + 1 / 255))
    below = cumulative(precision * (centred - 1 / 255))
    inside = (above - below).clamp(min=1e-12).log()
    inside = torch.where(x > 0.999, (1 - below).clamp(min=1e-12).log(), inside)
    return torch.where(x < -0.999, above.clamp(min=1e-12).log(), inside)


def model_variance(tables: Tables, t, values):
    """Log variance between the posterior's and beta's, by the model's `values` in [-1, 1]."""
    share = (values + 1) / 2
    return share * tables.at("most", t, values) + (1 - share) * tables.at("least", t, values)


def diffusion_loss(tables: Tables, output, x0, x_t, noise, t):
    """Mean squared error of the noise, plus the variational bound (bits per dimension) for the variance alone."""
    eps, values = output.chunk(2, dim=1)
    mse = ((eps - noise) ** 2).flatten(1).mean(1)
    at = lambda name: tables.at(name, t, x0)  # noqa: E731
    x0_model = at("inverse_signal") * x_t - at("inverse_noise") * eps.detach()
    mean = at("mean_x0") * x0_model + at("mean_xt") * x_t
    log_variance = model_variance(tables, t, values)
    true_mean = at("mean_x0") * x0 + at("mean_xt") * x_t
    divergence = normal_kl(true_mean, at("least"), mean, log_variance).flatten(1).mean(1)
    decoder = -bin_log_likelihood(x0, mean, 0.5 * log_variance).flatten(1).mean(1)
    bound = torch.where(t == 0, decoder, divergence) / math.log(2)
    return (mse + bound).mean()


def balance_loss(gates):
    """Importance (unbiased variance over squared mean of the gates' sums over blocks) plus load; gates [L, B, T].

    With all prompts kept the load counts negative gates, of which there are none.
    """
    sums = gates.sum(0)
    importance = sums.var() / (sums.mean() ** 2 + 1e-10)
    load = (gates < 0).sum(1).float().mean(0).sum()
    return importance + load


def reverse_step(tables: Tables, output, x, t):
    """One DDPM step from x_t to x_{t-1} with the predicted x_0 clipped; t [B] counts respaced steps."""
    eps, values = output.chunk(2, dim=1)
    at = lambda name: tables.at(name, t, x)  # noqa: E731
    log_variance = model_variance(tables, t, values)
    x0 = (at("inverse_signal") * x - at("inverse_noise") * eps).clamp(-1, 1)
    mean = at("mean_x0") * x0 + at("mean_xt") * x
    inner = (t != 0).float()[:, None, None, None]
    return mean + inner * torch.exp(0.5 * log_variance) * torch.randn_like(x)
