"""Cross-validation: group-disjoint folds, random ones, and folds with hidden lungs."""
