"""Published networks under the winner's recipe and on its device: what was the search good for?"""
