"""Blind comparison of groups of samples by chat models: the judge never sees the name of a method.

options         the options of ``esamp judge``
groups          groups of samples on the same problem, read from a study or from files
presentations   which groups are shown together, in which order, under which letters
prompt          the text that the judge reads
verdict         how the judge's answer is parsed
client          requests to the judge: retries, unreadable answers, refusals
run             makes all presentations that the file has no verdict for, several at a time
scores          verdicts as scores of pairs of arms
agreement       agreement between orders, rounds and judges
summary         win rates, ranks, position bias and agreement, with intervals over problems
"""
