"""winner"""
