"""Words: what files and messages mean. No I/O, no clock, no Twisted."""
