"""How prompts and responses are laid out in rows. Every layout gives the same hidden states; they differ in what is computed twice."""
