"""The comparison of networks on one split."""
