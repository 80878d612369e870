"""Explanations: functions ``(model, x, target)`` that return an attribution map."""
