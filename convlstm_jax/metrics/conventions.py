"""What each figure of an evaluation means, and which way is better."""

CONVENTIONS: dict[str, str] = {
    "mse": (
        "Squared error summed over the pixels and channels of a frame, averaged over "
        "frames and samples; pixels in [0, 1]."
    ),
    "mae": (
        "Absolute error summed over the pixels and channels of a frame, averaged over "
        "frames and samples; pixels in [0, 1]."
    ),
    "mse_per_pixel": (
        "Squared error averaged over pixels, channels, frames and samples; pixels in "
        "[0, 1]."
    ),
    "mae_per_pixel": (
        "Absolute error averaged over pixels, channels, frames and samples; pixels in "
        "[0, 1]."
    ),
    "ssim": (
        "SSIM of Wang et al. 2004: Gaussian window 11×11 with sigma 1.5, data range 1, "
        "population covariance, K1 0.01, K2 0.03, averaged over the pixels whose "
        "window lies inside the frame, channels, frames and samples."
    ),
    "ssim_openstl": (
        "SSIM as in OpenSTL's tables: uniform window 7×7, data range 2, sample "
        "covariance, K1 0.01, K2 0.03, averaged over the pixels whose window lies "
        "inside the frame, channels, frames and samples."
    ),
    "psnr_db": (
        "Peak signal-to-noise ratio in dB of each frame for data range 1, at most 100 "
        "dB (identical frames), averaged over frames and samples."
    ),
    "cross_entropy_nats": (
        "Cross-entropy in nats summed over the pixels and channels of a frame, "
        "averaged over frames and samples; from logits where the model has them, else "
        "from pixels clipped to [1e-6, 1 - 1e-6]."
    ),
    "cross_entropy_nats_per_frame": (
        "The same figure as cross_entropy_nats, under the name that gives its unit."
    ),
    "cross_entropy_nats_per_sequence": (
        "Cross-entropy in nats summed over the pixels, channels and predicted frames "
        "of a sequence, averaged over samples."
    ),
    "accuracy": "Share of clips whose most probable class is the true one.",
    "balanced_accuracy": (
        "Recall averaged over the classes that have clips, each class counting the "
        "same."
    ),
    "cross_entropy_nats_per_clip": (
        "Cross-entropy of the class in nats, -log of the probability given to the true "
        "one, averaged over clips, without class weights; null where it is not finite."
    ),
    "precision": (
        "Of the clips predicted to be of a class, the share that are; null where there "
        "are none."
    ),
    "recall": (
        "Of the clips of a class, the share predicted to be; null where there are none."
    ),
    "f1": (
        "Harmonic mean of precision and recall, as 2 TP / (2 TP + FP + FN); null where "
        "a class neither has clips nor was predicted."
    ),
    "support": "Clips of a class.",
    "confusion": "Clips by true class (rows) and predicted class (columns).",
}
"""Metric name → one sentence for evaluation files and reports."""

HIGHER_IS_BETTER: dict[str, bool] = {
    "mse": False,
    "mae": False,
    "mse_per_pixel": False,
    "mae_per_pixel": False,
    "ssim": True,
    "ssim_openstl": True,
    "psnr_db": True,
    "cross_entropy_nats": False,
    "cross_entropy_nats_per_frame": False,
    "cross_entropy_nats_per_sequence": False,
    "accuracy": True,
    "balanced_accuracy": True,
    "cross_entropy_nats_per_clip": False,
}
"""Metric name → whether the best checkpoint is the one with the greatest value."""
