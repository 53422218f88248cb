"""How far a predicted clip is from the true one: pure functions, one figure a frame.

Every function of two clips takes `[B, T, H, W, C]` in [0, 1] and returns `[B, T]`;
`accumulate` turns these into the figures of a test set, `baselines` holds the
predictions that a model must beat, and `conventions` says in a sentence what each
figure means.
"""
