"""Recommenders: models of (user, item), trained by any objective and treatment on interactions.

    types.py     what a recommender is
    models/      one model per file, found by its name
    sampling.py  the items that were not taken
    fit.py       the loop; learner.py one model in it, peers.py two that review each other, held.py what held-out events say;
                 options.py what it can be told
    saved.py     folders

No file here defines a loss or a treatment: these are `cupel.objectives` and `cupel.noise`, as for text.
"""
