"""The audit: what is wrong with each file, and whether the collection's labels can be told without looking at lungs."""
