"""Rankings of items from counts of comparisons: Bradley-Terry and its tie models, with controls and honest intervals."""

from cupel.votes.ranking.controls import style_difference
from cupel.votes.ranking.graph import Connectivity, connectivity
from cupel.votes.ranking.model import RankingModel
from cupel.votes.ranking.result import Contrast, Estimates, Ranking
from cupel.votes.ranking.ties import TIE_MODELS, TieModel

__all__ = ["TIE_MODELS", "Connectivity", "Contrast", "Estimates", "Ranking", "RankingModel", "TieModel", "connectivity", "style_difference"]
