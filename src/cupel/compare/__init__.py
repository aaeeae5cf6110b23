"""The survival table: objectives x treatments x corruption x rate on one data set, with heads on frozen embeddings."""
