"""Statistics of an evaluation: estimates with intervals, operating points, calibration, curves."""
