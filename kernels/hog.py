"""Histograms of oriented gradients of a small picture, in square cells."""

# H rows, W columns, R rows of cells, C columns of cells, B bins of direction

import math

import numpy as np

from kernels.jit import kernel


@kernel
def directions_into(out_RCB, picture_HW):
    """Add up each cell's gradient magnitudes by signed direction, shared linearly between the two nearest bins.

    out_RCB: float32, written whole.  picture_HW: float32; its sides are multiples of the cell's.  Central differences;
    none across the outer edge.  Source: Dalal and Triggs 2005, without the normalisation of blocks.
    """
    rows, columns = picture_HW.shape
    num_bins = out_RCB.shape[2]
    cell_rows, cell_columns = rows // out_RCB.shape[0], columns // out_RCB.shape[1]
    out_RCB[:] = 0
    for row in range(rows):
        for column in range(columns):
            across = np.float32(0)
            down = np.float32(0)
            if 0 < column < columns - 1:
                across = picture_HW[row, column + 1] - picture_HW[row, column - 1]
            if 0 < row < rows - 1:
                down = picture_HW[row + 1, column] - picture_HW[row - 1, column]
            magnitude = math.sqrt(across * across + down * down)
            if magnitude == 0:
                continue
            turn = math.atan2(down, across) / (2 * math.pi)
            place = (turn + 1 if turn < 0 else turn) * num_bins
            below = int(place)
            share = place - below
            cell = out_RCB[row // cell_rows, column // cell_columns]
            cell[below % num_bins] += magnitude * (1 - share)
            cell[(below + 1) % num_bins] += magnitude * share
