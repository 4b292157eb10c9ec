"""The rules, pure: no I/O, no clock, no environment. Time is an argument."""
