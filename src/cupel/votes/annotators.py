"""The annotator models under one roof: votes in, truth and reliability out.

One coin is the right model when the order of the sides is random and unrecorded; Dawid-Skene shows habits such as "always the
first"; GLAD and MACE add difficulty and guessing. All need items that several people voted on: with one vote per item nothing about
people can be identified, and only models that share items or features between comparisons (`crowd_bt`) say something.
"""

from __future__ import annotations

from cupel.votes.crowd_bt import CrowdScores, crowd_bt, temperature_bt
from cupel.votes.dawid_skene import dawid_skene
from cupel.votes.glad import glad
from cupel.votes.mace import mace
from cupel.votes.majority import majority
from cupel.votes.one_coin import one_coin, one_coin_rate
from cupel.votes.table import AnnotatorFit, VoteTable, spammer_score, vote_table

__all__ = [
    "AnnotatorFit", "CrowdScores", "VoteTable", "crowd_bt", "dawid_skene", "glad", "mace", "majority", "one_coin", "one_coin_rate",
    "spammer_score", "temperature_bt", "vote_table",
]  # fmt: skip
