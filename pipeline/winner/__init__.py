"""From finished trials to a bundle: pick, train to the end, quantise, export, pack, verify. Start with
`bundle_builder.py`.
"""
