"""Items as short codes, and models that say them code by code.

    ids.py      semantic ids: residual k-means, the last code, files
    rqvae.py    semantic ids by a learned quantiser
    trie.py     which code may follow which
    decoder.py  the network that gives the next code
    search.py   every item's log-probability, or the best few by beams
    base.py     what models that generate items share
    text.py     wishes and titles as tokens of a language model's encoder
"""
