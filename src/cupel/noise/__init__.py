"""Noise treatments: maps on what a label is taken to say, (p, w), that never see a model.

`names.treatments` lists them, `chain.chain` puts them together, `loss.preference_loss` is where they meet an objective. `rate` needs
numpy only; the rest needs torch (the extra `cupel[train]`).
"""
