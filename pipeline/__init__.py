"""Which architecture, and how do we find it?"""
