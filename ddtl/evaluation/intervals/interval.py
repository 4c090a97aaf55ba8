"""A confidence interval, and what its method is called."""

from __future__ import annotations

from dataclasses import dataclass

# What the methods of an ``Interval`` are, for texts. Those of records made by earlier versions stay here.
DESCRIPTIONS = {
    "mid-p": "mid-P limits (Lancaster, 1961) at the effective number of images (Korn and Graubard, 1998)",
    "binomial": "limits between mid-P and exact ones at the effective number of images (Korn and Graubard, 1998)",
    "mid-p-joint": "from the mid-P confidence distributions of sensitivity, specificity and prevalence",
    "score": "score interval (Newcombe, 2006) with the variance of Obuchowski (1997), small-sample corrected",
    "influence": "logit-transformed, cluster-robust variance (CR3) of influence values, Student's t",
    "next-patient": "logit-transformed, cluster-robust variance (CR3), Student's t, room for one more patient",
    "student": "cluster-robust variance (CR3) of influence values, Student's t",
    "paired": "cluster-robust variance (CR3) of the difference, Student's t",
    "patients-and-seeds": "the runs' own intervals, widened by the variance between seeds, on the logit scale",
    "drop": "of two means over seeds, the variance between patients and that between seeds, Student's t",
    "difference": "cluster jackknife variance, or that which all cluster sizes let expect, and seeds, Student's t",
    "sign-flip": "sign flips of patients, the null imposed (Cameron, Gelbach and Miller, 2008), and variance of seeds",
    "crossed": "the runs' own intervals, widened by the variance that seeds add, on the logit scale",
    "drop-crossed": "from the intervals of two independent means (Zou and Donner, 2008), widened by what seeds add",
    "mover": "from the intervals of two independent scores (Zou and Donner, 2008)",
    "classes": "mean over the classes of the limits of each against all others, as every patient agrees",
    "percentile": "percentile bootstrap of whole clusters, drawn class by class",
    "bca": "bias-corrected and accelerated bootstrap (Efron, 1987) of whole clusters, drawn class by class",
    "logit": "logit-transformed, cluster jackknife variance, Student's t",
    "logit-delong": "logit-transformed, variance of Obuchowski (1997; DeLong's for single images), Student's t",
    "delong": "variance of Obuchowski (1997; DeLong's for single images), Student's t",
    "jackknife": "cluster jackknife variance, Student's t",
    "wilson": "Wilson (1927)",
    "wilson-clustered": "Wilson (1927) at the effective number of images (Korn and Graubard, 1998)",
    "wilson-range": "range over the Wilson intervals of sensitivity and specificity, as every patient agrees",
    "clopper-pearson": "exact binomial bound on independent patients, as every one of them agrees",
}


@dataclass(frozen=True)
class Interval:
    """A confidence interval and the key of ``DESCRIPTIONS`` that made it."""

    low: float
    high: float
    method: str


def logit_limits(share: float, error: float, t: float) -> tuple[float, float]:
    """``share`` plus and minus t standard errors on the logit scale."""
    from scipy.special import expit, logit

    half = t * error / (share * (1 - share))
    return float(expit(logit(share) - half)), float(expit(logit(share) + half))
