"""The arithmetic of group-relative policy optimisation (DeepSeekMath, arXiv 2402.03300)."""

from __future__ import annotations

import torch
from torch import Tensor

_TINY = 1e-4
"""Added to a standard deviation that divides, as in TRL and the recipes of the field."""


def group_advantages(rewards: Tensor, scale: bool = False) -> Tensor:
    """How much better than the others of its group each answer is.

    Args:
        rewards: `(G,)` of the answers to one question.
        scale: divide by their standard deviation (n - 1), as DeepSeekMath does; without it, easy
            and hard questions count as their rewards differ (Dr. GRPO, TimeLens).
    """
    centred = rewards - rewards.mean()
    return centred / (rewards.std() + _TINY) if scale else centred


def clipped_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Minus the clipped gain of each action (PPO, arXiv 1707.06347, equation 7).

    Args:
        log_probs: `(N,)` now.
        old_log_probs: `(N,)` when they were drawn.
        advantages: `(N,)` of the answers that they belong to.
        epsilon: how far the ratio may leave 1 before it gains no more.

    Returns:
        losses `(N,)`, and where the clip held, `(N,)` bool.
    """
    ratio = (log_probs - old_log_probs).exp()
    clipped = ratio.clamp(1 - epsilon, 1 + epsilon)
    gain, held = ratio * advantages, clipped * advantages
    return -torch.minimum(gain, held), held < gain


def k3(log_probs: Tensor, reference: Tensor) -> Tensor:
    """Estimate of KL(policy || reference) from an action of the policy: unbiased, never negative.

    Args:
        log_probs: `(N,)` of the policy.
        reference: `(N,)` of the reference, without gradient.
    """
    difference = reference - log_probs
    return difference.exp() - difference - 1
