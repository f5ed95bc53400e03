"""Which runs make up a series, the most important first."""

from __future__ import annotations

MOST = "limit,ours,ncolony,supervisor,circus,s6,runit,daemontools,pm2"
CORE = "limit,ours,ncolony,supervisor,circus,s6,runit,pm2"
QUICK = "limit,ours,ncolony,supervisor,s6,runit"
ALL = "limit,ours,ncolony,supervisor,circus,s6,s6+log,runit,runit+log,daemontools,pm2"

# About 15 minutes: those rivals that have been the best at something.
SHORT = f"""
lifecycle --n 1000 --idle 10 --reps 1 --peers {QUICK}
lifecycle --n 1000 --idle 0 --reps 2 --peers {QUICK}
respawn --n 100 --reps 2 --kills 50 --budget 10 --peers limit,ours,ncolony,runit
change --n 1000 --reps 1 --adds 5 --peers limit,ours,ncolony,s6
restart --n 1000 --reps 2 --peers limit,ours,ncolony,s6,runit
log --n 1,50 --reps 1 --seconds 2 --peers limit,ours,supervisor,s6
events --n 50 --reps 1 --peers ours,ncolony
killsup --n 100 --reps 1 --peers ours,s6
answer --n 100 --reps 1 --kills 50 --budget 10 --under idle --peers limit,ours
answer --n 100 --reps 1 --kills 50 --budget 10 --under flood --peers limit,ours
answer --n 100 --reps 1 --kills 50 --budget 10 --under loops --peers limit,ours
burst --n 5000 --reps 1 --peers limit,ours
ctl --n 1000 --reps 1 --peers ours,ncolony
"""

# About 90 minutes.
FULL = f"""
lifecycle --n 100 --idle 0 --reps 2 --peers {ALL}
lifecycle --n 1000 --idle 20 --reps 1 --peers {ALL}
respawn --n 100 --reps 1 --budget 20 --peers {MOST}
killsup --n 100 --reps 1 --peers {MOST}
change --n 1000 --reps 1 --adds 6 --peers {MOST}
restart --n 100,1000 --reps 1 --peers {MOST}
log --n 1,50 --reps 1 --peers {MOST}
events --n 1,50 --reps 3 --peers ours,ncolony
answer --n 100 --reps 3 --budget 20 --under idle --peers limit,ours,supervisor
answer --n 100 --reps 3 --budget 20 --under flood --peers limit,ours,supervisor
answer --n 100 --reps 3 --budget 20 --under loops --peers limit,ours,supervisor
burst --n 5000 --reps 2 --peers limit,ours,s6
scale --n 100,1000,5000,10000 --reps 1 --kills 20 --adds 6 --peers limit,ours,s6
ctl --n 1000 --reps 3 --peers ours,ncolony,supervisor,circus
lifecycle --n 1000 --idle 20 --reps 1 --fast --peers {CORE}
change --n 1000 --reps 1 --adds 6 --fast --peers {CORE}
killsup --n 100 --reps 1 --all --peers limit,ours,s6,runit,daemontools
killsup --n 100 --reps 1 --quiet --peers limit,ours,ncolony,supervisor,circus,pm2
lifecycle --n 0 --reps 1 --peers {MOST}
lifecycle --n 1000 --idle 0 --reps 2 --peers {QUICK}
respawn --n 100 --reps 2 --budget 20 --peers {CORE}
respawn --n 1000 --reps 1 --budget 20 --peers limit,ours,ncolony,runit,daemontools,pm2
restart --n 1000 --reps 2 --peers {QUICK}
log --n 1,50 --reps 2 --peers {CORE}
lifecycle --n 5000,10000 --idle 10 --reps 1 --peers limit,ours,ncolony,supervisor,s6
"""

SERIES = {
    name: [line.split() for line in text.split("\n") if line] for name, text in (("short", SHORT), ("full", FULL))
}
