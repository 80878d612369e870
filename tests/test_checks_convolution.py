"""The checks of notebook 04: right answers, and wrong ones that are not usual mistakes."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from answers import answer_tests

from vislib.checks import convolution as check


def convolve(x, w, stride, padding):
    return F.conv2d(torch.tensor(x)[None], torch.tensor(w)[None], None, stride, padding)[0, 0]


def unpool(values, switches, shape):
    flat = np.zeros(shape[0] * shape[1])
    flat[switches.ravel()] = values.ravel()
    return flat.reshape(shape)


def field(chain):
    size = jump = 1
    for kernel, stride in chain:
        size += (kernel - 1) * jump
        jump *= stride
    return size, jump


RIGHT = {
    "output size": (check.output_size, lambda m, k, s, p: (m - k + 2 * p) // s + 1),
    "convolution by PyTorch": (check.convolve, convolve),
    "unpooling": (check.unpool, unpool),
    "receptive field": (check.receptive_field, field),
}


def window_without_stride(x, w, stride, padding):
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    rows, columns = ((side - w.shape[1]) // stride + 1 for side in x.shape[1:])
    y = np.zeros((rows, columns))
    for i in range(rows):
        for j in range(columns):
            y[i, j] = (w * x[:, i : i + w.shape[1], j : j + w.shape[2]]).sum()
    return y


def kernel_size_from_channels(x, w, stride, padding):
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    k = len(w)
    rows, columns = ((side - k) // stride + 1 for side in x.shape[1:])
    corners = [(i * stride, j * stride) for i in range(rows) for j in range(columns)]
    values = [np.sum(w * x[:, i : i + k, j : j + k]) for i, j in corners]
    return np.array(values).reshape(rows, columns)


def swapped_positions(values, switches, shape):
    y = np.zeros(shape)
    for value, switch in zip(values.ravel(), switches.ravel(), strict=True):
        column, row = divmod(int(switch), shape[1])
        y.ravel()[(row * shape[0] + column) % y.size] = value
    return y


WRONG = {
    "a rounded output size": (
        check.output_size,
        lambda m, k, s, p: int((m - k + 2 * p) / s + 1.5),
        "the output size for M",
    ),
    "the kernel rotated": (
        check.convolve,
        lambda x, w, stride, padding: convolve(x, w[:, ::-1, ::-1].copy(), stride, padding),
        "kernel is flipped",
    ),
    "window without stride": (
        check.convolve,
        window_without_stride,
        r"starts at pixel \(i · stride",
    ),
    "kernel size from channels": (
        check.convolve,
        kernel_size_from_channels,
        "stopped with|shape",
    ),
    "swapped positions": (
        check.unpool,
        swapped_positions,
        "Rows and columns are swapped",
    ),
    "negative values": (
        check.unpool,
        lambda *inputs: -unpool(*inputs),
        "wrong sign",
    ),
    "layers in reverse order, size only": (
        check.receptive_field,
        lambda chain: (field(chain[::-1])[0], field(chain)[1]),
        "order of the forward pass",
    ),
}

test_right_answers_pass, test_wrong_answers_get_advice, test_every_exercise_has_a_right_answer = (
    answer_tests(check, RIGHT, WRONG)
)
