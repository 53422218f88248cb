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
    "ms_ssim": (
        "MS-SSIM of Wang, Simoncelli and Bovik 2003: the window of ssim at each scale, "
        "scales halved by means of 2×2 pixels, exponents 0.0448, 0.2856, 0.3001, "
        "0.2363, 0.1333; frames of less than 176 pixels have as many of the scales as "
        "the window fits into (two from 22, three from 44, four from 88 pixels), their "
        "exponents raised to the same sum: comparable among frames of one number of "
        "scales alone. A mean below 0 counts as 0; averaged over channels, frames and "
        "samples."
    ),
    "vmaf": (
        "VMAF of libvmaf's default model (vmaf_v0.6.1), 0 to 100, of a clip's "
        "predicted frames alone, so that its first frame has no motion (where equal, "
        "97.4); luma of full range, 0 to 255 (of colour that of BT.601), frames in "
        "their own size; averaged over frames and those samples that "
        "data.num_vmaf_sequences counts, evenly spread over the test sequences."
    ),
    "correlation": (
        "Pearson's correlation of prediction and truth over all pixels of a lead time "
        "(or of all lead times, or of a condition) together; of radar that of the rain "
        "rate, over the pixels with data; null where either is constant."
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
    "rainfall_mse": (
        "Squared error of the rain rate in (mm/h)², averaged over the pixels with data "
        "of all frames and samples. Where there is no data nothing counts, here and in "
        "mse and mae of radar frames, which are summed over the pixels with data; "
        "per pixel they are averages over those."
    ),
    "correlation_uncentred": (
        "Sum of P*T over the square root of sum P² times sum T², P and T the predicted "
        "and the true rain rate, as in Shi et al. 2015; null where a sum is 0."
    ),
    "csi": (
        "Critical success index, hits / (hits + misses + false alarms), of rain of at "
        "least the rate in the metric's name. This and the scores below come from the "
        "contingency table summed over all samples and lead times (per lead time: over "
        "all samples), and are null where a denominator is 0."
    ),
    "pod": "Probability of detection, hits / (hits + misses).",
    "far": "False-alarm ratio, false alarms / (hits + false alarms).",
    "bias": "Frequency bias, (hits + false alarms) / (hits + misses).",
    "hss": (
        "Heidke skill score, the share of right pixels beyond what chance gives, of "
        "the share that is possible."
    ),
    "fss": (
        "Fractions skill score of Roberts and Lean 2008 over square windows of the "
        "side in the metric's name, pixels: 1 - sum (p - o)² / (sum p² + sum o²), "
        "summed over pixels with data; pixels outside the frame and without data count "
        "as dry in the windows."
    ),
    "mean_over_lead_times": (
        "The other way to pool: each score averaged over the lead times at which it is "
        "not null."
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
    "ms_ssim": True,
    "vmaf": True,
    "correlation": True,
    "psnr_db": True,
    "cross_entropy_nats": False,
    "cross_entropy_nats_per_frame": False,
    "cross_entropy_nats_per_sequence": False,
    "accuracy": True,
    "balanced_accuracy": True,
    "cross_entropy_nats_per_clip": False,
}
"""Metric name → whether the best checkpoint is the one with the greatest value."""
