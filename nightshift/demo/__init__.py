"""The demo: the whole system against a simulated outside world, for one night, and what it promises about it.

play.py runs the night · outside.py is the world as we see it · ours.py and privacy.py read our side · summary.py
judges.
"""
