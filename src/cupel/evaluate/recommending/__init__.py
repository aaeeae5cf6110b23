"""How good recommenders are: all items ranked, intervals over users and seeds, what was seen with unequal chance. Models are callables."""
