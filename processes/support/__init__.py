"""Support: tickets answered inside an SLA.

A change is folded (case.py), facts are looked up (facts.py), an answer is suggested (steps/), judged (rules.py, by the
limits of policy.py) and rendered for the outside (effects.py).
"""
