"""Explanation: saliency maps and the controls that test them."""
