"Damaged files and odd arguments, by the thousand: `python -m tests.fuzz --minutes 10`"
