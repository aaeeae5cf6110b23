"""Preference models: rewards, and what one number per response cannot say. One model per file, found by its name.

types    what a model is: `PreferenceModel`, `Given`, `Shape`, `Explanation`
names    models by name, from the text that recipes say
scalar   one number per response, linear or with a hidden layer

Importing this package imports nothing: its parts need torch.
"""
