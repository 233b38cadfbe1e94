"""What does this model cost on this device?"""
