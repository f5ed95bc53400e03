// The supervised program. payload EVENTS NAME [MODE [ARG]]
//  MODE sleep (default): log a start event, then pause until TERM/INT
//       tick MS:         also print one numbered line every MS milliseconds
//       blast SEC [MAX]: print numbered lines as fast as possible for SEC seconds, MAX of them at most (0: any number;
//                        default: 1 GB in all), then pause
//       crash MS:        exit with 1 after MS milliseconds
// EVENTS is appended to with one atomic write per event: "KIND name pid CLOCK_MONOTONIC_ns a b"
//  S started   T asked to stop (a = lines written)   P SIGPIPE (a)   E EPIPE (a)   D blast done (a = lines, b = own CPU us)
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
static int ev, pid; static const char *name; static volatile long lines;
static long long now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000LL + t.tv_nsec; }
static void event(char k, long a, long b) {
  char s[200]; int n = snprintf(s, sizeof s, "%c %s %d %lld %ld %ld\n", k, name, pid, now(), a, b);
  if (write(ev, s, n) != n) _exit(111);
}
static void on_term(int s) { event('T', lines, 0); _exit(0); }
static void on_pipe(int s) { event('P', lines, 0); _exit(141); }
enum { LINE = 100 };                       // bytes per line, newline included: "name pid seq xxx...x$\n"
static void fmt(char *p, long seq) {
  memset(p, 'x', LINE); int n = snprintf(p, LINE, "<%s %d %09ld ", name, pid, seq);
  p[n] = 'x'; p[LINE - 2] = '$'; p[LINE - 1] = '\n';
}
int main(int c, char **v) {
  name = v[2]; pid = getpid(); ev = open(v[1], O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  struct sigaction old; sigset_t none; sigemptyset(&none); sigprocmask(SIG_SETMASK, &none, 0);
  signal(SIGTERM, on_term); signal(SIGINT, on_term); signal(SIGHUP, on_term);
  sigaction(SIGPIPE, 0, &old); if (old.sa_handler != SIG_IGN) signal(SIGPIPE, on_pipe); // keep an inherited 'ignore'
  event('S', 0, 0);
  const char *mode = c > 3 ? v[3] : "sleep"; double arg = c > 4 ? atof(v[4]) : 0;
  if (!strcmp(mode, "tick")) {
    char b[LINE]; struct timespec d = { (long)arg / 1000, (long)arg % 1000 * 1000000L }; int broken = 0;
    for (;; nanosleep(&d, 0)) {
      fmt(b, lines); if (write(1, b, LINE) < 0 && !broken) { event('E', lines, 0); broken = 1; }
      lines++;                             // counts what the program meant to say, delivered or not
    }
  } else if (!strcmp(mode, "blast")) {
    enum { BUF = 8192 }; static char b[BUF + LINE]; int fill = 0; long long end = now() + (long long)(arg * 1e9);
    long most = c > 5 ? atol(v[5]) : 10000000;
    while (now() < end && (!most || lines < most)) {                  // like stdio: full 8 KiB buffers, not cut at line ends
      while (fill < BUF) { fmt(b + fill, lines++); fill += LINE; }
      for (int o = 0; o < BUF;) { int n = write(1, b + o, BUF - o); if (n < 0) { event('E', lines, 0); _exit(1); } o += n; }
      memmove(b, b + BUF, fill -= BUF);
    }
    if (fill && write(1, b, fill) < 0) event('E', lines, 0);
    struct rusage r; getrusage(RUSAGE_SELF, &r);
    event('D', lines, (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000000L + r.ru_utime.tv_usec + r.ru_stime.tv_usec);
  }
  if (!strcmp(mode, "crash")) {
    struct timespec d = { (long)arg / 1000, (long)arg % 1000 * 1000000L }; nanosleep(&d, 0); _exit(1);
  }
  for (;;) pause();
}
