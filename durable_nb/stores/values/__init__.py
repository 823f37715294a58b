"""Stores of values in the ancestor's manner, and the journal that is made of one."""
