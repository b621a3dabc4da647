"""Explanations: where a network looks, how far its maps may be believed, and whether it looks at the lungs."""
