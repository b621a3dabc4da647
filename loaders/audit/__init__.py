"""The audit: defects of each file, and whether labels of a collection can be predicted without the lungs."""
