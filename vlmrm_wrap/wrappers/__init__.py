"""Gymnasium wrappers; their public import path is :mod:`vlmrm_wrap`. Nothing here loads torch."""
