"""Majority vote: the share of each label, with ties left as ties."""

from __future__ import annotations

import numpy as np

from cupel.votes.table import AnnotatorFit, VoteTable, finish


def majority(votes: VoteTable) -> AnnotatorFit:
    """P(label) = share of an item's votes; a tie stays 1/2. Accuracy is the annotator's mean share (it includes the own vote).

    >>> from cupel.votes.table import vote_table
    >>> votes = vote_table(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([1, 1, 1, 0]))
    >>> majority(votes).posterior[:, 1].tolist()
    [1.0, 0.5]
    """
    share = votes.shares()
    counts = np.maximum(votes.per_annotator(votes.weight), 1e-300)
    accuracy = votes.per_annotator(votes.weight * share[votes.item, votes.label]) / counts
    return finish(votes, "majority", share, share.mean(axis=0), accuracy, None, [], True)
