"""The checks of notebook 07: right answers, and wrong ones that are not usual mistakes."""

from __future__ import annotations

import operator

import torch
import torch.nn.functional as F
from answers import answer_tests

from vislib.checks import deconvnet as check


def gates(method, z, R):
    return {
        "backprop": (z > 0) * R,
        "deconvnet": (R > 0) * R,
        "guided": (z > 0) * (R > 0) * R,
    }[method]


def unpool(values, switches, shape, join=max):
    flat = torch.zeros(shape[0] * shape[1])
    taken = set()
    for value, switch in zip(values.flatten(), switches.flatten().tolist(), strict=True):
        flat[switch] = join(flat[switch], value) if switch in taken else value
        taken.add(switch)
    return flat.reshape(shape)


def stage(signal, switches, weight):
    unpooled = F.max_unpool2d(signal, switches, 2)
    return F.conv_transpose2d(unpooled.relu(), weight, padding=1)


def correlation(a, b):
    a, b = a.flatten(1), b.flatten(1)
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))


RIGHT = {
    "gates": (check.relu_backwards, gates),
    "unpooling": (check.unpool, unpool),
    "stage": (check.stage, stage),
    "correlation": (check.correlation, correlation),
}


def swapped_gates(method, z, R):
    return gates({"backprop": "deconvnet", "deconvnet": "backprop"}.get(method, method), z, R)


def from_zero(values, switches, shape):
    flat = torch.zeros(shape[0] * shape[1])
    return flat.scatter_reduce(0, switches.flatten(), values.flatten(), "amax").reshape(shape)


def transposed(values, switches, shape):
    height, width = shape
    columns_first = (switches % width) * height % (height * width) + switches // width
    return unpool(values, columns_first, shape)


WRONG = {
    "swapped methods": (
        check.relu_backwards,
        swapped_gates,
        r"Are backprop and deconvnet swapped\?",
    ),
    "guided for all": (
        check.relu_backwards,
        lambda method, z, R: gates("guided", z, R),
        "one of the two|passes everywhere|off by|does not look",
    ),
    "backprop for all": (
        check.relu_backwards,
        lambda method, z, R: gates("backprop", z, R),
        "for 'deconvnet' is not right yet",
    ),
    "the gates of the right signal": (
        check.relu_backwards,
        lambda method, z, R: (gates(method, z, R) != 0).float(),
        "gate alone",
    ),
    "z at the gates": (
        check.relu_backwards,
        lambda method, z, R: (gates(method, z, R) != 0) * z,
        "z only decides where",
    ),
    "either gate": (
        check.relu_backwards,
        lambda m, z, R: ((z > 0) | (R > 0)) * R if m == "guided" else gates(m, z, R),
        "Both conditions must hold",
    ),
    "the sum of the values": (
        check.unpool,
        lambda *inputs: unpool(*inputs, join=operator.add),
        "are summed",
    ),
    "the last value": (
        check.unpool,
        lambda *inputs: unpool(*inputs, join=lambda a, b: b),
        "last value overwrites",
    ),
    "the first value": (
        check.unpool,
        lambda *inputs: unpool(*inputs, join=lambda a, b: a),
        "first value stays",
    ),
    "the largest value or 0": (check.unpool, from_zero, "below zero is lost"),
    "columns before rows": (check.unpool, transposed, "Rows and columns are swapped"),
    "twice the signal": (
        check.stage,
        lambda *inputs: 2 * stage(*inputs),
        "2 times what it should be",
    ),
    "one correlation of all": (
        check.correlation,
        lambda a, b: correlation(a.flatten()[None], b.flatten()[None])[0],
        "whole batch",
    ),
    "the negative correlation": (
        check.correlation,
        lambda *inputs: -correlation(*inputs),
        "wrong sign",
    ),
}

test_right_answers_pass, test_wrong_answers_get_advice, test_every_exercise_has_a_right_answer = (
    answer_tests(check, RIGHT, WRONG)
)
