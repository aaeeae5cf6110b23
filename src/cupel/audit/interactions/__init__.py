"""The audit of a log of interactions: named checks, a verdict, and the same report as that of votes. Nothing here is trained."""
